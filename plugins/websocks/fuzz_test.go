package websocks

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/websocks/internal/wire"
)

// canned is a connection whose server says the same whatever it is asked; KEY
// in it becomes what the client's key is to be answered with.
type canned struct {
	net.Conn // nil: other methods are not called
	answer   []byte
}

func (c *canned) Write(b []byte) (int, error) {
	if _, after, ok := bytes.Cut(b, []byte("Sec-WebSocket-Key: ")); ok {
		key, _, _ := bytes.Cut(after, []byte("\r\n"))
		c.answer = bytes.ReplaceAll(c.answer, []byte("KEY"), []byte(wire.Accept(string(key))))
	}
	return len(b), nil
}

func (c *canned) Read(b []byte) (int, error) {
	n := copy(b, c.answer)
	c.answer = c.answer[n:]
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (c *canned) SetDeadline(time.Time) error     { return nil }
func (c *canned) SetReadDeadline(time.Time) error { return nil }
func (c *canned) LocalAddr() net.Addr             { return &net.TCPAddr{} }
func (c *canned) RemoteAddr() net.Addr            { return &net.TCPAddr{} }

const goodAnswer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-Websocket-Accept: KEY\r\nSec-WebSocket-Protocol: socks5\r\n\r\n" + frame + "\x05\x00" + connected

// FuzzHandshake feeds a client with any server: it ends with a tunnel or with a
// typed error whose text is bounded and printable.
func FuzzHandshake(f *testing.F) {
	f.Add([]byte(goodAnswer))
	f.Add([]byte(goodAnswer + "read ahead"))
	f.Add([]byte("HTTP/1.1 401 Unauthorized\r\nContent-Length: 3\r\n\r\n<a>"))
	f.Add([]byte("HTTP/1.1 103 Early Hints\r\n\r\n" + goodAnswer))
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		c := &Config{URL: "ws://h", Username: "alice", Password: sdk.NewSecret("secret"), Timeouts: sdk.Timeouts{Handshake: time.Minute}}
		far, err := parseURL(c.URL)
		if err != nil {
			t.Fatal(err)
		}
		opening, err := openingFor(sdk.Target{Host: "h", Port: 1})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.handshake(context.Background(), new(sdk.Request), far, &canned{answer: answer}, opening)
		if err == nil {
			return
		}
		var e *sdk.DialError
		if !errors.As(err, &e) {
			t.Fatalf("%T: %v", err, err)
		}
		if e.Reason == 0 || e.Stage == 0 || e.Hint == "" {
			t.Fatalf("%+v", e)
		}
		if len(e.Message) > 2000 || !utf8.ValidString(e.Message) || strings.ContainsAny(e.Message, "\r\n\x00\x1b") {
			t.Fatalf("message %q", e.Message)
		}
	})
}

// FuzzParseURL checks that no URL can write a second line into the request.
func FuzzParseURL(f *testing.F) {
	for _, s := range []string{"ws://h", "wss://u:p@h:1/x?y#z", "ws://[::1%25eth0]:80/ä", "ws://h/%0d%0a?\r\n", "ws://]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		far, err := parseURL(s)
		if err != nil {
			return
		}
		if _, _, err := net.SplitHostPort(far.address); err != nil {
			t.Fatalf("address %q: %v", far.address, err)
		}
		head := string(new(Config).upgradeRequest(far, "key"))
		if n := strings.Count(head, "\r\n"); n != 8 || strings.Count(head, "\n") != n || !strings.HasPrefix(far.path, "/") {
			t.Fatalf("request:\n%q", head)
		}
	})
}

func FuzzExcerpt(f *testing.F) {
	for _, s := range []string{"", "<html><h1>a &amp; b</h1>", "<", "a<b", "\x00\xff\u2028", strings.Repeat("ä", 500)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := new(Config).excerpt(s)
		if n := utf8.RuneCountInString(got); n > maxExcerpt+1 || !utf8.ValidString(got) || strings.ContainsAny(got, "\r\n\t\x00\x1b") {
			t.Fatalf("excerpt(%q) = %q", s, got)
		}
	})
}
