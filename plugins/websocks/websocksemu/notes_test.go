package websocksemu

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/emu"
	"github.com/tunneld/tunneld/plugins/websocks/internal/wire"
)

// The tests of this file are the protocol notes, line by line, as far as they
// speak of servers. The package above has those that speak of clients.

// "The bytes of a conversation."
func TestNotesBytes(t *testing.T) {
	s := start(t, Options{})
	c := dial(t, s)
	c.send(upgradeRequest())
	head := c.head()
	for _, line := range []string{
		"HTTP/1.1 101 Switching Protocols",
		"Upgrade: websocket",
		"Connection: Upgrade",
		"Sec-Websocket-Accept: " + wire.Accept(key),
		"Sec-WebSocket-Protocol: socks5",
	} {
		if !strings.Contains("\r\n"+head, "\r\n"+line+"\r\n") {
			t.Errorf("the answer has no line %q:\n%s", line, head)
		}
	}
	c.send(frame + greeting + connectEcho)
	c.expect(frame + "\x05\x00" + connected)
	c.send("plain bytes")
	c.expect("plain bytes")
}

// "A clock off by one minute still works; by two it gets 401."
func TestNotesPasswordSalt(t *testing.T) {
	now := time.UnixMilli(1_700_000_040_000)
	s := start(t, Options{Users: map[string]string{"alice": "pasSw0rD"}, Now: func() time.Time { return now }})
	for _, tt := range []struct {
		name   string
		header string
		want   string
	}{
		{"the same minute", authorization("alice", "pasSw0rD", now), "101"},
		{"one minute ahead", authorization("alice", "pasSw0rD", now.Add(time.Minute)), "101"},
		{"one minute behind", authorization("alice", "pasSw0rD", now.Add(-time.Minute)), "101"},
		{"two minutes ahead", authorization("alice", "pasSw0rD", now.Add(2*time.Minute)), "401"},
		{"two minutes behind", authorization("alice", "pasSw0rD", now.Add(-2*time.Minute)), "401"},
		{"another password", authorization("alice", "password", now), "401"},
		{"another user", authorization("bob", "pasSw0rD", now), "401"},
		{"no header", "X-None: 1", "401"},
		{"another scheme", "Authorization: Bearer abc", "401"},
		{"no base64", "Authorization: Basic ???", "401"},
		{"the password in plain", "Authorization: Basic YWxpY2U6cGFzU3cwckQ=", "401"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, s)
			c.send(upgradeRequest(tt.header))
			if head := c.head(); !strings.HasPrefix(head, "HTTP/1.1 "+tt.want+" ") {
				t.Errorf("answer %q, want %s", head, tt.want)
			}
		})
	}
}

// "The user name cannot contain ':': the server splits there."
func TestNotesUserNameIsSplitAtTheColon(t *testing.T) {
	now := time.Now()
	s := start(t, Options{Users: map[string]string{"a:b": "secret"}, Now: func() time.Time { return now }})
	c := dial(t, s)
	c.send(upgradeRequest(authorization("a:b", "secret", now)))
	if head := c.head(); !strings.HasPrefix(head, "HTTP/1.1 401 ") {
		t.Errorf("answer %q, want 401", head)
	}
}

// "Nothing before the 101. Bytes sent behind the request are swallowed without
// a word."
func TestNotesEarlyBytesAreSwallowed(t *testing.T) {
	s := start(t, Options{})
	c := dial(t, s)
	c.send(upgradeRequest() + frame + greeting + connectEcho)
	c.head()
	c.expectSilence()
	if e := s.Exchanges()[0]; e.Early != len(frame+greeting+connectEcho) {
		t.Errorf("%d bytes swallowed, want %d", e.Early, len(frame+greeting+connectEcho))
	}
	c.send(frame + greeting + connectEcho)
	c.expect(frame + "\x05\x00" + connected)
}

// "No application data together with the CONNECT: the server answers 05 01 and
// leaves the socket open."
func TestNotesDataWithConnectIsRefused(t *testing.T) {
	c := upgraded(t, start(t, Options{}))
	c.send(frame + greeting + connectEcho + "data")
	c.expect(frame + "\x05\x00" + "\x05\x01\x00\x01\x00\x00\x00\x00\x00\x07")
	c.expectSilence()
}

