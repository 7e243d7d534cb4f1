package tlsconf

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/nettest"
)

// pair is a TLS client and its server after their handshake, over TCP.
func pair(t *testing.T, version uint16, wrap func(net.Conn) net.Conn) (client, server *tls.Conn) {
	t.Helper()
	s := httptest.NewTLSServer(nil)
	config := &tls.Config{Certificates: s.TLS.Certificates, MaxVersion: version, InsecureSkipVerify: true}
	s.Close()
	near, far := nettest.Pair(t)
	for _, c := range []net.Conn{near, far} {
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	}
	client, server = tls.Client(wrap(near), config), tls.Server(Strict(far), config)
	done := make(chan error, 1)
	go func() { done <- server.Handshake() }()
	if err := errors.Join(client.Handshake(), <-done); err != nil {
		t.Fatal(err)
	}
	return client, server
}

func plain(c net.Conn) net.Conn { return c }

func expect(t *testing.T, c io.Reader, want string, end error) {
	t.Helper()
	got, err := io.ReadAll(c)
	if string(got) != want || !errors.Is(err, end) {
		t.Errorf("received %q (%v), want %q (%v)", got, err, want, end)
	}
}

func send(t *testing.T, c io.Writer, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

// withoutAlert is the end of a peer that sent no close_notify, as Strict reports it.
var withoutAlert = io.ErrUnexpectedEOF

func TestFIN(t *testing.T) {
	for name, version := range map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13} {
		for name2, wrap := range map[string]func(net.Conn) net.Conn{"": plain, ", wrapped": Strict} {
			t.Run(name+name2, func(t *testing.T) {
				client, server := pair(t, version, wrap)
				c := FIN{client}
				send(t, c, "question")
				if err := c.CloseWrite(); err != nil {
					t.Fatal(err)
				}
				expect(t, server, "question", withoutAlert)
				// The other direction lives on, and ends by close_notify.
				send(t, server, "answer")
				if err := server.CloseWrite(); err != nil {
					t.Fatal(err)
				}
				expect(t, c, "answer", nil)
			})
			t.Run(name+name2+", closed", func(t *testing.T) {
				client, server := pair(t, version, wrap)
				send(t, FIN{client}, "all")
				if err := (FIN{client}).Close(); err != nil {
					t.Fatal(err)
				}
				expect(t, server, "all", withoutAlert)
			})
		}
	}
}

// pipe is a connection without a half-close.
type pipe struct{ net.Conn }

func TestFINWithoutHalfClose(t *testing.T) {
	for _, wrap := range []func(net.Conn) net.Conn{plain, Strict} {
		client, _ := pair(t, tls.VersionTLS13, func(c net.Conn) net.Conn { return wrap(pipe{c}) })
		if err := (FIN{client}).CloseWrite(); err == nil {
			t.Error("CloseWrite succeeds on a connection that has none")
		}
	}
}

func TestStrict(t *testing.T) {
	for name, tt := range map[string]struct {
		wrap func(net.Conn) net.Conn
		end  func(*tls.Conn) error
		want error
	}{
		"close_notify":           {Strict, (*tls.Conn).Close, nil},
		"FIN":                    {Strict, func(c *tls.Conn) error { return FIN{c}.Close() }, withoutAlert},
		"FIN, without the check": {plain, func(c *tls.Conn) error { return FIN{c}.Close() }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			client, server := pair(t, tls.VersionTLS13, tt.wrap)
			send(t, server, "data")
			if err := tt.end(server); err != nil {
				t.Fatal(err)
			}
			expect(t, client, "data", tt.want)
		})
	}
}
