package listen

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	"github.com/tunneld/tunneld/internal/nettest"
)

// serverName is the content of the extension (RFC 6066, section 3).
func serverName(name string) string {
	b := binary.BigEndian.AppendUint16(nil, uint16(3+len(name)))
	return string(binary.BigEndian.AppendUint16(append(b, 0), uint16(len(name)))) + name
}

// helloFor is a ClientHello that asks for a name, whatever its bytes; empty: for none.
func helloFor(t testing.TB, name string) string {
	t.Helper()
	hello := nettest.ClientHello(t, &tls.Config{InsecureSkipVerify: true})
	if name == "" {
		return hello
	}
	return withExtension(hello, 0, serverName(name))
}

// inRecords has the content of a ClientHello in records of some bytes.
func inRecords(hello string, size int) (split string) {
	for content := hello[5:]; len(content) > 0; {
		part := content[:min(size, len(content))]
		content = content[len(part):]
		split += hello[:3] + string([]byte{byte(len(part) >> 8), byte(len(part))}) + part
	}
	return split
}

func sniWith(t *testing.T, port int64) Protocol {
	t.Helper()
	kind, ok := FindKind(KindSNI)
	if !ok {
		t.Fatal("there is no kind sni")
	}
	return kind.New(Settings{Values: map[string]any{"port": port}})
}

