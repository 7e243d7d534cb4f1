package listen

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/bare"
	"github.com/tunneld/tunneld/internal/socks5"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// patience bounds what ends by itself; brief is the time of handshakes that are
// meant to run out of it.
const (
	patience = 20 * time.Second
	brief    = 60 * time.Millisecond
)

// outcome is what Handshake returned.
type outcome struct {
	client *Client
	err    error
}

// speaking is the protocol of a kind.
func speaking(t *testing.T, kind string) Protocol {
	k, ok := FindKind(kind)
	if !ok {
		t.Fatalf("no kind %q", kind)
	}
	return k.New(Settings{Target: tunnel.Target{Host: "db", Port: 1}})
}

// begin connects a client to a listener of a kind, whose handshake runs.
func begin(t *testing.T, kind string, timeout time.Duration) (*net.TCPConn, <-chan outcome) {
	t.Helper()
	return beginWith(t, speaking(t, kind), HandshakeOptions{Timeout: timeout})
}

func beginWith(t *testing.T, p Protocol, options HandshakeOptions) (*net.TCPConn, <-chan outcome) {
	t.Helper()
	return beginIn(t.Context(), t, p, options)
}

// beginIn is beginWith for a handshake that ends with ctx.
func beginIn(ctx context.Context, t *testing.T, p Protocol, options HandshakeOptions) (*net.TCPConn, <-chan outcome) {
	t.Helper()
	s, err := Bind(context.Background(), "127.0.0.1:0", Options{})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan outcome, 1)
	s.Serve(quiet(), func(c *bare.Socket, _ netip.AddrPort) {
		go func() {
			client, err := Handshake(ctx, p, NewConn(c), options)
			done <- outcome{client, err}
		}()
	}, func() {})
	c := dial(t, s.Addr())
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c, done
}

// await returns the end of a handshake.
func await(t *testing.T, done <-chan outcome) outcome {
	t.Helper()
	select {
	case o := <-done:
		return o
	case <-time.After(patience):
		t.Fatal("the handshake does not end")
		return outcome{}
	}
}

// how a client sends what it has to say.
type manner int

const (
	inOnePiece manner = iota
	bytewise
	thenEOF // and shuts its side down
)

var manners = map[string]manner{"in one piece": inOnePiece, "a byte at a time": bytewise, "then end of file": thenEOF}

func send(t *testing.T, c *net.TCPConn, b string, how manner) {
	t.Helper()
	piece := len(b)
	if how == bytewise {
		piece = 1 // TCP_NODELAY is Go's default: a packet each
	}
	for len(b) > 0 {
		n := min(piece, len(b))
		if _, err := c.Write([]byte(b[:n])); err != nil {
			t.Fatal(err)
		}
		b = b[n:]
	}
	if how == thenEOF {
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
	}
}

// handshakeCase is a handshake that ends with an answer, or with a target.
type handshakeCase struct {
	send string
	// err is a part of the error; empty: the client's target is found.
	err string
	// hint is a part of what to check after that.
	hint string
	// answer is all that the client reads until the end of file; for http its
	// first line. Where a target is found: what it reads before it is accepted.
	answer string
	target string
	ahead  string
	// plain says that the client turns out to send requests.
	plain bool
	// login is the listener's, and user who the client then is.
	login Login
	user  string
}