// "The server answers CONNECT with success at once and dials the target only
// after the first client byte. So a refused target shows as EOF after the first
// byte, …"
func TestNotesRefusedTargetIsAnEOF(t *testing.T) {
	s := start(t, Options{Targets: map[string]string{"closed.corp:1": closedPort(t)}})
	c := upgraded(t, s)
	c.send(frame + greeting + "\x05\x01\x00\x03\x0bclosed.corp\x00\x01")
	c.expect(frame + "\x05\x00" + "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x01")
	c.expectSilence()
	c.send("x")
	c.expectEOF()
}

// "… and a target that speaks first (SSH, SMTP, MySQL) stays silent until the
// client sends."
func TestNotesTargetThatSpeaksFirstStaysSilent(t *testing.T) {
	l := listenTest(t)
	s := start(t, Options{Targets: map[string]string{"echo.internal:7": l.Addr().String()}})
	c := upgraded(t, s)
	c.send(frame + greeting + connectEcho)
	c.expect(frame + "\x05\x00" + connected)
	_ = l.SetDeadline(time.Now().Add(50 * time.Millisecond))
	if conn, err := l.Accept(); err == nil {
		_ = conn.Close()
		t.Fatal("the target was connected to before the client's first byte")
	}
	_ = l.SetDeadline(time.Now().Add(10 * time.Second))
	c.send("\n")
	target, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	if _, err := io.WriteString(target, "SSH-2.0-target\r\n"); err != nil {
		t.Fatal(err)
	}
	c.expect("SSH-2.0-target\r\n")
}

// "Dial after the first byte" is a switch.
func TestDialAtOnce(t *testing.T) {
	s := start(t, Options{
		Targets: map[string]string{"closed.corp:1": closedPort(t)},
		Faults:  Faults{DialAtOnce: true},
	})
	for name, tt := range map[string]struct{ request, want string }{
		"refused":   {"\x05\x01\x00\x03\x0bclosed.corp\x00\x01", "\x05\x05\x00\x01\x00\x00\x00\x00\x00\x01"},
		"elsewhere": {"\x05\x01\x00\x01\x0a\x00\x00\x01\x00\x01", "\x05\x04\x00\x01\x00\x00\x00\x00\x00\x01"},
		"echo":      {connectEcho, connected},
	} {
		t.Run(name, func(t *testing.T) {
			c := upgraded(t, s)
			c.send(frame + greeting + tt.request)
			c.expect(frame + "\x05\x00" + tt.want)
		})
	}
}

// "SOCKS refusals do not close the socket. A bad method is 05 ff; BIND or UDP is
// ten bytes, 05 07 00 01 and six zeros, a bad ATYP the same with 05 08."
func TestNotesRefusalsLeaveTheSocketOpen(t *testing.T) {
	s := start(t, Options{})
	const zeros = "\x00\x01\x00\x00\x00\x00\x00\x00"
	for name, tt := range map[string]struct{ send, want string }{
		"bad method": {"\x05\x01\x02", "\x05\xff"},
		"BIND":       {greeting + "\x05\x02\x00\x01\x7f\x00\x00\x01\x00\x07", "\x05\x00" + "\x05\x07" + zeros},
		"UDP":        {greeting + "\x05\x03\x00\x01\x7f\x00\x00\x01\x00\x07", "\x05\x00" + "\x05\x07" + zeros},
		"bad ATYP":   {greeting + "\x05\x01\x00\x02\x7f\x00\x00\x01\x00\x07", "\x05\x00" + "\x05\x08" + zeros},
	} {
		t.Run(name, func(t *testing.T) {
			c := upgraded(t, s)
			c.send(frame + tt.send)
			c.expect(frame + tt.want)
			c.expectSilence()
		})
	}
}

