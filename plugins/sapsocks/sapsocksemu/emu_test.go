package sapsocksemu

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"go.uber.org/goleak"

	"github.com/tunneld/tunneld/internal/logtest"
	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/socks5"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience10 = 10 * time.Second

func startT(t *testing.T, o Options) *Server {
	t.Helper()
	s, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func dial(t *testing.T, s *Server) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", s.Proxy())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience10))
	return c.(*net.TCPConn)
}

// say sends text and wants the answer, byte by byte.
func say(t *testing.T, c io.ReadWriter, text, answer string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(answer))
	if n, err := io.ReadFull(c, got); err != nil || string(got) != answer {
		t.Fatalf("answer % x, %v; want % x", got[:n], err, answer)
	}
}

// closed wants the end of file and nothing before it.
func closed(t *testing.T, c io.Reader) {
	t.Helper()
	if b, err := io.ReadAll(c); err != nil || len(b) != 0 {
		t.Errorf("% x, %v; want the end of file", b, err)
	}
}

func jwtMessage(token, location string) string {
	n := len(token)
	return string([]byte{1, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}) + token + string([]byte{byte(len(location))}) + location
}

// Notes: "other clients offer more methods: 05 02 00 80, 05 04 00 01 02 80".
func TestGreetings(t *testing.T) {
	s := startT(t, Options{})
	for greeting, answer := range map[string]string{
		"\x05\x01\x80":             "\x05\x80",
		"\x05\x02\x00\x80":         "\x05\x80",
		"\x05\x04\x00\x01\x02\x80": "\x05\x80",
		"\x05\x01\x00":             "\x05\xff",
		"\x05\x00":                 "\x05\xff",
	} {
		say(t, dial(t, s), greeting, answer)
	}
	c := dial(t, s)
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(c); len(b) != 0 {
		t.Errorf("a web client was answered % x", b)
	}
}

// A fault that no client sees is in the log, too.
func TestSilenceIsLogged(t *testing.T) {
	log := logtest.New(patience10)
	s := startT(t, Options{
		Log:    slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Faults: Faults{Silent: StepGreeting, Token: TokenFaults{Silent: true}},
	})
	for at, request := range map[string]string{s.Proxy(): "\x05\x01\x80", s.web.Addr().String(): "GET /oauth/token HTTP/1.0\r\n\r\n"} {
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, request); err != nil {
			t.Fatal(err)
		}
	}
	log.Await(t, 1, "msg", "fault", "does", "stay silent", "at", "greeting")
	log.Await(t, 1, "msg", "fault", "does", "stay silent", "at", "token service")
}

func TestTrusted(t *testing.T) {
	s := startT(t, Options{Trusted: true, Connectors: map[string]map[string]string{"": {"echo.corp:7": nettest.Serve(t, nettest.Echo)}}})
	c := dial(t, s)
	say(t, c, "\x05\x02\x00\x80", "\x05\x00")
	say(t, c, "\x05\x01\x00\x03\x09echo.corp\x00\x07", "\x05\x00\x00\x01\x7f\x00\x00\x01")
	say(t, dial(t, s), "\x05\x01\x80", "\x05\xff")
}

func TestAuthentication(t *testing.T) {
	s := startT(t, Options{TokenSize: 20 << 10, TokenLife: time.Minute})
	good := s.IssueToken(time.Minute)
	expired := s.IssueToken(-time.Second)
	if len(good) < 20<<10 {
		t.Errorf("a token of %d bytes", len(good))
	}
	tests := []struct{ name, token, location, status string }{
		{"good", good, "", "\x01\x00"},
		{"good with a location id", good, "YmVybGlu", "\x01\x00"},
		{"location id is not base64", good, "berlin!", "\x01\x01"},
		{"location id is not padded", good, "YmVybGluMQ", "\x01\x01"},
		{"expired", expired, "", "\x01\x01"},
		{"forged", good[:len(good)-2], "", "\x01\x01"},
		{"no token", "", "", "\x01\x01"},
		{"of another emulator", startT(t, Options{}).IssueToken(time.Minute), "", "\x01\x01"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, s)
			say(t, c, "\x05\x01\x80", "\x05\x80")
			say(t, c, jwtMessage(tt.token, tt.location), tt.status)
			if tt.status != "\x01\x00" {
				closed(t, c)
			}
		})
	}
	s.RevokeTokens()
	c := dial(t, s)
	say(t, c, "\x05\x01\x80", "\x05\x80")
	say(t, c, jwtMessage(good, ""), "\x01\x01")
}

func TestRequests(t *testing.T) {
	s := startT(t, Options{Connectors: map[string]map[string]string{"": {"echo.corp:7": nettest.Serve(t, nettest.Echo)}}})
	refusal := func(rep string) string { return "\x05" + rep + "\x00\x01\x00\x00\x00\x00\x00\x00" }
	for name, tt := range map[string]struct{ request, answer string }{
		"connect": {"\x05\x01\x00\x03\x09echo.corp\x00\x07", "\x05\x00\x00\x01\x7f\x00\x00\x01"},
		"bind":    {"\x05\x02\x00\x03\x09echo.corp\x00\x07", refusal("\x07")},
		"udp":     {"\x05\x03\x00\x03\x09echo.corp\x00\x07", refusal("\x07")},
		"IPv6":    {"\x05\x01\x00\x04" + strings.Repeat("\x00", 15) + "\x01\x00\x07", refusal("\x08")},
		"type 2":  {"\x05\x01\x00\x02", refusal("\x08")},
		"unknown": {"\x05\x01\x00\x03\x09ohce.corp\x00\x07", refusal("\x02")},
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, s)
			say(t, c, "\x05\x01\x80", "\x05\x80")
			say(t, c, jwtMessage(s.IssueToken(time.Minute), ""), "\x01\x00")
			say(t, c, tt.request, tt.answer)
			if name != "connect" {
				closed(t, c)
			}
		})
	}
}