func (h handshakeCase) run(t *testing.T, kind string, how manner) {
	c, done := beginWith(t, speaking(t, kind), HandshakeOptions{Timeout: patience, Login: h.login})
	send(t, c, h.send, how)
	if h.err != "" {
		got, err := io.ReadAll(c)
		checkAnswer(t, got, err, h.answer)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if o := await(t, done); o.err == nil || !strings.Contains(o.err.Error(), h.err) {
			t.Fatalf("error %v, want %q", o.err, h.err)
		} else if hint := Hint(o.err); !strings.Contains(hint, h.hint) {
			t.Fatalf("hint %q, want %q", hint, h.hint)
		}
		return
	}
	o := await(t, done)
	if o.err != nil {
		t.Fatal(o.err)
	}
	if o.client.Plain != h.plain {
		t.Fatalf("plain: %v, want %v", o.client.Plain, h.plain)
	}
	if h.plain {
		if got := string(o.client.Ahead); got == "" || !strings.HasPrefix(strings.TrimLeft(h.send, "\r\n"), got) {
			t.Errorf("ahead %q", got)
		}
		o.client.Reset()
		return
	}
	if got, denied := o.client.Target, o.client.Denied; got.String() != h.target || denied != nil {
		t.Errorf("target %q, %v; want %q", got, denied, h.target)
	}
	if o.client.User != h.user {
		t.Errorf("user %q, want %q", o.client.User, h.user)
	}
	// Not a byte of the answer before the upstream is there.
	read := make([]byte, len(h.answer))
	if _, err := io.ReadFull(c, read); err != nil || string(read) != h.answer {
		t.Fatalf("read % x, %v; want % x", read, err, h.answer)
	}
	end, err := o.client.Ready(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer end.Stream.Close()
	ready := httpReplies.ready
	switch h.send[0] {
	case socks5.Version:
		ready = socksReplies.ready
	case socks4Version:
		ready = socks4Replies.ready
	}
	read = make([]byte, len(ready))
	if _, err := io.ReadFull(c, read); err != nil || !bytes.Equal(read, ready) {
		t.Fatalf("read %q, %v; want %q", read, err, ready)
	}
	if err := end.Stream.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	rest := make([]byte, len(h.ahead)-len(end.ReadAhead))
	if _, err := io.ReadFull(end.Stream, rest); err != nil || string(end.ReadAhead)+string(rest) != h.ahead {
		t.Fatalf("ahead %q, then %q, %v; want %q", end.ReadAhead, rest, err, h.ahead)
	}
	if how == thenEOF {
		if n, err := end.Stream.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			t.Fatalf("read %d, %v; want the end of file", n, err)
		}
	}
}

func checkAnswer(t *testing.T, got []byte, err error, want string) {
	t.Helper()
	if err != nil {
		t.Fatalf("read %q, %v; the answer must come before the end", got, err)
	}
	if strings.HasPrefix(want, "HTTP/") {
		line, _, _ := strings.Cut(string(got), "\r\n")
		if line != want {
			t.Fatalf("answer %q, want %q", got, want)
		}
		return
	}
	if string(got) != want {
		t.Fatalf("answer % x (%q), want % x", got, got, want)
	}
}

// TestSilence: a client that says nothing, or not all, is told in its protocol
// once its time is over.
func TestSilence(t *testing.T) {
	tests := map[string]struct{ kind, send, answer string }{
		"socks5, nothing":            {KindSOCKS5, "", "\x05\xff"},
		"socks5, half a greeting":    {KindSOCKS5, "\x05\x02\x00", "\x05\xff"},
		"socks5, no request":         {KindSOCKS5, "\x05\x01\x00", "\x05\x00" + generalFailure},
		"socks5, half a request":     {KindSOCKS5, "\x05\x01\x00\x05\x01\x00\x03\xffname", "\x05\x00" + generalFailure},
		"http, nothing":              {KindHTTP, "", "HTTP/1.1 408 Request Timeout"},
		"http, half a line":          {KindHTTP, "CONNECT db", "HTTP/1.1 408 Request Timeout"},
		"http, headers without end":  {KindHTTP, "CONNECT db:1 HTTP/1.1\r\nHost: db:1\r\n", "HTTP/1.1 408 Request Timeout"},
		"http, half a header's line": {KindHTTP, "CONNECT db:1 HTTP/1.1\r\nHost: d", "HTTP/1.1 408 Request Timeout"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, done := begin(t, tt.kind, brief)
			send(t, c, tt.send, inOnePiece)
			got, err := io.ReadAll(c)
			checkAnswer(t, got, err, tt.answer)
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			if o := await(t, done); o.err == nil || !strings.Contains(Hint(o.err), "timeouts.handshake") {
				t.Fatalf("error %v", o.err)
			}
		})
	}
}

// TestTimeIsForTheWhole: bytes that trickle in do not buy time.
func TestTimeIsForTheWhole(t *testing.T) {
	for kind, first := range map[string]string{KindSOCKS5: "\x05\xff", KindHTTP: "CONNECT db:1 HTTP/1.1\r\nX: ", KindSNI: helloFor(t, "db")[:100]} {
		t.Run(kind, func(t *testing.T) {
			c, done := begin(t, kind, brief)
			send(t, c, first, inOnePiece)
			tick := time.NewTicker(brief / 20)
			defer tick.Stop()
			for {
				select {
				case o := <-done:
					if o.err == nil || !strings.Contains(o.err.Error(), "timeout") {
						t.Fatalf("error %v", o.err)
					}
					return
				case <-tick.C:
					// Fails once the listener has given the client up.
					_, _ = c.Write([]byte{'x'})
				}
			}
		})
	}
}

