package engine

import (
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/follow"
	"github.com/tunneld/tunneld/internal/neterr"
	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/outbound"
	"github.com/tunneld/tunneld/internal/proxytest"
	"github.com/tunneld/tunneld/internal/tlsconf"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// serverTLS returns what a server speaks, and the file with the authority of its
// certificate, which is for 127.0.0.1 and example.com.
func serverTLS(t *testing.T) (server *tls.Config, ca string) {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS() // for its certificate
	server = s.TLS.Clone()
	server.NextProtos = nil
	s.Close()
	ca = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return server, ca
}

// secured has f serve each connection within TLS, and returns the address and the
// authority's file.
func secured(t *testing.T, f func(*tls.Conn)) (address, ca string) {
	t.Helper()
	server, ca := serverTLS(t)
	return nettest.Serve(t, func(c *net.TCPConn) {
		if secured := tls.Server(c, server); secured.Handshake() == nil { // else its peer says why
			f(secured)
		}
	}), ca
}

func directTLS(t *testing.T, via string, o config.TLS) direct {
	t.Helper()
	v, err := outbound.ParseVia(via)
	if err != nil {
		t.Fatal(err)
	}
	return newDirect(config.Upstream{Type: config.DirectType, Name: "d", TLS: &o, Common: config.Common{Via: v}}, tlsconf.NewClient)
}

// TestDirectSpeaksTLS: with and without a proxy in front, bytes come whole and each
// direction ends by itself.
func TestDirectSpeaksTLS(t *testing.T) {
	target, ca := secured(t, func(c *tls.Conn) {
		_, _ = io.WriteString(c, "220 ready\r\n")
		b, _ := io.ReadAll(c)
		_, _ = io.WriteString(c, strings.ToUpper(string(b)))
		_ = c.CloseWrite()
	})
	for name, via := range map[string]string{"none": "", "http": "http://" + proxytest.HTTP(t, "").Addr} {
		t.Run(name, func(t *testing.T) {
			up, err := dialed(t, directTLS(t, via, config.TLS{Client: tlsconf.ClientOptions{CAFile: ca}}), target)
			if err != nil {
				t.Fatal(err)
			}
			if n := len(up.Stages); n != 2 || up.Stages[1].Stage != pluginv1.Stage_STAGE_TLS {
				t.Errorf("stages %v", up.Stages)
			}
			converse(t, up)
		})
	}
}

// TestDirectTLSIsCut: an end without close_notify is no clean end, and a client's
// reset is none for the target.
func TestDirectTLSIsCut(t *testing.T) {
	t.Run("by the target", func(t *testing.T) {
		target, ca := secured(t, func(c *tls.Conn) {
			_, _ = io.WriteString(c, "half a file")
			_ = c.NetConn().(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, c.NetConn())
		})
		up, err := dialed(t, directTLS(t, "", config.TLS{Client: tlsconf.ClientOptions{CAFile: ca}}), target)
		if err != nil {
			t.Fatal(err)
		}
		client, ended := pumped(t, up)
		if got, err := io.ReadAll(client); err == nil {
			t.Errorf("%q and a clean end", got)
		}
		if r := <-ended; r.Reason != tunnel.CloseUpstreamReset || !errors.Is(r.Err, io.ErrUnexpectedEOF) {
			t.Errorf("it ended with %+v", r)
		}
	})
	t.Run("by the client", func(t *testing.T) {
		heard := make(chan error, 1)
		target, ca := secured(t, func(c *tls.Conn) {
			_, err := io.Copy(io.Discard, c)
			heard <- err
		})
		up, err := dialed(t, directTLS(t, "", config.TLS{Client: tlsconf.ClientOptions{CAFile: ca}}), target)
		if err != nil {
			t.Fatal(err)
		}
		client, ended := pumped(t, up)
		_ = client.SetLinger(0)
		_ = client.Close()
		if r := <-ended; r.Reason != tunnel.CloseClientReset {
			t.Errorf("it ended with %+v", r)
		}
		if err := <-heard; err == nil {
			t.Error("the target saw a clean end")
		}
	})
}

func TestDirectTLSFails(t *testing.T) {
	target, ca := secured(t, func(c *tls.Conn) { _, _ = io.Copy(io.Discard, c) })
	plain := nettest.Serve(t, func(c *net.TCPConn) { _, _ = io.WriteString(c, "SSH-2.0-x\r\n") })
	for name, tt := range map[string]struct {
		address string
		tls     config.TLS
		reason  pluginv1.Reason
		hint    string
	}{
		"an unknown authority": {target, config.TLS{}, pluginv1.Reason_REASON_PROTOCOL, "tls.ca_file"},
		"another name":         {target, config.TLS{Client: tlsconf.ClientOptions{CAFile: ca}, ServerName: "elsewhere.corp"}, pluginv1.Reason_REASON_PROTOCOL, "tls.server_name"},
		"no TLS":               {plain, config.TLS{}, pluginv1.Reason_REASON_PROTOCOL, "does not speak TLS"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := dialed(t, directTLS(t, "", tt.tls), tt.address)
			var e *tunnel.DialError
			if !errors.As(err, &e) || e.Stage != pluginv1.Stage_STAGE_TLS || e.Reason != tt.reason || !strings.Contains(e.Hint, tt.hint) {
				t.Errorf("%v, %+v", err, e)
			}
		})
	}
	up, err := dialed(t, directTLS(t, "", config.TLS{Client: tlsconf.ClientOptions{CAFile: ca}, ServerName: "example.com."}), target)
	if err != nil {
		t.Fatal(err)
	}
	_ = up.Stream.SetDeadline(time.Now())
	_ = up.Stream.Close()
}

