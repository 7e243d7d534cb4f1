package websocks

import (
	"crypto/tls"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest"
	"github.com/tunneld/tunneld/plugins/websocks/internal/wire"
	"github.com/tunneld/tunneld/plugins/websocks/websocksemu"
)

// The tests of this file are the protocol notes, line by line, as far as they
// speak of clients. websocksemu has those that speak of servers, and
// interop/websocks those that speak of gateways.

var minute = time.UnixMilli(1_700_000_040_000)

func alice(at time.Time) websocksemu.Options {
	return websocksemu.Options{
		Users: map[string]string{"alice": "pasSw0rD"},
		Now:   func() time.Time { return at },
	}
}

var asAlice = values{"username": "alice", "password": "pasSw0rD"}

// "The bytes of a conversation", and "one packet, after the 101 and not before".
func TestNotesBytes(t *testing.T) {
	s := emulate(t, alice(minute))
	if _, err := dialPlugin(t, withClock(minute), towards(s, asAlice), websocksemu.EchoTarget); err != nil {
		t.Fatal(err)
	}
	e := s.Exchanges()[0]
	want := "GET / HTTP/1.1\r\n" +
		"Upgrade: websocket\r\n" +
		"Connection: Upgrade\r\n" +
		"Host: " + s.Address() + "\r\n" +
		"Sec-WebSocket-Key: KEY\r\n" +
		"Sec-WebSocket-Version: 13\r\n" +
		"Sec-WebSocket-Protocol: socks5\r\n" +
		// echo -n "alice:$salted" | base64 -w0
		"Authorization: Basic CREDENTIALS\r\n" +
		"\r\n"
	want = strings.Replace(want, "CREDENTIALS", (&Config{Username: "alice", Password: sdk.NewSecret("pasSw0rD")}).credentials(minute), 1)
	key := regexp.MustCompile(`Key: [A-Za-z0-9+/]{22}==`) // 16 bytes
	if got := key.ReplaceAllString(e.Request, "Key: KEY"); got != want {
		t.Errorf("request:\n%s\nwant:\n%s", got, want)
	}
	if len(e.Reads) != 2 || string(e.Reads[1]) != echoOpening {
		t.Errorf("reads %q, want the request and %q", e.Reads, echoOpening)
	}
}

// A key is fresh each time.
func TestKeyIsRandom(t *testing.T) {
	s := emulate(t, websocksemu.Options{})
	mustDial(t, towards(s), websocksemu.EchoTarget)
	mustDial(t, towards(s), websocksemu.EchoTarget)
	if e := s.Exchanges(); e[0].Request == e[1].Request {
		t.Errorf("two requests with the same key:\n%s", e[0].Request)
	}
}

// "From there on the connection is plain bytes, both ways, so over ws:// the
// socket itself can be handed over."
func TestNotesSocketIsHandedOver(t *testing.T) {
	s := emulate(t, websocksemu.Options{})
	c := mustDial(t, towards(s), websocksemu.EchoTarget)
	if c.Path != sdktest.PathDirect || c.Conn.RemoteAddr().String() != s.Address() {
		t.Errorf("path %s to %s, want direct to %s", c.Path, c.Conn.RemoteAddr(), s.Address())
	}
	send(t, c, "plain bytes")
	expect(t, c, "plain bytes")

	secure := emulate(t, websocksemu.Options{TLS: true})
	c = mustDial(t, towards(secure), websocksemu.EchoTarget)
	if c.Path != sdktest.PathRelay || c.Remote != secure.Address() {
		t.Errorf("path %s to %s, want relay to %s", c.Path, c.Remote, secure.Address())
	}
	send(t, c, "plain bytes")
	expect(t, c, "plain bytes")
}

