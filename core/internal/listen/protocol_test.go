package listen

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/bare"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// pair returns a client and the bare socket that it is at the other end of.
func pair(t *testing.T) (*net.TCPConn, *bare.Socket) {
	t.Helper()
	s, err := Bind(t.Context(), "127.0.0.1:0", Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	accepted := make(chan *bare.Socket, 1)
	s.Serve(quiet(), func(c *bare.Socket, _ bare.Peer) { accepted <- c }, func() {})
	c := dial(t, s.Addr())
	return c, <-accepted
}

// certificate is a server's that nobody has signed.
func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// overTLS returns a client that speaks TLS, its TCP connection, and the server's
// end.
func overTLS(t *testing.T) (client *tls.Conn, under *net.TCPConn, server *Conn) {
	t.Helper()
	under, socket := pair(t)
	near := tls.Server(tcp(t, socket), &tls.Config{Certificates: []tls.Certificate{certificate(t)}})
	t.Cleanup(func() { _ = near.NetConn().Close() })
	return tls.Client(under, &tls.Config{InsecureSkipVerify: true}), under, NewStreamConn(near)
}

// TestHandshakeOverTLS: what listeners speak does not need the bare socket.
func TestHandshakeOverTLS(t *testing.T) {
	requests := map[string]string{KindSOCKS5: "\x05\x01\x00\x05\x01\x00\x03\x02db\x00\x50", KindHTTP: "CONNECT db:80 HTTP/1.1\r\n\r\n", KindMixed: "\x04\x01\x00\x50\x00\x00\x00\x01\x00db\x00"}
	begin := func(t *testing.T, kind string) (*tls.Conn, *net.TCPConn, *Client) {
		c, under, conn := overTLS(t)
		sent := make(chan error, 1)
		go func() {
			_, err := io.WriteString(c, requests[kind])
			sent <- err
		}()
		client, err := Handshake(t.Context(), speaking(t, kind), conn, HandshakeOptions{Timeout: patience})
		if err := errors.Join(err, <-sent); err != nil {
			t.Fatal(err)
		}
		if client.Target.String() != "db:80" {
			t.Errorf("target %s", client.Target)
		}
		return c, under, client
	}
	for kind := range requests {
		t.Run(kind+", ready", func(t *testing.T) {
			c, _, client := begin(t, kind)
			end, err := client.Ready(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				defer end.Stream.Close()
				_, _ = io.Copy(end.Stream, end.Stream)
				_ = end.Stream.(bare.HalfCloser).CloseWrite()
			}()
			if _, err := io.WriteString(c, "hello"); err != nil {
				t.Fatal(err)
			}
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(c)
			if err != nil || !bytes.HasSuffix(got, []byte("hello")) || bytes.Count(got, []byte("hello")) != 1 {
				t.Fatalf("read %q, %v", got, err)
			}
		})
		t.Run(kind+", refused", func(t *testing.T) {
			c, _, client := begin(t, kind)
			go client.Refuse(t.Context(), &tunnel.DialError{Reason: pluginv1.Reason_REASON_DENIED})
			got, err := io.ReadAll(c)
			if err != nil || !strings.Contains(string(got), "403 Forbidden") && !bytes.Contains(got, []byte("\x05\x02\x00\x01")) && string(got) != refused4 {
				t.Fatalf("read %q, %v", got, err)
			}
			_ = c.Close()
		})
		t.Run(kind+", reset", func(t *testing.T) {
			_, under, client := begin(t, kind)
			client.Reset()
			if _, err := io.ReadAll(under); !errors.Is(err, syscall.ECONNRESET) {
				t.Fatalf("read: %v; want a reset", err)
			}
		})
	}
}

// elsewhere is a protocol whose clients somebody else talks with: it waits for
// them, they may have been told, and a tunnel may be another connection's.
type elsewhere struct {
	learned chan *Failure
	ready   chan error
	other   *net.TCPConn // of the tunnel
	refused chan *tunnel.DialError
}

func (*elsewhere) Asks() bool { return true }

func (e *elsewhere) Learn(ctx context.Context, _ *Conn) (Request, *Failure) {
	select {
	case fail := <-e.learned:
		return Request{Target: tunnel.Target{Host: "db", Port: 80}, User: "alice", Ahead: []byte("ahead"), Responder: e}, fail
	case <-ctx.Done():
		return Request{}, &Failure{Err: ctx.Err()}
	}
}

func (e *elsewhere) Ready(ctx context.Context, c *Conn) (tunnel.End, error) {
	select {
	case err := <-e.ready:
		c.Reset()
		if err != nil {
			return tunnel.End{}, err
		}
		return tunnel.End{Stream: e.other}, nil
	case <-ctx.Done():
		c.Reset()
		return tunnel.End{}, ctx.Err()
	}
}

func (e *elsewhere) Refuse(_ context.Context, c *Conn, err *tunnel.DialError) {
	c.Reset()
	e.refused <- err
}

// TestProtocolThatTakesItsTime: a handshake may be somebody else's talk, which
// takes time, fails, and ends with another connection than it began with.
func TestProtocolThatTakesItsTime(t *testing.T) {
	begin := func(t *testing.T, ctx context.Context) (*net.TCPConn, *elsewhere, <-chan outcome) {
		c, socket := pair(t)
		e := &elsewhere{make(chan *Failure, 1), make(chan error, 1), nil, make(chan *tunnel.DialError, 1)}
		done := make(chan outcome, 1)
		go func() {
			client, err := Handshake(ctx, e, NewConn(socket), HandshakeOptions{Timeout: patience})
			done <- outcome{client, err}
		}()
		return c, e, done
	}
	learned := func(t *testing.T) (*net.TCPConn, *elsewhere, *Client) {
		c, e, done := begin(t, t.Context())
		e.learned <- nil
		o := await(t, done)
		if o.err != nil || o.client.Target.String() != "db:80" || o.client.User != "alice" {
			t.Fatalf("%+v, %v", o.client, o.err)
		}
		return c, e, o.client
	}
	t.Run("broken off while it learns", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		_, _, done := begin(t, ctx)
		cancel()
		if o := await(t, done); !errors.Is(o.err, context.Canceled) {
			t.Fatalf("error %v", o.err)
		}
	})
	t.Run("told by somebody else", func(t *testing.T) {
		c, socket := pair(t)
		if _, err := io.WriteString(c, "what nobody reads"); err != nil {
			t.Fatal(err)
		}
		refused := errors.New("refused")
		done := make(chan error, 1)
		go func() {
			_, err := Handshake(t.Context(), toldOff{refused}, NewConn(socket), HandshakeOptions{Timeout: patience})
			done <- err
		}()
		if got, err := io.ReadAll(c); err != nil || string(got) != "no" {
			t.Fatalf("read %q, %v; want the answer and a clean end", got, err)
		}
		_ = c.Close()
		if err := <-done; !errors.Is(err, refused) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("ready on another connection", func(t *testing.T) {
		_, e, client := learned(t)
		far, socket := pair(t)
		e.other = tcp(t, socket)
		e.ready <- nil
		end, err := client.Ready(t.Context())
		if err != nil || string(end.ReadAhead) != "ahead" {
			t.Fatalf("%+v, %v", end, err)
		}
		_ = end.Stream.Close()
		if got, err := io.ReadAll(far); len(got) > 0 || err != nil {
			t.Errorf("read %q, %v", got, err)
		}
	})
	t.Run("not ready", func(t *testing.T) {
		c, e, client := learned(t)
		lost := errors.New("the rendezvous has failed")
		e.ready <- lost
		if end, err := client.Ready(t.Context()); !errors.Is(err, lost) || end.Stream != nil || end.Socket != nil {
			t.Fatalf("%+v, %v", end, err)
		}
		if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read: %v; want a reset", err)
		}
	})
	t.Run("broken off while it answers", func(t *testing.T) {
		_, _, client := learned(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := client.Ready(ctx); !errors.Is(err, context.Canceled) {
			t.Fatalf("error %v", err)
		}
	})
	t.Run("refused", func(t *testing.T) {
		_, e, client := learned(t)
		why := &tunnel.DialError{Message: "no route"}
		client.Refuse(t.Context(), why)
		if got := <-e.refused; got != why {
			t.Errorf("told %v", got)
		}
	})
}

// TestReadyTooLate: what a client was to be connected by is closed where it was
// reset meanwhile.
func TestReadyTooLate(t *testing.T) {
	c, socket := pair(t)
	far, other := pair(t)
	ctx, cancel := context.WithCancel(t.Context())
	p := &lateProtocol{cancel, tcp(t, other)}
	client, err := Handshake(ctx, p, NewConn(socket), HandshakeOptions{Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Ready(ctx); !errors.Is(err, errBrokenOff) {
		t.Errorf("error %v", err)
	}
	if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read: %v; want a reset", err)
	}
	if got, err := io.ReadAll(far); len(got) > 0 || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
}

// lateProtocol is ready on another connection, once the client was reset.
type lateProtocol struct {
	cancel context.CancelFunc
	other  *net.TCPConn
}

func (*lateProtocol) Asks() bool { return true }

func (p *lateProtocol) Learn(ctx context.Context, c *Conn) (Request, *Failure) {
	if _, err := c.Talk(ctx); err != nil {
		return Request{}, &Failure{Err: err}
	}
	return Request{Responder: p}, nil
}

func (p *lateProtocol) Ready(context.Context, *Conn) (tunnel.End, error) {
	p.cancel()
	return tunnel.End{Stream: p.other}, nil
}

func (*lateProtocol) Refuse(context.Context, *Conn, *tunnel.DialError) {}

// toldOff is a protocol whose client somebody else has told no.
type toldOff struct{ err error }

func (toldOff) Asks() bool { return true }

func (p toldOff) Learn(ctx context.Context, c *Conn) (Request, *Failure) {
	s, err := c.Talk(ctx)
	if err == nil {
		_, err = io.WriteString(s, "no")
	}
	return Request{}, &Failure{Err: errors.Join(p.err, err), Answered: true}
}

func (toldOff) Refuse(context.Context, *Conn, *tunnel.DialError) {}
