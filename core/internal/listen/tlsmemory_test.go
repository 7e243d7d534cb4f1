package listen

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// tries has a client do its handshake, and returns what was held for it, and what it was told.
func (r *tlsRig) tries(config *tls.Config) (held int64, told, err error) {
	r.t.Helper()
	r.held.Store(0)
	raw, done := r.begin(KindTCP, patience)
	c := tls.Client(raw, config)
	told = c.Handshake()
	_ = raw.CloseWrite()
	o := await(r.t, done)
	if o.client != nil {
		o.client.Reset()
	} else if told == nil {
		_, told = c.Read(make([]byte, 1))
	}
	_ = raw.Close()
	return r.held.Load(), told, o.err
}

// shows is a client whose certificate has so many names.
func (r *tlsRig) shows(names int) *tls.Config {
	r.t.Helper()
	all := []string{"web.corp"}
	for i := range names {
		all = append(all, fmt.Sprintf("web-%d.department.corp", i))
	}
	return r.client(all...)
}

// TestTLSMemory is asked for before it is used. A client that sends more than it may is told so
// by an alert, in one certificate or in many.
func TestTLSMemory(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			r := newTLSRig(t)
			r.options.ClientCAFile, r.options.MaxVersion = r.authority.File(t), strings.TrimPrefix(tls.VersionName(version), "TLS ")
			usual, _, err := r.tries(r.client("web.corp"))
			if err != nil || usual < tlsMemory || usual > 4*tlsMemory {
				t.Errorf("%d bytes are held, %v", usual, err)
			}
			if held, _, err := r.tries(r.shows(500)); err != nil || held < usual+flightMemory*10<<10 {
				t.Errorf("a large certificate: %d bytes are held, %v", held, err)
			}
			many := r.client("web.corp")
			chain := &many.Certificates[0].Certificate
			for range maxFlight / len(r.authority.Certificate.Raw) {
				*chain = append(*chain, r.authority.Certificate.Raw)
			}
			for name, config := range map[string]*tls.Config{"one": r.shows(1000), "many": many} {
				held, told, err := r.tries(config)
				if Reason(err) != "tls" || !strings.Contains(err.Error(), "more than 16384 bytes") || !strings.Contains(Hint(err), "certificates") || held > usual+(flightMemory+1)*maxFlight {
					t.Errorf("%s: %d bytes are held, %v, hint %q", name, held, err, Hint(err))
				}
				if told == nil || !strings.Contains(told.Error(), "record overflow") {
					t.Errorf("%s: the client is told %v", name, told)
				}
			}
			for _, most := range []int64{1, usual - 500} {
				r.most = most
				if _, _, err := r.tries(r.client("web.corp")); !errors.Is(err, errNoMemory) {
					t.Errorf("with %d bytes: %v", most, err)
				}
			}
		})
	}
}

// TestTLSIdentityIsBounded: what a tunnel would hold of the client's certificates.
func TestTLSIdentityIsBounded(t *testing.T) {
	r := newTLSRig(t)
	r.options.ClientCAFile = r.authority.File(t)
	uris, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: []byte(strings.Repeat("\x86\x00", 6000))})
	if err != nil {
		t.Fatal(err)
	}
	config := r.client("web.corp")
	odd := r.certificate(r.authority, &x509.Certificate{ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: uris}}})
	config.Certificates[0].Certificate = append(config.Certificates[0].Certificate, odd.Certificate[0])
	_, told, err := r.tries(config)
	if Reason(err) != "tls" || !strings.Contains(err.Error(), "KiB of memory") || !strings.Contains(Hint(err), "fewer names") {
		t.Errorf("%v, hint %q", err, Hint(err))
	}
	if told == nil || !strings.Contains(told.Error(), "bad certificate") {
		t.Errorf("the client is told %v", told)
	}
}