// "A clock off by one minute still works; by two it gets 401. A 401 with a good
// password therefore deserves a hint about the clock."
func TestNotesPasswordSaltAndClock(t *testing.T) {
	s := emulate(t, alice(minute))
	for off, ok := range map[time.Duration]bool{
		0: true, time.Minute: true, -time.Minute: true, 2 * time.Minute: false, -2 * time.Minute: false,
	} {
		_, err := dialPlugin(t, withClock(minute.Add(off)), towards(s, asAlice), websocksemu.EchoTarget)
		if ok {
			if err != nil {
				t.Errorf("clock off by %s: %v", off, err)
			}
			continue
		}
		e := dialError(t, err)
		if e.Stage != sdk.StageHandshake || e.Reason != sdk.ReasonUnauthenticated || e.Retryable {
			t.Errorf("clock off by %s: %s, %s, retryable %t", off, e.Stage, e.Reason, e.Retryable)
		}
		has(t, "hint", e.Hint, "username and password", "this machine's clock", "2m0s", map[bool]string{true: "ahead", false: "behind"}[off > 0])
	}
	_, err := dialPlugin(t, withClock(minute), towards(s, asAlice, values{"password": "wrong"}), websocksemu.EchoTarget)
	has(t, "hint", dialError(t, err).Hint, "agrees with the server's")
	_, err = dialPlugin(t, withClock(minute), towards(s), websocksemu.EchoTarget)
	has(t, "hint", dialError(t, err).Hint, "set username and password")
}

// "The user name cannot contain ':': refuse it when the configuration is read.
// The password goes out hashed, so anything may stand in it."
func TestNotesUserNameAndPassword(t *testing.T) {
	const password = "a:b\x00 ü\"\\'"
	s := emulate(t, websocksemu.Options{Users: map[string]string{"alice": password}})
	mustDial(t, towards(s, values{"username": "alice", "password": password}), websocksemu.EchoTarget)

	ds := diagnose(t, values{"url": "ws://h", "username": "a:b", "password": "p"})
	if len(ds) != 1 || ds[0].Warning || !slices.Equal(ds[0].Path, []string{"username"}) {
		t.Errorf("diagnostics %+v, want an error at username", ds)
	}
}

