package websocksemu

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/plugins/websocks/internal/wire"
)

// TestStopAt closes at each step: what was sent before it arrives, and no more.
func TestStopAt(t *testing.T) {
	for step, want := range map[Step]string{
		Accepted:  "",
		Requested: "",
		Upgraded:  "101",
		Framed:    "101" + frame,
		Greeted:   "101" + frame + "\x05\x00",
		Connected: "101" + frame + "\x05\x00" + connected,
	} {
		s := start(t, Options{Faults: Faults{StopAt: step, StopBy: Close}})
		c := dial(t, s)
		_, _ = io.WriteString(c, upgradeRequest())
		k := &talk{c: c, send: frame + greeting + connectEcho}
		if _, err := io.Copy(io.Discard, k); err != nil {
			t.Errorf("step %d: %v, want a clean end", step, err)
		}
		got := k.seen
		if head, rest, ok := strings.Cut(got, "\r\n\r\n"); ok {
			got = strings.Fields(head)[1] + rest
		}
		if got != want {
			t.Errorf("step %d: received %q, want %q", step, got, want)
		}
	}
}

// TestReset breaks off at each step. The error is reported once, by whatever
// the client does next.
func TestReset(t *testing.T) {
	for _, step := range []Step{Accepted, Requested, Upgraded, Framed, Greeted, Connected} {
		s := start(t, Options{Faults: Faults{StopAt: step, StopBy: Reset}})
		err := func() error {
			c, err := net.Dial("tcp", s.Address())
			if err != nil {
				return err
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			if _, err := io.WriteString(c, upgradeRequest()); err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, &talk{c: client{c, t}, send: frame + greeting + connectEcho})
			return err
		}()
		if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			t.Errorf("step %d: %v, want a reset", step, err)
		}
	}
}

// talk reads a connection, and sends something once a head has come.
type talk struct {
	c    client
	seen string
	send string
}

func (k *talk) Read(b []byte) (int, error) {
	n, err := k.c.Read(b)
	k.seen += string(b[:n])
	if k.send != "" && strings.Contains(k.seen, "\r\n\r\n") {
		send := k.send
		k.send = ""
		if _, err := io.WriteString(k.c, send); err != nil {
			return n, err
		}
	}
	return n, err
}

func TestTLS(t *testing.T) {
	s := start(t, Options{TLS: true, Names: []string{"gateway.example"}})
	pem, err := os.ReadFile(s.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	for _, name := range []string{"127.0.0.1", "localhost", "gateway.example"} {
		raw := dial(t, s)
		conn := tls.Client(raw.Conn, &tls.Config{RootCAs: pool, ServerName: name})
		if err := conn.Handshake(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		c := client{conn, t}
		c.send(upgradeRequest())
		c.head()
		c.send(frame + greeting + connectEcho)
		c.expect(frame + "\x05\x00" + connected)
		c.send("secret")
		c.expect("secret")
		if err := raw.Conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		c.expectEOF()
	}
	if e := s.Exchanges()[1]; e.ServerName != "localhost" {
		t.Errorf("server name %q seen, want localhost", e.ServerName)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.CAFile()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the authority's file is still there: %v", err)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, o := range []Options{
		{Address: "0.0.0.0:0"}, {Targets: map[string]string{"db.corp": "127.0.0.1:1"}}, {Targets: map[string]string{"db.corp:1": "127.0.0.1"}},
	} {
		if s, err := Start(o); err == nil {
			_ = s.Close()
			t.Errorf("%+v was taken", o)
		}
	}
}

// What happens is logged, passwords are not.
func TestLog(t *testing.T) {
	var log bytes.Buffer
	s := start(t, Options{
		Users: map[string]string{"alice": "open-sesame"},
		Log:   slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	c := dial(t, s)
	c.send(upgradeRequest())
	c.head()
	now := time.Now()
	c = dial(t, s)
	c.send(upgradeRequest(authorization("alice", "open-sesame", now)))
	c.head()
	c.send(frame + greeting + connectEcho)
	c.expect(frame + "\x05\x00" + connected)
	c.send("x")
	c.expect("x")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	said := log.String()
	for _, want := range []string{"msg=refused", "status=401", "msg=connected", "target=" + EchoTarget} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is missing in %s", want, said)
		}
	}
	if strings.Contains(said, wire.SaltPassword("open-sesame", now)) || strings.Contains(said, "Basic") {
		t.Errorf("logged %s", said)
	}
}

func TestResetAllEndsTunnels(t *testing.T) {
	s := start(t, Options{})
	c := upgraded(t, s)
	c.send(frame + greeting + connectEcho)
	c.expect(frame + "\x05\x00" + connected)
	c.send("x")
	c.expect("x")
	s.ResetAll()
	if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v, want a reset", err)
	}
}

func TestCloseEndsWhatHangs(t *testing.T) {
	s := start(t, Options{Faults: Faults{StopAt: Requested}})
	c := dial(t, s)
	c.send(upgradeRequest())
	done := make(chan error, 1)
	go func() { done <- s.Close() }()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Close does not return")
	}
}

func TestExchangesAreBounded(t *testing.T) {
	s := start(t, Options{})
	for range maxExchanges + 3 {
		c := dial(t, s)
		c.send("\r\n")
		_ = c.Close()
	}
	// The last connection's exchange comes once it was accepted.
	c := upgraded(t, s)
	_ = c.Close()
	if n := len(s.Exchanges()); n > maxExchanges {
		t.Errorf("%d exchanges kept, at most %d", n, maxExchanges)
	}
}

func FuzzJudge(f *testing.F) {
	f.Add(upgradeRequest())
	f.Add(upgradeRequest("Upgrade: h2c", "Authorization: Basic YTpi"))
	f.Add("GET / HTTP/1.1\r\n\r\n")
	users := map[string]string{"alice": "secret"}
	f.Fuzz(func(t *testing.T, s string) {
		head, err := readHead(bufio.NewReader(strings.NewReader(s)))
		if err != nil {
			return
		}
		if !strings.HasPrefix(s, head) {
			t.Fatalf("head %q is not what %q begins with", head, s)
		}
		q, status, _ := check(head, nil, time.Unix(0, 0))
		if status != 101 && status != 400 {
			t.Fatalf("status %d for %q", status, head)
		}
		if a := (&Faults{}).answer(q, status, "", time.Unix(0, 0)); !strings.HasPrefix(a, "HTTP/1.1 ") {
			t.Fatalf("answer %q", a)
		}
		if _, status, _ := check(head, users, time.Unix(0, 0)); status == 101 {
			t.Fatalf("let in without the password: %q", head)
		}
	})
}