// TestSNI: the target is what the ClientHello names, in whatever pieces it comes, and gets
// every byte of the client's.
func TestSNI(t *testing.T) {
	large := nettest.ClientHello(t, &tls.Config{ServerName: "db.example", NextProtos: strings.Fields(strings.Repeat(strings.Repeat("p", 200)+" ", 70))})
	usual := nettest.ClientHello(t, &tls.Config{ServerName: "db.example"})
	if len(usual) < 1500 || len(large) < 15<<10 {
		t.Fatalf("messages of %d and %d bytes: neither a key of ML-KEM, nor a large one", len(usual), len(large))
	}
	const early = "\x17\x03\x03\x00\x05early"
	for name, tt := range map[string]struct {
		send   string
		target string
		pieces int // of so many bytes; 0: in one
	}{
		"as clients send it":        {send: usual, target: "db.example:443"},
		"TLS 1.2":                   {send: nettest.ClientHello(t, &tls.Config{ServerName: "db.example", MaxVersion: tls.VersionTLS12}), target: "db.example:443"},
		"by three bytes":            {send: usual, target: "db.example:443", pieces: 3},
		"in two packets":            {send: usual, target: "db.example:443", pieces: 1400},
		"in many records":           {send: inRecords(usual, 100), target: "db.example:443"},
		"in many pieces of records": {send: inRecords(usual, 50), target: "db.example:443", pieces: 7},
		"a large one":               {send: large, target: "db.example:443", pieces: 1400},
		"with more behind it":       {send: usual + early, target: "db.example:443"},
		"with more, by three bytes": {send: usual + early, target: "db.example:443", pieces: 3},
		"with much more behind it":  {send: usual + strings.Repeat(early, 5000), target: "db.example:443"},
		"upper case":                {send: helloFor(t, "DB.Example"), target: "DB.Example:443"},
		"a dot at the end":          {send: helloFor(t, "db.example."), target: "db.example.:443"},
		"in xn-- form":              {send: helloFor(t, "xn--bcher-kva.example"), target: "xn--bcher-kva.example:443"},
		"beyond ASCII":              {send: helloFor(t, "bücher.example"), target: "xn--bcher-kva.example:443"},
		"one label":                 {send: helloFor(t, "localhost"), target: "localhost:443"},
	} {
		t.Run(name, func(t *testing.T) {
			c, done := beginWith(t, sniWith(t, 443), HandshakeOptions{Timeout: patience})
			sent := make(chan error, 1)
			go func() {
				for rest := tt.send; rest != ""; {
					n := len(rest)
					if tt.pieces > 0 {
						n = min(n, tt.pieces)
					}
					if _, err := io.WriteString(c, rest[:n]); err != nil {
						sent <- err
						return
					}
					rest = rest[n:]
				}
				sent <- c.CloseWrite()
			}()
			o := await(t, done)
			if o.err != nil {
				t.Fatal(o.err)
			}
			if o.client.Target.String() != tt.target || o.client.Denied != nil {
				t.Errorf("target %q, %v; want %q", o.client.Target, o.client.Denied, tt.target)
			}
			end, err := o.client.Ready(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			rest, err := io.ReadAll(end.Stream)
			if err := errors.Join(err, <-sent); err != nil || string(end.ReadAhead)+string(rest) != tt.send {
				t.Errorf("%d bytes go ahead and %d follow, of %d, %v", len(end.ReadAhead), len(rest), len(tt.send), err)
			}
			// Nothing but the target's bytes comes back.
			if _, err := io.WriteString(end.Stream, "back"); err != nil {
				t.Fatal(err)
			}
			_ = end.Stream.Close()
			if got, err := io.ReadAll(c); err != nil || string(got) != "back" {
				t.Errorf("the client reads %q, %v", got, err)
			}
		})
	}
}

// TestSNIPort is the one that the client has connected to, unless the listener says another.
func TestSNIPort(t *testing.T) {
	c, done := begin(t, KindSNI, patience)
	send(t, c, helloFor(t, "db"), inOnePiece)
	o := await(t, done)
	if o.err != nil {
		t.Fatal(o.err)
	}
	defer o.client.Reset()
	if want := c.RemoteAddr().(*net.TCPAddr).Port; int(o.client.Target.Port) != want {
		t.Errorf("target %s, want port %d", o.client.Target, want)
	}
	left, right := net.Pipe()
	defer left.Close()
	defer right.Close()
	if _, err := (sniProtocol{}).portOf(left); err == nil || !strings.Contains(Hint(err), "set port") {
		t.Errorf("without a port: %v, hint %q", err, Hint(err))
	}
	if port, err := (sniProtocol{port: 8443}).portOf(left); err != nil || port != 8443 {
		t.Errorf("with a port of the listener's: %d, %v", port, err)
	}
}

// TestSNIRefuses: who names no target, or speaks no TLS, is told so in its protocol.
func TestSNIRefuses(t *testing.T) {
	hello := helloFor(t, "db")
	unexpected, decode := string(tlsAlert(alertUnexpectedMessage)), string(tlsAlert(50))
	missing, unrecognized := string(tlsAlert(alertMissingExtension)), string(tlsAlert(alertUnrecognizedName))
	for name, tt := range map[string]struct{ send, answer, reason, err, hint string }{
		"no name":              {helloFor(t, ""), missing, "tls", "TLS: the client names no server", "-servername"},
		"no extensions":        {"\x16\x03\x01\x00\x2d\x01\x00\x00\x29\x03\x03" + strings.Repeat("r", 32) + "\x00\x00\x02\x13\x01\x01\x00", missing, "tls", "names no server", "tcp listener"},
		"a name of no host":    {withExtension(helloFor(t, ""), 0, "\x00\x04\x01\x00\x01x"), missing, "tls", "names no server", ""},
		"IPv4":                 {helloFor(t, "192.0.2.1"), unrecognized, "tls", `TLS for "192.0.2.1": an IP address is no name`, "by its name"},
		"IPv6":                 {helloFor(t, "2001:db8::1"), unrecognized, "tls", "an IP address is no name", "by its name"},
		"IPv4 with a dot":      {helloFor(t, "192.0.2.1."), unrecognized, "tls", "an IP address is no name", ""},
		"IPv4 as IPv6":         {helloFor(t, "::ffff:127.0.0.1"), unrecognized, "tls", "an IP address is no name", ""},
		"a zone":               {helloFor(t, "fe80::1%eth0"), unrecognized, "tls", "IPv6 zone", ""},
		"a number":             {helloFor(t, "2130706433"), unrecognized, "tls", "resolvers differ on which IP address that is", "by its name"},
		"half an address":      {helloFor(t, "127.1"), unrecognized, "tls", "resolvers differ", ""},
		"white space":          {helloFor(t, "db example"), unrecognized, "tls", "neither a name nor an IP address", ""},
		"a NUL":                {helloFor(t, "db\x00.example"), unrecognized, "tls", "neither a name nor an IP address", ""},
		"a port":               {helloFor(t, "db:443"), unrecognized, "tls", "neither a name nor an IP address", ""},
		"no UTF-8":             {helloFor(t, "d\xffb"), unrecognized, "tls", "not UTF-8", ""},
		"too long a name":      {helloFor(t, strings.Repeat("abcdefg.", 40)+"example"), unrecognized, "tls", "more than 255 bytes", ""},
		"two names":            {withExtension(helloFor(t, ""), 0, "\x00\x08\x00\x00\x01a\x00\x00\x01b"), decode, "tls", "do not add up", "begins like TLS"},
		"a name twice":         {withExtension(hello, 0, serverName("other")), decode, "tls", "do not add up", ""},
		"too large a message":  {"\x16\x03\x01\x40\x00\x01\x00\x40\x00", decode, "tls", "larger than 16384 bytes", "begins like TLS"},
		"another message":      {"\x16\x03\x01\x00\x04\x02\x00\x00\x00", unexpected, "tls", "first message is of type 2", ""},
		"an alert":             {"\x15\x03\x01\x00\x02\x02\x00", unexpected, "protocol", "its first byte is 0x15", "https://"},
		"HTTP":                 {"GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 Bad Request", "protocol", "the client speaks HTTP without TLS, and on an sni listener it is TLS that names the target", "https://"},
		"CONNECT":              {"CONNECT db:1 HTTP/1.1\r\n\r\n", "HTTP/1.1 400 Bad Request", "protocol", "HTTP without TLS", "kind socks5, http or mixed"},
		"SOCKS5":               {"\x05\x01\x00", "\x05\xff", "protocol", "SOCKS5 without TLS", "kind socks5, http or mixed"},
		"SOCKS4":               {"\x04\x01\x00\x50\x00\x00\x00\x01a\x00", "\x00\x5b\x00\x00\x00\x00\x00\x00", "protocol", "SOCKS4 without TLS", ""},
		"PostgreSQL":           {"\x00\x00\x00\x08\x04\xd2\x16\x2f", string(postgresWithoutTLS(bySNI).Answer), "protocol", "PostgreSQL's own protocol, and not with TLS, and on an sni listener", "sslnegotiation=direct"},
		"something":            {"\xff\xfe", unexpected, "protocol", "its first byte is 0xff", ""},
		"half a message":       {hello[:100], "", "tls", "before its ClientHello was complete: unexpected EOF", ""},
		"an end within a name": {hello[:len(hello)-1], "", "tls", "unexpected EOF", ""},
	} {
		t.Run(name, func(t *testing.T) {
			c, done := begin(t, KindSNI, patience)
			send(t, c, tt.send, thenEOF)
			got, err := io.ReadAll(c)
			if tt.answer != "" {
				checkAnswer(t, got, err, tt.answer)
			} else if !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("read %q, %v; want a reset", got, err)
			}
			_ = c.Close()
			if o := await(t, done); o.err == nil || !strings.Contains(o.err.Error(), tt.err) || Reason(o.err) != tt.reason || !strings.Contains(Hint(o.err), tt.hint) {
				t.Errorf("error %v, reason %s, hint %q", o.err, Reason(o.err), Hint(o.err))
			}
		})
	}
}