// "Nothing before the 101. Bytes sent behind the request are swallowed without a
// word."
func TestNotesNothingBeforeThe101(t *testing.T) {
	url := script(t, func(c net.Conn) {
		var head strings.Builder
		for !strings.HasSuffix(head.String(), "\r\n\r\n") {
			if _, err := io.CopyN(&head, c, 1); err != nil {
				t.Errorf("read request: %v", err)
				return
			}
		}
		expectSilence(t, c)
		_, _ = io.WriteString(c, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
	})
	refusedDial(t, values{"url": url})
}

// "No application data together with the CONNECT: the server answers 05 01."
func TestNotesNoDataTogetherWithConnect(t *testing.T) {
	s := emulate(t, websocksemu.Options{})
	c := mustDial(t, towards(s), websocksemu.EchoTarget)
	send(t, c, "data that is there at once")
	expect(t, c, "data that is there at once")
	if e := s.Exchanges()[0]; string(e.Reads[1]) != echoOpening {
		t.Errorf("sent with CONNECT: %q", e.Reads[1])
	}
}

// "The server answers CONNECT with success at once and dials the target only
// after the first client byte. So a refused target shows as EOF after the first
// byte, …"
func TestNotesRefusedTargetIsAnEOF(t *testing.T) {
	closed := listen(t)
	_ = closed.Close()
	for _, secure := range []bool{false, true} {
		s := emulate(t, websocksemu.Options{TLS: secure, Targets: map[string]string{"db.corp:1": closed.Addr().String()}})
		c := mustDial(t, towards(s), "db.corp:1")
		expectSilence(t, c)
		send(t, c, "x")
		expectEOF(t, c)
	}
}

// "… and a target that speaks first (SSH, SMTP, MySQL) stays silent until the
// client sends."
func TestNotesTargetThatSpeaksFirstStaysSilent(t *testing.T) {
	l := listen(t)
	s := emulate(t, websocksemu.Options{Targets: map[string]string{"ssh.corp:22": l.Addr().String()}})
	c := mustDial(t, towards(s), "ssh.corp:22")
	expectSilence(t, c)
	send(t, c, "\n")
	target, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	send(t, target, "SSH-2.0-target\r\n")
	expect(t, c, "SSH-2.0-target\r\n")
}

// "05 02 is what it answers when it cannot resolve the name, at once, in ten
// bytes. It is no rule: reason not_found. localhost resolves at the server."
func TestNotesNameThatDoesNotResolve(t *testing.T) {
	l := listen(t)
	for _, secure := range []bool{false, true} {
		s := emulate(t, websocksemu.Options{TLS: secure})
		_, err := dial(t, towards(s), "nosuch.invalid:80")
		e := dialError(t, err)
		if e.Stage != sdk.StageRequest || e.Reason != sdk.ReasonNotFound || !e.Retryable {
			t.Errorf("%s, %s, retryable %t", e.Stage, e.Reason, e.Retryable)
		}
		has(t, "message", e.Message, "could not resolve")
		has(t, "hint", e.Hint, "check the name")

		_, port, _ := net.SplitHostPort(l.Addr().String())
		c := mustDial(t, towards(s), "localhost:"+port)
		send(t, c, "x")
		target, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		expect(t, target, "x")
		_ = target.Close()
	}
}

// "SOCKS refusals do not close the socket: close it yourself. A bad method is 05
// ff; BIND or UDP is ten bytes, 05 07 00 01 and six zeros, a bad ATYP the same
// with 05 08."
func TestNotesClientClosesAfterARefusal(t *testing.T) {
	for name, tt := range map[string]struct{ refusal, message string }{
		"bad method": {"\x05\xff", "0xff"},
		"command":    {"\x05\x00\x05\x07\x00\x01\x00\x00\x00\x00\x00\x00", "command not supported"},
		"bad ATYP":   {"\x05\x00\x05\x08\x00\x01\x00\x00\x00\x00\x00\x00", "address type not supported"},
		"two bytes":  {"\x05\x00\x05\x08", "address type not supported"},
	} {
		t.Run(name, func(t *testing.T) {
			closed := make(chan error, 1)
			url := script(t, func(c net.Conn) {
				r := upgrade(t, c)
				_, err := io.CopyN(io.Discard, r, int64(len(echoOpening)))
				if err == nil {
					_, err = io.WriteString(c, frame+tt.refusal)
				}
				if err == nil {
					_, err = r.ReadByte()
				}
				closed <- err
			})
			// The refusal is told by its second byte, although no more comes.
			e := refusedDial(t, values{"url": url, "timeouts": values{"handshake": "1h"}})
			has(t, "message", e.Message, tt.message)
			if err := <-closed; err != io.EOF {
				t.Errorf("the server reads %v, want the end", err)
			}
		})
	}
}

// "Request headers are read strictly, else 400. Any path is taken."
func TestNotesStrictServer(t *testing.T) {
	s := emulate(t, websocksemu.Options{})
	v := towards(s, values{
		"url":     s.URL() + "/any/path%20of?q=1",
		"headers": values{"host": "paas.example", "X-Route": "a, b", "User-Agent": "tunneld"},
	})
	mustDial(t, v, websocksemu.EchoTarget)
	e := s.Exchanges()[0]
	has(t, "request", e.Request, "GET /any/path%20of?q=1 HTTP/1.1\r\n", "\r\nHost: paas.example\r\n", "\r\nX-Route: a, b\r\n", "\r\nUser-Agent: tunneld\r\n")
	if strings.Contains(e.Request, s.Address()) {
		t.Errorf("the Host header was not replaced:\n%s", e.Request)
	}

	s.SetFaults(websocksemu.Faults{Status: 400})
	has(t, "hint", refusedDial(t, towards(s)).Hint, "Upgrade and Connection")
}

// "Behind a gateway the response's header names come in lower case, and other
// headers come along: compare without case."
func TestNotesLowerCaseHeaders(t *testing.T) {
	s := emulate(t, websocksemu.Options{Faults: websocksemu.Faults{
		LowerCase:     true,
		Headers:       []string{"via: 1.1 gateway", "x-vcap-request-id: 1", "strict-transport-security: max-age=1"},
		Replace:       map[string]string{"Upgrade": "WebSocket", "Connection": "keep-alive, upgrade"},
		Informational: 2,
	}})
	c := mustDial(t, towards(s), websocksemu.EchoTarget)
	send(t, c, "x")
	expect(t, c, "x")
}

// "Of the ten bytes check the length, not the content: some servers fill the
// length with other values. The frame may be split over packets."
func TestNotesTenBytesOfAnyContent(t *testing.T) {
	for _, content := range []string{"\x82\x7f\x00\x00\x00\x00\x00\x00\x00\x03", "0123456789", "\x05\x00\x05\x00\x05\x00\x05\x00\x05\x00"} {
		for _, split := range []bool{false, true} {
			s := emulate(t, websocksemu.Options{Faults: websocksemu.Faults{Frame: []byte(content), ByteAtATime: split}})
			c := mustDial(t, towards(s), websocksemu.EchoTarget)
			send(t, c, "x")
			expect(t, c, "x")
		}
	}
}

// "A 401 has an HTML body."
func TestNotes401HasAnHTMLBody(t *testing.T) {
	s := emulate(t, alice(minute))
	e := refusedDial(t, towards(s))
	if want := `the server answered 401 Unauthorized: "401 Unauthorized: auth failed"`; e.Message != want {
		t.Errorf("message %q, want %q", e.Message, want)
	}
}

// "TLS: servers of 2021 speak 1.2 only; a client that offers only h2 in ALPN, or
// only TLS 1.3, hangs with no alert. Offer http/1.1 or no ALPN, allow 1.2, and
// bound the handshake."
func TestNotesTLSOf2021(t *testing.T) {
	s := emulate(t, websocksemu.Options{TLS: true})
	c := mustDial(t, towards(s), websocksemu.EchoTarget)
	send(t, c, "x")
	expect(t, c, "x")
	if e := s.Exchanges()[0]; e.TLSVersion != tls.VersionTLS12 || !slices.Equal(e.Protocols, []string{"http/1.1"}) {
		t.Errorf("TLS 0x%04x with ALPN %q", e.TLSVersion, e.Protocols)
	}

	e := refusedDial(t, towards(s, values{
		"tls":      values{"ca_file": s.CAFile(), "min_version": "1.3"},
		"timeouts": values{"handshake": "100ms"},
	}))
	if e.Stage != sdk.StageTLS || e.Reason != sdk.ReasonTimeout {
		t.Errorf("%s, %s, want a timeout of the TLS handshake", e.Stage, e.Reason)
	}
	has(t, "hint", e.Hint, "min_version")
}

// "A pooled connection (upgraded, the ten bytes not yet sent) is kept alive with
// an unsolicited PONG." This client keeps no pool, so it sends none.
func TestNotesNoPool(t *testing.T) {
	s := emulate(t, websocksemu.Options{})
	mustDial(t, towards(s), websocksemu.EchoTarget)
	if e := s.Exchanges(); len(e) != 1 || e[0].Pongs != 0 {
		t.Errorf("%d connections, %d PONGs on the first", len(e), e[0].Pongs)
	}
	if got := wire.Pong(); string(got[:]) != "\x8a\x00" {
		t.Errorf("PONG is %q", got)
	}
}

// "Half-close passes through as TCP half-close", and over TLS "with a TCP FIN and
// no alert". ends_test.go has more.
func TestNotesHalfClose(t *testing.T) {
	for name, secure := range map[string]bool{"ws": false, "wss": true} {
		t.Run(name+", the client first", func(t *testing.T) {
			c, target := pair(t, secure)
			send(t, c, "question")
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			up := target()
			expect(t, up, "question")
			expectEOF(t, up)
			send(t, up, "answer")
			_ = up.CloseWrite()
			expect(t, c, "answer")
			expectEOF(t, c)
			if err := c.AwaitEnd(within(t)); err != nil {
				t.Errorf("end: %v", err)
			}
		})
		t.Run(name+", the target first", func(t *testing.T) {
			c, target := pair(t, secure)
			send(t, c, "x")
			up := target()
			_ = up.CloseWrite()
			expectEOF(t, c)
			send(t, c, "more")
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			expect(t, up, "xmore")
			expectEOF(t, up)
			if err := c.AwaitEnd(within(t)); err != nil {
				t.Errorf("end: %v", err)
			}
		})
	}
}
