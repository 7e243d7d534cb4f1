package main

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// serveTLS echoes within TLS, with the files' certificate.
func serveTLS(t *testing.T, f tlsFiles, config *tls.Config) (address string) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		t.Fatal(err)
	}
	config.Certificates = []tls.Certificate{pair}
	address, err = listen(func(c *net.TCPConn) {
		conn := tls.Server(c, config)
		_, _ = io.Copy(conn, conn)
	})
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// tlsLoad is what a row with TLS has the load do.
func tlsLoad(t *testing.T, f tlsFiles, address string, more ...string) loadFlags {
	t.Helper()
	r := row{services: services{address, address, address}, authority: f.authority}
	flags, err := parseLoad(append(r.loadArgs("crr", 2, settings{}), more...)[1:])
	if err != nil {
		t.Fatal(err)
	}
	return flags
}

// TestLoadResumesEverySession, where it is to, and none elsewhere. A server that resumes
// nothing fails the load: its whole handshakes are not what is measured.
func TestLoadResumesEverySession(t *testing.T) {
	files, err := issueTLS(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]*tls.Config{"1.2": {MaxVersion: tls.VersionTLS12}, "1.3": {}} {
		var whole, resumed atomic.Int64
		c.VerifyConnection = func(s tls.ConnectionState) error {
			if s.DidResume {
				resumed.Add(1)
			} else {
				whole.Add(1)
			}
			return nil
		}
		address := serveTLS(t, files, c)
		load := func(wantWhole, wantResumed int64, f loadFlags) {
			t.Helper()
			whole.Store(0)
			resumed.Store(0)
			if err := f.takeTicket(); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if err := oneTunnel(f); err != nil {
					t.Fatal(err)
				}
			}
			if whole.Load() != wantWhole || resumed.Load() != wantResumed {
				t.Errorf("TLS %s: %d whole handshakes and %d resumed ones, want %d and %d", name, whole.Load(), resumed.Load(), wantWhole, wantResumed)
			}
		}
		load(3, 0, tlsLoad(t, files, address))
		load(1, 3, tlsLoad(t, files, address, "-resume"))
	}

	f := tlsLoad(t, files, serveTLS(t, files, &tls.Config{SessionTicketsDisabled: true}), "-resume")
	f.length = 100 * time.Millisecond
	if got, err := f.run(); err != nil || got.Failed == 0 || got.Total != 0 || !strings.Contains(got.Why, "resumed no session") {
		t.Errorf("without tickets: %+v, %v", got, err)
	}
}

// TestTables: a table has what was measured, and is left out where nothing was.
func TestTables(t *testing.T) {
	rows := []row{{name: "tunneld"}, {name: "haproxy-tls"}, {name: "tunneld-tls"}}
	order := metrics("crr", names(rows)...)
	got := results{}
	for i := range 5 {
		for at, r := range rows {
			got.add(order[0], r.name, float64((at+1)*(i+1)))
		}
	}
	var b strings.Builder
	if err := print(&b, rows, order, got); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| medians ", "| 3       | 6           | 9 ", "| ratio to tunneld direct ", "| ratio to HAProxy with TLS    | haproxy-tls | tunneld-tls |\n", "| 1           | 1.50 ± 0 %  |\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q", want)
		}
	}
	if strings.Contains(b.String(), "no proxy") || strings.Contains(b.String(), "resumed") || t.Failed() {
		t.Errorf("\n%s", b.String())
	}
	if plain := metrics("crr", "tunneld"); len(plain) != len(order)-2 {
		t.Errorf("without TLS: %v", plain)
	}
}
