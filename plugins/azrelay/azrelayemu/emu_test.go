package azrelayemu

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"go.uber.org/goleak"

	"github.com/tunneld/tunneld/plugins/azrelay/internal/sas"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

func start(t *testing.T, o Options) *Server {
	t.Helper()
	o.Keys = map[string]Key{
		"send":   {Value: "send key", Rights: Send},
		"listen": {Value: "listen key", Rights: Listen},
		"root":   {Value: "root key", Rights: Manage},
	}
	if o.HybridConnections == nil {
		o.HybridConnections = map[string]HybridConnection{"hc1": {}}
	}
	s, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// token is a listener's, valid for life.
func token(life time.Duration) string {
	return sas.Sign("http://127.0.0.1/hc1", "listen", "listen key", time.Now().Add(life))
}

// client is a WebSocket, frame by frame.
type client struct {
	t    *testing.T
	conn net.Conn
	br   *bufio.Reader
}

// open connects; a refusal is the service's status line.
func open(t *testing.T, address string, header ws.HandshakeHeader) (*client, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var refused error
	d := ws.Dialer{Header: header, OnStatusError: func(status int, reason []byte, _ io.Reader) {
		refused = fmt.Errorf("%d %s", status, reason)
	}}
	conn, br, _, err := d.Dial(ctx, address)
	if refused != nil {
		return nil, refused
	}
	if err != nil {
		return nil, err
	}
	if br == nil {
		br = bufio.NewReader(conn)
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { _ = conn.Close() })
	return &client{t, conn, br}, nil
}

func mustOpen(t *testing.T, address string) *client {
	t.Helper()
	c, err := open(t, address, nil)
	if err != nil {
		t.Fatalf("open %s: %v", address, err)
	}
	return c
}

func (c *client) send(f ws.Frame) {
	c.t.Helper()
	if err := ws.WriteFrame(c.conn, ws.MaskFrame(f)); err != nil {
		c.t.Errorf("send: %v", err)
	}
}

func (c *client) frame() (ws.Frame, error) {
	h, err := ws.ReadHeader(c.br)
	if err != nil {
		return ws.Frame{}, err
	}
	p := make([]byte, h.Length)
	_, err = io.ReadFull(c.br, p)
	return ws.Frame{Header: h, Payload: p}, err
}

// wantClose reads up to a Close frame with code.
func (c *client) wantClose(code ws.StatusCode) {
	c.t.Helper()
	for {
		f, err := c.frame()
		if err != nil {
			c.t.Errorf("the connection ended before Close with %d: %v", code, err)
			return
		}
		if f.Header.OpCode == ws.OpClose {
			if got, reason := ws.ParseCloseFrameData(f.Payload); got != code {
				c.t.Errorf("closed with %d %q, want %d", got, reason, code)
			}
			return
		}
	}
}

func listenURL(s *Server, token string) string {
	return s.URL() + "/$hc/hc1?sb-hc-action=listen&sb-hc-token=" + url.QueryEscape(token)
}

func senderURL(s *Server, more string) string {
	token := sas.Sign("http://127.0.0.1/hc1", "send", "send key", time.Now().Add(time.Hour))
	return s.URL() + "/$hc/hc1" + more + "sb-hc-action=connect&sb-hc-token=" + url.QueryEscape(token)
}

// offered reads an accept message.
func (c *client) offered() acceptBody {
	c.t.Helper()
	f, err := c.frame()
	if err != nil || f.Header.OpCode != ws.OpText {
		c.t.Fatalf("no offer: %+v, %v", f.Header, err)
	}
	var m acceptMessage
	if err := json.Unmarshal(f.Payload, &m); err != nil {
		c.t.Fatalf("the offer %q: %v", f.Payload, err)
	}
	return m.Accept
}

// meet brings a sender and a listener together.
func meet(t *testing.T, s *Server) (sender, listener *client) {
	t.Helper()
	control := mustOpen(t, listenURL(s, token(time.Hour)))
	met := make(chan *client)
	go func() {
		c, err := open(t, senderURL(s, "?"), nil)
		if err != nil {
			t.Errorf("sender: %v", err)
		}
		met <- c
	}()
	listener = mustOpen(t, control.offered().Address)
	if sender = <-met; sender == nil {
		t.FailNow()
	}
	return sender, listener
}

func TestTheServiceSendsAcceptAndTheListenerDialsTheAddressAsItStands(t *testing.T) {
	s := start(t, Options{})
	control := mustOpen(t, listenURL(s, token(time.Hour)))
	met := make(chan error)
	go func() {
		c, err := open(t, senderURL(s, "/suffix?app=a%26b&"), ws.HandshakeHeaderString("X-Custom: yes\r\n"))
		if err == nil {
			c.send(ws.NewBinaryFrame([]byte("hello")))
		}
		met <- err
	}()
	offer := control.offered()
	u, err := url.Parse(offer.Address)
	if err != nil || u.Path != "/$hc/hc1/suffix" || u.Query().Get("app") != "a&b" || u.Query().Get("sb-hc-id") != offer.ID {
		t.Errorf("the address is %s", offer.Address)
	}
	if strings.Contains(offer.Address, "token") || offer.ConnectHeaders["X-Custom"] != "yes" || offer.ConnectHeaders["Host"] != s.Addr() {
		t.Errorf("the offer is %+v", offer)
	}
	if offer.RemoteEndpoint.Address != "127.0.0.1" || offer.RemoteEndpoint.Port == 0 {
		t.Errorf("the sender came from %+v", offer.RemoteEndpoint)
	}
	// hyco-ws sends a malformed header named 0.
	listener, err := open(t, offer.Address, ws.HandshakeHeaderString("0: Sec-WebSocket-Extensions: permessage-deflate\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	if err := <-met; err != nil {
		t.Fatal(err)
	}
	if f, err := listener.frame(); string(f.Payload) != "hello" {
		t.Errorf("read %q, %v", f.Payload, err)
	}
	if _, err := open(t, offer.Address, nil); err == nil || !strings.HasPrefix(err.Error(), "404") {
		t.Errorf("the address was taken twice: %v", err)
	}
}

func TestAListenerRejects(t *testing.T) {
	s := start(t, Options{})
	control := mustOpen(t, listenURL(s, token(time.Hour)))
	met := make(chan error)
	go func() {
		_, err := open(t, senderURL(s, "?"), nil)
		met <- err
	}()
	_, err := open(t, control.offered().Address+"&sb-hc-statusCode=451&sb-hc-statusDescription=Not+for+you", nil)
	if err == nil || !strings.HasPrefix(err.Error(), "410 ") {
		t.Errorf("the listener got %v, want 410", err)
	}
	if err := <-met; err == nil || err.Error() != "451 Not for you" {
		t.Errorf("the sender got %v", err)
	}
}

func TestRenewTokenAndItsEnd(t *testing.T) {
	s := start(t, Options{})
	renewed := mustOpen(t, listenURL(s, token(2*time.Second)))
	bad := mustOpen(t, listenURL(s, token(time.Hour)))
	short := mustOpen(t, listenURL(s, token(2*time.Second)))
	renew := func(c *client, token string) {
		c.send(ws.NewTextFrame(fmt.Appendf(nil, `{"renewToken":{"token":%q}}`, token)))
	}
	renew(renewed, token(time.Hour))
	renew(bad, sas.Sign("http://127.0.0.1/hc1", "send", "send key", time.Now().Add(time.Hour)))
	bad.wantClose(ws.StatusPolicyViolation)
	short.wantClose(ws.StatusPolicyViolation)
	renewed.send(ws.NewPingFrame([]byte("still there")))
	if f, err := renewed.frame(); f.Header.OpCode != ws.OpPong || string(f.Payload) != "still there" {
		t.Errorf("the renewed channel: %+v, %v", f.Header, err)
	}
}

func TestFrameByFrameUnmaskedFINAndOpcodeKeptPingsAndCloseIncluded(t *testing.T) {
	s := start(t, Options{})
	sender, listener := meet(t, s)
	frames := []ws.Frame{
		ws.NewFrame(ws.OpText, false, []byte("te")), ws.NewPingFrame([]byte("ping")), ws.NewFrame(ws.OpContinuation, true, []byte("xt")),
		ws.NewBinaryFrame(make([]byte, 200_000)), ws.NewBinaryFrame(nil), ws.NewPongFrame([]byte("pong")),
		ws.NewCloseFrame(ws.NewCloseFrameBody(1000, "bye")),
	}
	for _, way := range [][2]*client{{sender, listener}, {listener, sender}} {
		go func() {
			for _, f := range frames {
				way[0].send(f)
			}
		}()
		for i, want := range frames {
			got, err := way[1].frame()
			if err != nil || got.Header != want.Header || string(got.Payload) != string(want.Payload) {
				t.Errorf("frame %d is %+v, %v, want %+v", i, got.Header, err, want.Header)
			}
		}
	}
	for _, c := range []*client{sender, listener} {
		if _, err := c.br.ReadByte(); err != io.EOF {
			t.Errorf("after both Closes: %v, want the service to close", err)
		}
	}
}

func TestTokensAreCheckedAsTheyWereSent(t *testing.T) {
	s := start(t, Options{Namespace: "myrelay.example", HybridConnections: map[string]HybridConnection{
		"hc1": {Keys: map[string]Key{"own": {Value: "own key", Rights: Send}}}, "open": {Anonymous: true},
	}})
	in := func(d time.Duration) time.Time { return time.Now().Add(d) }
	lower := func(token string) string {
		// Only the resource's escapes: the signature is over them as they stand.
		return strings.NewReplacer("%3A", "%3a", "%2F", "%2f").Replace(token)
	}
	for _, tt := range []struct{ name, path, token, want string }{
		{".NET's http and slash", "hc1", sas.Sign("http://127.0.0.1/hc1/", "send", "send key", in(time.Hour)), "404 There are no listeners"},
		{"Node's port", "hc1", sas.Sign("http://127.0.0.1:9/hc1", "send", "send key", in(time.Hour)), "404 There are no listeners"},
		{"sb, the namespace's name, another case", "HC1", sas.Sign("sb://MyRelay.example/hC1", "send", "send key", in(time.Hour)), "404 There are no listeners"},
		{"the whole namespace", "hc1/suffix", sas.Sign("sb://myrelay.example", "root", "root key", in(time.Hour)), "404 There are no listeners"},
		{"the entity's own key", "hc1", sas.Sign("http://127.0.0.1/hc1", "own", "own key", in(time.Hour)), "404 There are no listeners"},
		{"anonymous", "open", "", "404 There are no listeners"},
		{"escapes changed after signing", "hc1", lower(sas.Sign("http://127.0.0.1/hc1", "send", "send key", in(time.Hour))), "401 InvalidSignature"},
		{"none", "hc1", "", "401 MissingToken"},
		{"malformed", "hc1", "Bearer x", "401 MalformedToken"},
		{"another key", "hc1", sas.Sign("http://127.0.0.1/hc1", "send", "root key", in(time.Hour)), "401 InvalidSignature"},
		{"expired", "hc1", sas.Sign("http://127.0.0.1/hc1", "send", "send key", in(-time.Hour)), "401 ExpiredToken"},
		{"another path", "hc1", sas.Sign("http://127.0.0.1/hc10", "send", "send key", in(time.Hour)), "401 InvalidAudience"},
		{"another host", "hc1", sas.Sign("http://elsewhere/hc1", "send", "send key", in(time.Hour)), "401 InvalidAudience"},
		{"no right", "hc1", sas.Sign("http://127.0.0.1/hc1", "listen", "listen key", in(time.Hour)), "403 'Send'"},
		{"no such path", "hc2", "", "404 Endpoint does not exist"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			header := ws.HandshakeHeaderString("ServiceBusAuthorization: " + tt.token + "\r\n")
			_, err := open(t, s.URL()+"/$hc/"+tt.path+"?sb-hc-action=connect", header)
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) || !strings.Contains(err.Error(), "TrackingId:") {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestCloseCodesOfTheService(t *testing.T) {
	s := start(t, Options{})
	sender, listener := meet(t, s)
	s.CloseTunnels("hc1", 1011, "Internal error")
	sender.wantClose(1011)
	listener.wantClose(1011)

	control := mustOpen(t, listenURL(s, token(time.Hour)))
	sender, listener = meet(t, s)
	s.Delete("hc1")
	for _, c := range []*client{control, sender, listener} {
		c.wantClose(ws.StatusGoingAway)
	}
	if _, err := open(t, senderURL(s, "?"), nil); err == nil || !strings.HasPrefix(err.Error(), "404 Endpoint") {
		t.Errorf("after its deletion: %v", err)
	}
}

func TestCutsOnDemand(t *testing.T) {
	for _, f := range []Faults{{CutAfter: 5}, {CutAfter: 5, CutFIN: true}} {
		s := start(t, Options{Faults: f})
		sender, listener := meet(t, s)
		sender.send(ws.NewBinaryFrame([]byte("0123456789")))
		f, err := listener.frame()
		if err == nil || f.Header.OpCode == ws.OpClose {
			t.Errorf("the listener got %+v whole", f.Header)
		}
	}
	s := start(t, Options{Faults: Faults{CloseAfter: 5, CloseCode: 1011}})
	sender, _ := meet(t, s)
	sender.send(ws.NewBinaryFrame([]byte("0123456789")))
	sender.wantClose(1011)
}

func TestASenderThatIsGoneIsNoSender(t *testing.T) {
	log, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	defer w.Close()
	_ = log.SetReadDeadline(time.Now().Add(patience))
	s := start(t, Options{Log: slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	control := mustOpen(t, listenURL(s, token(time.Hour)))
	u, _ := url.Parse(senderURL(s, "?"))
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", u.RequestURI(), u.Host)
	offer := control.offered()
	_ = conn.Close()
	lines := bufio.NewScanner(log)
	for lines.Scan() && !strings.Contains(lines.Text(), "sender gone") {
	}
	if _, err := open(t, offer.Address, nil); err == nil || !strings.HasPrefix(err.Error(), "404") {
		t.Errorf("accepted for nobody: %v", err)
	}
}

func TestATokenIsNotLogged(t *testing.T) {
	var log bytes.Buffer
	s := start(t, Options{Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	secret := token(time.Hour)
	_, escaped, _ := strings.Cut(url.QueryEscape(secret), "sig%3D")
	for _, version := range []string{" HTTP/1.1", ""} {
		conn, err := net.Dial("tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(patience))
		fmt.Fprintf(conn, "GET /$hc/hc?sb-hc-action=connect&sb-hc-token=%s%s\r\nHost: x\r\n\r\n", url.QueryEscape(secret), version)
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
	}
	s.Close() // nothing is logged any more
	if text := log.String(); !strings.Contains(text, "action=connect") || !strings.Contains(text, "request not read") || strings.Contains(text, escaped[:8]) {
		t.Errorf("logged %s", text)
	}
}

func TestStartRefuses(t *testing.T) {
	for _, o := range []Options{
		{Address: "0.0.0.0:0"}, {Address: "nowhere"}, {Address: "192.0.2.1:0"},
		{Forward: []Forward{{}}}, {Forward: []Forward{{HybridConnection: "a", Target: "b"}}},
		{Forward: []Forward{{HybridConnection: "a", Framing: "x"}}},
		{Forward: []Forward{{HybridConnection: "a", Framing: FramingAzbridge, Ports: map[string]string{"": "b:1"}}}},
		{Forward: []Forward{{HybridConnection: "a", Framing: FramingAzbridge, Ports: map[string]string{"p": "b"}}}},
	} {
		if s, err := Start(o); err == nil {
			s.Close()
			t.Errorf("%+v was started", o)
		}
	}
}

func TestCloseEndsEverything(t *testing.T) {
	s := start(t, Options{TLS: true, Namespace: "myrelay.example", Forward: []Forward{{HybridConnection: "hc9", Target: "127.0.0.1:1"}}})
	plain := start(t, Options{})
	sender, listener := meet(t, plain)
	s.Close()
	s.Close()
	plain.Close()
	for _, c := range []*client{sender, listener} {
		if _, err := c.frame(); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after Close: %v", err)
		}
	}
}