// Close ends whatever is open: tunnels, silent conversations, requests for
// tokens. goleak looks for what is left.
func TestCloseWithEverythingOpen(t *testing.T) {
	hold := make(chan struct{})
	s, err := Start(Options{
		Trusted:    true,
		Connectors: map[string]map[string]string{"": {"hold.corp:7": nettest.Serve(t, func(c *net.TCPConn) { <-hold })}},
		Faults:     Faults{Token: TokenFaults{Silent: true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	tunnel := dial(t, s)
	say(t, tunnel, "\x05\x01\x00", "\x05\x00")
	say(t, tunnel, "\x05\x01\x00\x03\x09hold.corp\x00\x07", "\x05\x00\x00\x01\x7f\x00\x00\x01")
	half := dial(t, s)
	say(t, half, "\x05\x01\x00", "\x05\x00")
	answered := make(chan error, 1)
	go func() {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience10}
		_, err := client.PostForm(s.TokenService()+"/oauth/token", url.Values{})
		answered <- err
	}()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("a second time: %v", err)
	}
	if err := <-answered; err == nil {
		t.Error("the silent token service has answered")
	}
	close(hold)
}

func TestMappings(t *testing.T) {
	for _, mapping := range []map[string]string{
		{"a.corp:1": "127.0.0.1"}, {"a.corp": "127.0.0.1:1"}, {"a.corp:x": "127.0.0.1:1"}, {"a.corp:1": "127.0.0.1:0"}, {"a.corp:1": ":1"},
	} {
		if s, err := Start(Options{Connectors: map[string]map[string]string{"": mapping}}); err == nil {
			t.Errorf("%v was taken", mapping)
			_ = s.Close()
		}
	}
	// A backend may be named, and is looked up when somebody asks for it.
	_, port, _ := net.SplitHostPort(nettest.Serve(t, nettest.Echo))
	s := startT(t, Options{Trusted: true, Connectors: map[string]map[string]string{"": {"db.corp:5432": "localhost:" + port, "none.corp:1": "no..host:1"}}})
	c := dial(t, s)
	say(t, c, "\x05\x01\x00", "\x05\x00")
	say(t, c, "\x05\x01\x00\x03\x07db.corp\x15\x38", "\x05\x00\x00\x01\x7f\x00\x00\x01")
	c = dial(t, s)
	say(t, c, "\x05\x01\x00", "\x05\x00")
	say(t, c, "\x05\x01\x00\x03\x09none.corp\x00\x01", "\x05\x04")
}

// Started again at the same addresses, a binding that was pasted somewhere still fits.
func TestAddresses(t *testing.T) {
	o := Options{ClientSecret: "x"}
	first := startT(t, o)
	o.Address, o.TokenAddress = first.Proxy(), strings.TrimPrefix(first.TokenService(), "http://")
	binding := first.VCAPServices()
	if _, err := Start(o); err == nil {
		t.Error("started twice at one address")
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if again := startT(t, o); again.VCAPServices() != binding {
		t.Errorf("%s, and then %s", binding, again.VCAPServices())
	}
	for _, o := range []Options{{Address: "0.0.0.0:0"}, {TokenAddress: "0.0.0.0:0"}} {
		if s, err := Start(o); err == nil {
			_ = s.Close()
			t.Errorf("%+v serves other machines", o)
		}
	}
}

func TestVCAPServices(t *testing.T) {
	s := startT(t, Options{ClientSecret: "x"})
	var services map[string][]struct {
		Name, Label string
		Credentials map[string]any
	}
	if err := json.Unmarshal([]byte(s.VCAPServices()), &services); err != nil {
		t.Fatal(err)
	}
	c := services["connectivity"][0].Credentials
	if port, ok := c["onpremise_socks5_proxy_port"].(string); !ok || c["onpremise_proxy_host"].(string)+":"+port != s.Proxy() || c["clientsecret"] != "x" {
		t.Errorf("%v", c)
	}
}

// FuzzReadJWT reads any message of method 0x80: the same whole and in pieces,
// and nothing behind it.
func FuzzReadJWT(f *testing.F) {
	f.Add([]byte(jwtMessage("jwt", "YmVybGlu") + "data"))
	f.Add([]byte(jwtMessage("", "")))
	f.Add([]byte("\x01\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		whole := bytes.NewReader(b)
		token, location, err := readJWT(whole)
		token2, location2, err2 := readJWT(iotest.OneByteReader(bytes.NewReader(b)))
		if (err == nil) != (err2 == nil) || token != token2 || location != location2 {
			t.Fatal("read otherwise in pieces")
		}
		if taken := b[:len(b)-whole.Len()]; err == nil && string(taken) != jwtMessage(token, location) {
			t.Fatalf("% x was taken for %q and %q", taken, token, location)
		}
	})
}

// A fault's address that SOCKS cannot carry must not end the emulator.
func TestOddBoundAddress(t *testing.T) {
	if b := reply(socks5.Succeeded, strings.Repeat("n", 300)+":1"); len(b) != 10 {
		t.Errorf("% x", b)
	}
}