// "Request headers are read strictly, else 400: Upgrade: websocket exactly,
// Connection: Upgrade alone, no Content-Length, GET. Two protocols need two
// headers. Any path is taken."
func TestNotesStrictRequest(t *testing.T) {
	s := start(t, Options{})
	for _, tt := range []struct{ name, request, want string }{
		{"as it should be", upgradeRequest(), "101"},
		{"any path", strings.Replace(upgradeRequest(), "GET / ", "GET /any/path?x=1 ", 1), "101"},
		{"names in any case", strings.ReplaceAll(upgradeRequest(), "Sec-WebSocket", "sec-websocket"), "101"},
		{"two protocols in two headers", upgradeRequest("Sec-WebSocket-Protocol: other\r\nSec-WebSocket-Protocol: socks5"), "101"},
		{"two protocols in one header", upgradeRequest("Sec-WebSocket-Protocol: other, socks5"), "400"},
		{"another protocol", upgradeRequest("Sec-WebSocket-Protocol: other"), "400"},
		{"no protocol", upgradeRequest("Sec-WebSocket-Protocol:"), "400"},
		{"Upgrade in another case", upgradeRequest("Upgrade: WebSocket"), "400"},
		{"Upgrade with a list", upgradeRequest("Upgrade: websocket, h2c"), "400"},
		{"no Upgrade", upgradeRequest("Upgrade:"), "400"},
		{"Connection with a list", upgradeRequest("Connection: keep-alive, Upgrade"), "400"},
		{"Connection: close", upgradeRequest("Connection: close"), "400"},
		{"no Connection", upgradeRequest("Connection:"), "400"},
		{"Content-Length", upgradeRequest("Content-Length: 0"), "400"},
		{"no key", upgradeRequest("Sec-WebSocket-Key:"), "400"},
		{"a key that is not base64", upgradeRequest("Sec-WebSocket-Key: ?"), "400"},
		{"POST", strings.Replace(upgradeRequest(), "GET", "POST", 1), "400"},
		{"no HTTP", "SSH-2.0-x\r\n\r\n", "400"},
		{"a malformed line", strings.Replace(upgradeRequest(), "Host: gateway", "nonsense", 1), "400"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, s)
			c.send(tt.request)
			if head := c.head(); !strings.HasPrefix(head, "HTTP/1.1 "+tt.want+" ") {
				t.Errorf("answer %q, want %s", head, tt.want)
			}
		})
	}
}

// "Behind a gateway the response's header names come in lower case, and other
// headers come along."
func TestNotesLowerCaseHeaders(t *testing.T) {
	s := start(t, Options{Faults: Faults{LowerCase: true, Headers: []string{"via: 1.1 gateway"}}})
	c := dial(t, s)
	c.send(upgradeRequest())
	head := c.head()
	for _, line := range []string{"upgrade: websocket", "sec-websocket-accept: " + wire.Accept(key), "via: 1.1 gateway"} {
		if !strings.Contains(head, "\r\n"+line+"\r\n") {
			t.Errorf("the answer has no line %q:\n%s", line, head)
		}
	}
}

// "Of the ten bytes check the length, not the content. The frame may be split
// over packets."
func TestNotesTenBytesOfAnyContent(t *testing.T) {
	s := start(t, Options{})
	c := upgraded(t, s)
	for _, b := range "0123456789" {
		c.send(string(b))
	}
	c.expect(frame)
	c.send(greeting)
	c.expect("\x05\x00")
	c.send(connectEcho)
	c.expect(connected)

	s.SetFaults(Faults{Frame: []byte("abcdefghij"), ByteAtATime: true})
	c = upgraded(t, s)
	c.send(frame)
	c.expect("abcdefghij")
}

// "A 401 has an HTML body." The connection stays open for another try.
func TestNotes401HasAnHTMLBody(t *testing.T) {
	now := time.Now()
	s := start(t, Options{Users: map[string]string{"alice": "secret"}, Now: func() time.Time { return now }})
	c := dial(t, s)
	c.send(upgradeRequest())
	if head := c.head(); !strings.Contains(head, "\r\nWWW-Authenticate: Basic\r\n") || !strings.Contains(head, "\r\nContent-Type: text/html\r\n") {
		t.Errorf("answer %q", head)
	}
	c.expect("<html>\r\n<head><title>401 Unauthorized</title></head>\r\n<body><h1>auth failed</h1></body>\r\n</html>\r\n")
	c.send(upgradeRequest(authorization("alice", "secret", now)))
	if head := c.head(); !strings.HasPrefix(head, "HTTP/1.1 101 ") {
		t.Errorf("answer %q to the second try, want 101", head)
	}
}

// "TLS: servers of 2021 speak 1.2 only; a client that offers only h2 in ALPN, or
// only TLS 1.3, hangs with no alert."
func TestNotesTLSOf2021(t *testing.T) {
	s := start(t, Options{TLS: true})
	for name, c := range map[string]*tls.Config{
		"only h2":      {NextProtos: []string{"h2"}},
		"only TLS 1.3": {MinVersion: tls.VersionTLS13},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := dialTLS(t, s, c, 100*time.Millisecond)
			if ne, ok := err.(net.Error); !ok || !ne.Timeout() {
				t.Errorf("handshake: %v, want it to hang", err)
			}
		})
	}
	for name, c := range map[string]*tls.Config{"no ALPN": {}, "http/1.1": {NextProtos: []string{"h2", "http/1.1"}}} {
		t.Run(name, func(t *testing.T) {
			conn, err := dialTLS(t, s, c, 10*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			if v := conn.ConnectionState().Version; v != tls.VersionTLS12 {
				t.Errorf("version 0x%04x, want TLS 1.2", v)
			}
		})
	}
}