// TestGoneClients: a client that has left is not answered, and a probe is told from
// a client that broke off.
func TestGoneClients(t *testing.T) {
	for _, kind := range []string{KindSOCKS5, KindHTTP, KindSNI} {
		t.Run(kind+", closed without a byte", func(t *testing.T) {
			c, done := begin(t, kind, patience)
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if o := await(t, done); !errors.Is(o.err, ErrNothing) {
				t.Fatalf("error %v", o.err)
			}
			if b, err := io.ReadAll(c); len(b) != 0 || err != nil {
				t.Fatalf("read %q, %v", b, err)
			}
		})
		t.Run(kind+", reset without a byte", func(t *testing.T) {
			c, done := begin(t, kind, patience)
			bare.Reset(c)
			if o := await(t, done); !errors.Is(o.err, ErrNothing) {
				t.Fatalf("error %v", o.err)
			}
		})
	}
	t.Run("reset behind its first words", func(t *testing.T) {
		c, done := begin(t, KindSOCKS5, patience)
		send(t, c, "\x05\x01\x00", inOnePiece)
		if _, err := io.ReadFull(c, make([]byte, 2)); err != nil {
			t.Fatal(err)
		}
		bare.Reset(c)
		if o := await(t, done); o.err == nil || errors.Is(o.err, ErrNothing) {
			t.Fatalf("error %v", o.err)
		}
	})
}

// TestRefusalArrives: a client that has sent a lot already reads why it is
// refused, and not a reset.
func TestRefusalArrives(t *testing.T) {
	begins := map[string]string{
		KindSOCKS5: "\x05\x01\x00\x05\x01\x00\x03\x02db\x00\x01",
		KindHTTP:   "CONNECT db:1 HTTP/1.1\r\n\r\n",
		KindSNI:    helloFor(t, "db"),
	}
	for kind, first := range begins {
		for name, beyond := range map[string]int{"nothing more": 0, "a little more": 100, "megabytes more": 4 << 20} {
			t.Run(kind+", "+name, func(t *testing.T) {
				c, done := begin(t, kind, patience)
				send(t, c, first, inOnePiece)
				o := await(t, done)
				if o.err != nil {
					t.Fatal(o.err)
				}
				refused := make(chan struct{})
				go func() {
					defer close(refused)
					o.client.Refuse(t.Context(), &tunnel.DialError{Stage: pluginv1.Stage_STAGE_REQUEST, Reason: pluginv1.Reason_REASON_DENIED, Message: "no"})
				}()
				// The client reads only after all of it is written.
				send(t, c, strings.Repeat("x", beyond), inOnePiece)
				got, err := io.ReadAll(c)
				checkAnswer(t, got, err, map[string]string{
					KindSOCKS5: "\x05\x00" + "\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00",
					KindHTTP:   "HTTP/1.1 403 Forbidden",
					KindSNI:    string(tlsAlert(alertAccessDenied)),
				}[kind])
				if err := c.Close(); err != nil {
					t.Fatal(err)
				}
				<-refused
			})
		}
	}
}

// TestAnswerIsNotWaitedFor: a client that does not close after its refusal is
// left.
func TestAnswerIsNotWaitedFor(t *testing.T) {
	c, done := begin(t, KindSOCKS5, patience)
	send(t, c, "\x05\x01\x02", inOnePiece)
	if o := await(t, done); o.err == nil {
		t.Fatal("no error")
	}
	if b, err := io.ReadAll(c); err != nil || string(b) != "\x05\xff" {
		t.Fatalf("read %q, %v", b, err)
	}
}

// BenchmarkHandshake is what a handshake costs besides its system calls.
func BenchmarkHandshake(b *testing.B) {
	for kind, request := range map[string]string{
		KindSOCKS5: "\x05\x01\x00\x05\x01\x00\x03\x0eorders-db.corp\x15\x38",
		KindHTTP:   "CONNECT orders-db.corp:5432 HTTP/1.1\r\nHost: orders-db.corp:5432\r\nUser-Agent: curl/8\r\nProxy-Connection: Keep-Alive\r\n\r\n",
	} {
		b.Run(kind, func(b *testing.B) {
			b.ReportAllocs()
			read := asks(headPiece, nil, readHTTPOnly)
			if kind == KindSOCKS5 {
				read = asks(socksBuffer, nil, readSOCKS5)
			}
			for b.Loop() {
				if _, fail := read(&written{Reader: strings.NewReader(request)}); fail != nil {
					b.Fatal(fail.Err)
				}
			}
		})
	}
}