// TestSNIIsInTime: the whole message is within the time, and who is late is reset.
func TestSNIIsInTime(t *testing.T) {
	for name, first := range map[string]string{"nothing": "", "half a message": helloFor(t, "db")[:50]} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, done := begin(t, KindSNI, brief)
			send(t, c, first, inOnePiece)
			if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("read %v, want a reset", err)
			}
			if o := await(t, done); Reason(o.err) != "timeout" || !strings.Contains(Hint(o.err), "timeouts.handshake") {
				t.Errorf("error %v, reason %s, hint %q", o.err, Reason(o.err), Hint(o.err))
			}
		})
	}
	near, far := nettest.Pair(t)
	send(t, near, helloFor(t, "db"), inOnePiece)
	c := &timed{TCPConn: far}
	client, err := Handshake(t.Context(), speaking(t, KindSNI), NewStreamConn(c), HandshakeOptions{Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Reset()
	if n := len(c.deadlines); n < 2 || c.deadlines[0].IsZero() || !c.deadlines[n-1].IsZero() {
		t.Errorf("deadlines %v, want one that ends with the handshake", c.deadlines)
	}
}

// TestSNIMemory: what is held grows with what comes, is asked for before, and a client for
// which there is none is reset.
func TestSNIMemory(t *testing.T) {
	large := nettest.ClientHello(t, &tls.Config{ServerName: "db.example", NextProtos: strings.Fields(strings.Repeat(strings.Repeat("p", 200)+" ", 70))})
	for name, tt := range map[string]struct {
		send        string
		least, most int64
	}{
		"a small message": {nettest.ClientHello(t, &tls.Config{ServerName: "db", MaxVersion: tls.VersionTLS12}), 0, 0},
		"a usual one":     {helloFor(t, "db"), 2 << 10, 4 << 10},
		"a large one":     {large, 16 << 10, 18 << 10},
	} {
		r := &tlsRig{t: t}
		c, done := beginWith(t, speaking(t, KindSNI), HandshakeOptions{Timeout: patience, Hold: r.hold})
		send(t, c, tt.send, inOnePiece)
		o := await(t, done)
		if o.err != nil {
			t.Fatal(o.err)
		}
		o.client.Reset()
		if held := r.held.Load(); held < tt.least || held > tt.most {
			t.Errorf("%s: %d bytes are held, want %d to %d", name, held, tt.least, tt.most)
		}
	}
	r := &tlsRig{t: t, most: 1}
	c, done := beginWith(t, speaking(t, KindSNI), HandshakeOptions{Timeout: patience, Hold: r.hold})
	send(t, c, large, inOnePiece)
	if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("without memory: the client reads %v", err)
	}
	if o := await(t, done); !errors.Is(o.err, errNoMemory) {
		t.Errorf("without memory: %v", o.err)
	}
}