// TestServerRefusesTheCertificateLate: with TLS 1.3 the tunnel is open when the server
// says that it wants a client certificate. That is the error, whatever fails first.
func TestServerRefusesTheCertificateLate(t *testing.T) {
	target, ca := nettest.WantsCertificate(t, tls.VersionTLS13)
	for range 20 {
		up, err := dialed(t, directTLS(t, "", config.TLS{Client: tlsconf.ClientOptions{CAFile: ca}}), target)
		if err != nil {
			t.Fatal(err)
		}
		client, ended := pumped(t, up)
		for err == nil {
			_, err = client.Write(make([]byte, 4096))
		}
		if r := <-ended; r.Reason != tunnel.CloseUpstreamReset || !neterr.RefusesCertificate(r.Err) {
			t.Fatalf("it ended with %+v", r)
		}
	}
}

// TestLateRefusalIsLogged with what to do, also where connections are not logged.
func TestLateRefusalIsLogged(t *testing.T) {
	for version, want := range map[uint16][]string{
		tls.VersionTLS12: {"msg", "upstream failed, the next is tried", "reason", "protocol"},
		tls.VersionTLS13: {"msg", "connection failed", "reason", "unauthenticated"},
	} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			target, ca := nettest.WantsCertificate(t, version)
			address := nettest.FreeAddress(t)
			r := start(t, nil, func(string) string {
				return fmt.Sprintf(`
log { access = false }
listener "tcp" "l" {
  address = %q
  target  = %q
}
upstream "direct" "first" {
  tls { ca_file = %q }
}
upstream "direct" "second" {
  tls { ca_file = %[3]q }
}
route "r" { upstreams = [upstream.direct.first, upstream.direct.second] }
`, address, target, ca)
			})
			wantReset(t, address)
			line := r.log.Await(t, 1, append(want, "upstream", "direct.first", "stage", "tls")...)[0]
			if hint := fmt.Sprint(line["hint"]); !strings.Contains(hint, "tls.cert_file") {
				t.Errorf("hint %q", hint)
			}
		})
	}
}

// TestSessionsOfAProxyAreResumed: also where the upstream has no tls block.
func TestSessionsOfAProxyAreResumed(t *testing.T) {
	target := nettest.Serve(t, nettest.Echo)
	proxy := proxytest.HTTPS(t, "")
	via, err := outbound.ParseVia("https://" + proxy.Addr)
	if err != nil {
		t.Fatal(err)
	}
	all := newTLSFiles(&follow.Follower{}, slog.New(slog.DiscardHandler))
	defer all.retain(nil)
	d := newDirect(config.Upstream{Type: config.DirectType, Name: "d", Common: config.Common{Via: via}}, func(o tlsconf.ClientOptions) *tlsconf.Client {
		o.CAFile = proxy.CAFile // as one of the system's
		return all.made("direct.d", o)
	})
	for _, want := range []bool{false, true} {
		up, err := dialed(t, d, target)
		if err != nil {
			t.Fatal(err)
		}
		if resumed := up.Stream.(*tls.Conn).ConnectionState().DidResume; resumed != want {
			t.Errorf("the session is resumed: %v, want %v", resumed, want)
		}
		_ = up.Stream.Close()
	}
}