// "05 02 is what it answers when it cannot resolve the name, at once, in ten
// bytes. localhost resolves at the server." An address needs no lookup.
func TestNotesNamesThatDoNotResolve(t *testing.T) {
	s := start(t, Options{Targets: map[string]string{"db.corp:5432": closedPort(t), "lost.corp:80": "no..host:80"}})
	const success = "\x05\x00\x00\x01\x00\x00\x00\x00"
	for name, tt := range map[string]struct{ address, want string }{
		"no such name":             {"\x03\x0enosuch.invalid\x00\x50", "\x05\x02\x00\x01\x00\x00\x00\x00\x00\x50"},
		"a target without backend": {"\x03\x09lost.corp\x00\x50", "\x05\x02\x00\x01\x00\x00\x00\x00\x00\x50"},
		"a target":                 {"\x03\x07db.corp\x15\x38", success + "\x15\x38"},
		"a target, another port":   {"\x03\x07db.corp\x00\x50", success + "\x00\x50"},
		"localhost":                {"\x03\x09localhost\x00\x50", success + "\x00\x50"},
		"an address, out of reach": {"\x01\x0a\x00\x00\x01\x00\x50", success + "\x00\x50"},
	} {
		t.Run(name, func(t *testing.T) {
			c := upgraded(t, s)
			c.send(frame + greeting + "\x05\x01\x00" + tt.address)
			c.expect(frame + "\x05\x00" + tt.want)
			c.expectSilence()
		})
	}
}

// "localhost resolves at the server": to its own address. A backend may have a name too.
func TestNotesLocalhost(t *testing.T) {
	l := listenTest(t)
	port := l.Addr().(*net.TCPAddr).Port
	s := start(t, Options{Targets: map[string]string{fmt.Sprint("db.corp:", port): fmt.Sprint("localhost:", port)}})
	for _, name := range []string{"\x09localhost", "\x07db.corp"} {
		c := upgraded(t, s)
		c.send(frame + greeting + "\x05\x01\x00\x03" + name + string([]byte{byte(port >> 8), byte(port)}))
		c.expect(frame + "\x05\x00" + "\x05\x00\x00\x01\x00\x00\x00\x00")
		c.expect(string([]byte{byte(port >> 8), byte(port)}))
		c.send("x")
		target, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		client{target, t}.expect("x")
		_ = target.Close()
	}
}

// "A pooled connection is kept alive with an unsolicited PONG, 8a 00; several
// may arrive together with what follows."
func TestNotesPong(t *testing.T) {
	s := start(t, Options{})
	c := upgraded(t, s)
	c.send("\x8a\x00")
	c.expectSilence()
	c.send("\x8a")
	c.send("\x00\x8a\x00\x8a\x00" + frame + greeting + connectEcho)
	c.expect(frame + "\x05\x00" + connected)
	if e := s.Exchanges()[0]; e.Pongs != 4 {
		t.Errorf("%d PONGs seen, want 4", e.Pongs)
	}
}

// "Half-close passes through as TCP half-close."
func TestNotesHalfClose(t *testing.T) {
	for name, target := range map[string]string{"the client ends first": "", "the target ends first": "x"} {
		t.Run(name, func(t *testing.T) {
			l := listenTest(t)
			s := start(t, Options{Targets: map[string]string{EchoTarget: l.Addr().String()}})
			c := upgraded(t, s)
			c.send(frame + greeting + connectEcho)
			c.expect(frame + "\x05\x00" + connected)
			c.send("question")
			conn, err := l.AcceptTCP()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			up := client{conn, t}
			up.expect("question")
			if target == "" {
				_ = c.Conn.(*net.TCPConn).CloseWrite()
				up.expectEOF()
				up.send("answer")
				_ = conn.CloseWrite()
				c.expect("answer")
				c.expectEOF()
				return
			}
			_ = conn.CloseWrite()
			c.expectEOF()
			c.send("more")
			_ = c.Conn.(*net.TCPConn).CloseWrite()
			up.expect("more")
			up.expectEOF()
		})
	}
}

func listenTest(t *testing.T) *net.TCPListener {
	t.Helper()
	l, err := emu.Listen("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	_ = l.SetDeadline(time.Now().Add(10 * time.Second))
	return l
}

// closedPort returns a loopback address that refuses connections.
func closedPort(t *testing.T) string {
	l := listenTest(t)
	_ = l.Close()
	return l.Addr().String()
}