// TestSNIIsBrokenOff by the context: the client is reset.
func TestSNIIsBrokenOff(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c, done := beginIn(ctx, t, speaking(t, KindSNI), HandshakeOptions{Timeout: patience})
	send(t, c, helloFor(t, "db")[:50], inOnePiece)
	cancel()
	if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read %v, want a reset", err)
	}
	if o := await(t, done); o.err == nil {
		t.Error("no error")
	}
}

// TestTLSThroughSNI: a client and the target speak TLS with each other, and the client sees
// the target's certificate.
func TestTLSThroughSNI(t *testing.T) {
	a := nettest.NewAuthority(t, "authority")
	r := &tlsRig{t: t, authority: a}
	c, done := begin(t, KindSNI, patience)
	go func() {
		o := await(t, done)
		if o.err != nil {
			t.Error(o.err)
			return
		}
		end, err := o.client.Ready(t.Context())
		if err != nil {
			t.Error(err)
			return
		}
		target := tls.Server(&readAhead{end.Stream, io.MultiReader(bytes.NewReader(end.ReadAhead), end.Stream)},
			&tls.Config{Certificates: []tls.Certificate{r.certificate(a, &x509.Certificate{}, "db.example")}})
		_, _ = io.Copy(target, target)
		_ = target.Close()
	}()
	config := r.client()
	config.ServerName = "db.example"
	client := tls.Client(c, config)
	got := make([]byte, len("hello"))
	if _, err := io.WriteString(client, "hello"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(client, got); err != nil || string(got) != "hello" {
		t.Errorf("echoed %q, %v", got, err)
	}
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(client); err != nil || len(rest) > 0 {
		t.Errorf("then %q, %v", rest, err)
	}
}

// readAhead is a connection of which the first bytes were read.
type readAhead struct {
	net.Conn
	r io.Reader
}

func (c *readAhead) Read(b []byte) (int, error) { return c.r.Read(b) }

// FuzzSNIHandshake: the same is understood whole and byte by byte, no byte of the client's is
// lost, and who is refused is answered in full, or reset.
func FuzzSNIHandshake(f *testing.F) {
	for _, name := range []string{"", "db.example", "192.0.2.1", "db.example.", "bücher.example", "127.1"} {
		f.Add([]byte(helloFor(f, name)))
		f.Add([]byte(inRecords(helloFor(f, name), 100) + "more"))
	}
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte("\x05\x01\x00"))
	read := func(r io.Reader) (Request, *Failure) {
		return readSNI(r, 443, sniProtocol{}, func(int) error { return nil })
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for name, left := range map[string]*bytes.Reader{"whole": bytes.NewReader(b), "byte by byte": bytes.NewReader(b)} {
			var r io.Reader = left
			if name != "whole" {
				r = iotest.OneByteReader(left)
			}
			got, fail := read(r)
			whole, wholeFail := read(bytes.NewReader(b))
			if (fail == nil) != (wholeFail == nil) || got.Target != whole.Target {
				t.Fatalf("%s: %+v, %+v; whole: %+v, %+v", name, got, fail, whole, wholeFail)
			}
			if taken := len(b) - left.Len(); taken > 18<<10 {
				t.Fatalf("%s: %d bytes were read", name, taken)
			}
			if fail == nil {
				rest, err := io.ReadAll(left)
				if err != nil || !bytes.Equal(append(got.Ahead, rest...), b) {
					t.Fatalf("%s: %q goes ahead and %q is left, %v", name, got.Ahead, rest, err)
				}
				if host := got.Target.Host; host == "" || len(host) > 255 || net.ParseIP(host) != nil {
					t.Fatalf("%s: target %+v", name, got.Target)
				}
				continue
			}
			if fail.Err.Error() != wholeFail.Err.Error() || !bytes.Equal(fail.Answer, wholeFail.Answer) || fail.Reset != wholeFail.Reset {
				t.Fatalf("%s: %+v; whole: %+v", name, fail, wholeFail)
			}
			switch {
			case fail.Reset, errors.Is(fail.Err, ErrNothing):
				if len(fail.Answer) > 0 {
					t.Fatalf("%s: an answer to nobody: % x", name, fail.Answer)
				}
			case len(fail.Answer) == 7 && bytes.HasPrefix(fail.Answer, []byte{0x15, 3, 1, 0, 2, 2}):
			case isForeign(b, fail.Answer), b[0] == 5 && string(fail.Answer) == "\x05\xff", beginsPostgres(b):
			default:
				if err := readAll(fail.Answer, isResponse); err != nil {
					t.Fatalf("%s: the answer % x to %q: %v", name, fail.Answer, b, err)
				}
			}
		}
	})
}
