package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/bare"
	"github.com/tunneld/tunneld/internal/nettest"
)

// redirectRig is a redirect listener on an address, in a network of the test's own.
type redirectRig struct {
	*Socket
	done chan outcome
}

func newRedirectRig(t *testing.T, address string, options HandshakeOptions) *redirectRig {
	t.Helper()
	s, err := Bind(t.Context(), address, Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := &redirectRig{s, make(chan outcome, 1)}
	s.Serve(quiet(), func(c *bare.Socket, _ netip.AddrPort) {
		go func() {
			client, err := Handshake(context.Background(), redirectKind.New(Settings{}), NewConn(c), options)
			r.done <- outcome{client, err}
		}()
	}, func() {})
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// nobody is an address of no client.
const nobody = "192.0.2.255"

// client connects from within the network.
func (r *redirectRig) client(t *testing.T, to string) (*net.TCPConn, error) {
	t.Helper()
	c, err := net.DialTimeout("tcp", to, patience)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn), c.SetDeadline(time.Now().Add(patience))
}

// TestRedirect: the target is where the client has connected to, of both families, on a
// listener of one or both, and the client's first byte is not waited for.
func TestRedirect(t *testing.T) {
	if !nettest.Inside(t) {
		return
	}
	nettest.Own(t, "198.51.100.0/24", "2001:db8::/32")
	for name, tt := range map[string]struct{ address, target string }{
		"IPv4":                       {"127.0.0.1:0", "198.51.100.7:80"},
		"another port":               {"127.0.0.1:0", "198.51.100.7:443"},
		"IPv6":                       {"[::1]:0", "[2001:db8::7]:80"},
		"IPv4, of both":              {"[::]:0", "198.51.100.7:80"},
		"IPv6, of both":              {"[::]:0", "[2001:db8::7]:443"},
		"all of IPv4":                {"0.0.0.0:0", "198.51.100.8:80"},
		"another port of loopback's": {"127.0.0.1:0", "127.0.0.1:80"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRedirectRig(t, tt.address, HandshakeOptions{})
			nettest.Redirect(t, r.Addr().Port, nobody, 80, 443)
			c, err := r.client(t, tt.target)
			if err != nil {
				t.Fatal(err)
			}
			o := await(t, r.done)
			if o.err != nil {
				t.Fatalf("%v, hint %q", o.err, Hint(o.err))
			}
			if got := o.client; got.Target.String() != tt.target || got.Denied != nil || len(got.Ahead) > 0 {
				t.Errorf("target %s, %v, ahead %q; want %s", got.Target, got.Denied, got.Ahead, tt.target)
			}
			end, err := o.client.Ready(t.Context())
			if err != nil || end.Socket == nil {
				t.Fatalf("%+v, %v; want the bare socket", end, err)
			}
			served := tcp(t, end.Socket)
			if _, err := io.WriteString(served, "220 ready"); err != nil {
				t.Fatal(err)
			}
			_ = served.Close()
			if got, err := io.ReadAll(c); err != nil || string(got) != "220 ready" {
				t.Errorf("the client reads %q, %v", got, err)
			}
		})
	}
	t.Run("a refusal is a reset", func(t *testing.T) {
		r := newRedirectRig(t, "127.0.0.1:0", HandshakeOptions{})
		nettest.Redirect(t, r.Addr().Port, nobody, 80, 443)
		c, err := r.client(t, "198.51.100.7:80")
		if err != nil {
			t.Fatal(err)
		}
		o := await(t, r.done)
		if o.err != nil {
			t.Fatal(o.err)
		}
		o.client.Refuse(t.Context(), &tunnel.DialError{Message: "no"})
		if n, err := c.Read(make([]byte, 1)); n > 0 || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read %d, %v; want a reset", n, err)
		}
	})
	t.Run("within TLS", func(t *testing.T) {
		rig := newTLSRig(t)
		r := newRedirectRig(t, "127.0.0.1:0", HandshakeOptions{Timeout: patience, TLS: rig.tls()})
		nettest.Redirect(t, r.Addr().Port, nobody, 80, 443)
		c, err := r.client(t, "198.51.100.7:443")
		if err != nil {
			t.Fatal(err)
		}
		if err := tls.Client(c, rig.client()).Handshake(); err != nil {
			t.Fatal(err)
		}
		o := await(t, r.done)
		if o.err != nil || o.client.Target.String() != "198.51.100.7:443" {
			t.Fatalf("%+v, %v", o.client, o.err)
		}
		o.client.Reset()
	})
	t.Run("to the listener itself", func(t *testing.T) {
		for _, address := range []string{"127.0.0.1:0", "[::1]:0", "[::]:0"} {
			r := newRedirectRig(t, address, HandshakeOptions{})
			nettest.Redirect(t, r.Addr().Port, nobody, 80, 443)
			at := strings.Replace(r.Addr().String(), "[::]", "127.0.0.1", 1)
			r.refuses(t, at, "the client was not redirected: it has connected to "+at+", the listener itself")
		}
	})
}

// refuses connects to the listener and expects a reset, and an error with a hint.
func (r *redirectRig) refuses(t *testing.T, at, want string) {
	t.Helper()
	// It may be reset so soon that already the connect is told of it.
	c, err := r.client(t, at)
	if err == nil {
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%s: the client sees %v, want a reset", at, err)
	}
	if o := await(t, r.done); o.err == nil || !strings.Contains(o.err.Error(), want) || !strings.Contains(Hint(o.err), "a rule of nftables redirects") || Reason(o.err) != "protocol" {
		t.Errorf("error %v, reason %s, hint %q; want %s", o.err, Reason(o.err), Hint(o.err), want)
	}
}

// TestNothingIsRedirected: without a rule the system knows no original destination.
func TestNothingIsRedirected(t *testing.T) {
	if !nettest.Inside(t) {
		return
	}
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		r := newRedirectRig(t, address, HandshakeOptions{})
		r.refuses(t, r.Addr().String(), "the client was not redirected to "+r.Addr().String())
	}
}

// TestNoTracking: a system without connection tracking is told of as such. A socket that is
// not of TCP stands for it.
func TestNoTracking(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	if _, _, err := destinationsOf(fds[0]); err == nil || !strings.Contains(Hint(err), "nf_conntrack") {
		t.Errorf("error %v, hint %q", err, Hint(err))
	}
}
