package tlsconf

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

// withNames is a certificate with many names of the form that takes most memory: empty URIs.
func withNames(t *testing.T, a *authority, many int) *x509.Certificate {
	t.Helper()
	uris := asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: []byte(strings.Repeat("\x86\x00", many))}
	der, err := asn1.Marshal(uris)
	if err != nil {
		t.Fatal(err)
	}
	return a.certificate(&x509.Certificate{ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: der}}}).Leaf
}

// certificate issues one with its key.
func (a *authority) certificate(c *x509.Certificate) tls.Certificate {
	a.t.Helper()
	c.NotAfter = time.Now().Add(time.Hour)
	pair, err := tls.X509KeyPair(a.Issue(a.t, c))
	if err != nil {
		a.t.Fatal(err)
	}
	return pair
}

// TestFootprint is about what the heap grows by, apart from the bytes of the certificate.
func TestFootprint(t *testing.T) {
	a := newAuthority(t)
	var names []string
	for i := range 250 {
		names = append(names, fmt.Sprintf("host-%d.department.corp.example", i))
	}
	for name, cert := range map[string]*x509.Certificate{
		"usual":      a.certificate(&x509.Certificate{DNSNames: names[:1], Subject: pkix.Name{Organization: []string{"corp"}}}).Leaf,
		"many names": a.certificate(&x509.Certificate{DNSNames: names}).Leaf,
		"odd names":  withNames(t, a, 7000),
	} {
		const copies = 30
		held := make([]*x509.Certificate, copies)
		before := heap()
		for i := range held {
			var err error
			if held[i], err = x509.ParseCertificate(cert.Raw); err != nil {
				t.Fatal(err)
			}
		}
		each := (heap() - before) / copies
		runtime.KeepAlive(held)
		got := identitySize(tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}) - len(cert.Raw)
		t.Logf("%s: %d bytes of certificate, %d are held, %d were expected", name, len(cert.Raw), each, got)
		if got < each*8/10 || got > each*13/10 {
			t.Errorf("%s: %d bytes are held, and %d were expected", name, each, got)
		}
	}
}

func heap() int {
	runtime.GC()
	runtime.GC() // what has a finalizer goes with the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// TestServerBoundsIdentities: a client is let in with many names, and with certificates that
// nobody has asked for, but not with so many that they are a burden.
func TestServerBoundsIdentities(t *testing.T) {
	a, other, f := newAuthority(t), newAuthority(t), newFolder(t)
	cert, key := a.issue("far.example", time.Now().Add(time.Hour))
	s := NewServer(ServerOptions{Pairs: []Pair{f.putPair("server", cert, key)}, ClientCAFile: f.put("clients", a.PEM())})
	followed(t, s)
	var names []string
	for i := range 250 {
		names = append(names, fmt.Sprintf("host-%d.department.corp.example", i))
	}
	with := func(more ...*x509.Certificate) tls.Certificate {
		c := a.certificate(&x509.Certificate{DNSNames: names})
		for _, m := range more {
			c.Certificate = append(c.Certificate, m.Raw)
		}
		return c
	}
	timed := with()
	timed.SignedCertificateTimestamps = make([][]byte, 3000)
	for i := range timed.SignedCertificateTimestamps {
		timed.SignedCertificateTimestamps[i] = []byte{1}
	}
	for name, tt := range map[string]struct {
		shows   tls.Certificate
		refused bool
	}{
		"many names, and the authority":          {with(a.Certificate), false},
		"some that are in no chain":              {with(other.Certificate, withNames(t, other, 9)), false},
		"one with odd names that is in no chain": {with(withNames(t, other, 7000)), true},
		"its own has odd names":                  {a.certificate(&x509.Certificate{ExtraExtensions: withNames(t, a, 7000).Extensions}), true},
		"timestamps":                             {timed, true},
	} {
		for version, number := range bothVersions {
			if name == "timestamps" && number != tls.VersionTLS13 {
				continue // a client has no place for them
			}
			t.Run(name+", "+version, func(t *testing.T) {
				_, err := meet(t, &tls.Config{Certificates: []tls.Certificate{tt.shows}, InsecureSkipVerify: true, MaxVersion: number}, s.must(t))
				var large *LargeError
				if errors.As(err, &large) != tt.refused || (err != nil) != tt.refused {
					t.Fatal(err)
				}
				if tt.refused && (large.Size <= maxIdentity || !strings.Contains(err.Error(), "remote error: tls: bad certificate")) {
					t.Error(err)
				}
			})
		}
	}
}
