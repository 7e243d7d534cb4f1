package engine

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/tunneld/tunneld/plugins/sdk"
)

// The toy plugin has two names, so that a configuration can use two of it.
const (
	toyName      = "toy"
	otherToyName = "othertoy"
)

// toyPlugin connects to the target, or does what the test says at that moment.
func toyPlugin(name string) sdk.Plugin {
	return sdk.Plugin{
		Name:    name,
		Version: "1.0.0",
		Summary: "a toy for the engine's tests",
		New:     func() sdk.Dialer { return &toyUpstream{} },
	}
}

// toyBlocks are the plugin blocks of the toys. With the race detector an end takes a
// second unless the environment says otherwise.
func toyBlocks(t *testing.T) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return toyBlocksOf(exe)
}

// toyBlocksOf has the toys' program at a path.
func toyBlocksOf(exe string) (text string) {
	for _, name := range []string{toyName, otherToyName} {
		text += fmt.Sprintf("plugin %q {\n command = [%q, \"plugin\", \"serve\", %q]\n env = { GORACE = \"atexit_sleep_ms=0\" }\n}\n", name, exe, name)
	}
	return text
}

// toyUpstream is an upstream's body, and the upstream.
type toyUpstream struct {
	Remote    string `tunneld:"remote" doc:"where to fetch orders: the address of the test"`
	Note      string `tunneld:"note" doc:"of no meaning: another value makes another upstream"`
	FailStart string `tunneld:"fail_start" doc:"the error to fail the start with"`
	FailIf    string `tunneld:"fail_if" doc:"a file with the error to fail the start with, if it is there"`
	Relay     bool   `tunneld:"relay" doc:"whether the plugin pumps the bytes itself"`

	env  *sdk.Env
	conn net.Conn
	done chan struct{}
	mu   sync.Mutex
	now  toyOrder
	next chan struct{} // closed with the next order
}

// toyOrder is what an upstream does until the next one. The zero order has it dial, and
// says nothing of its health.
type toyOrder struct {
	// Fail fails each dial, retryably, with the text, and with RetryAfter.
	Fail       string
	RetryAfter time.Duration
	// Health is reported at once: "ok" or "failing"; empty: nothing is.
	Health string
	// Wait holds each dial back until the next order.
	Wait bool
}

type toyError string

func (e toyError) Error() string { return string(e) }

// Start connects to the test.
func (u *toyUpstream) Start(env *sdk.Env) error {
	u.env = env
	if u.FailStart != "" {
		return toyError(u.FailStart)
	}
	if text, err := os.ReadFile(u.FailIf); err == nil {
		return toyError(text)
	}
	if u.Remote == "" {
		return nil
	}
	var err error
	if u.conn, err = net.Dial("tcp", u.Remote); err != nil {
		return err
	}
	u.done, u.next = make(chan struct{}), make(chan struct{})
	go u.obey()
	return nil
}

func (u *toyUpstream) obey() {
	defer close(u.done)
	in, out := json.NewDecoder(bufio.NewReader(u.conn)), json.NewEncoder(u.conn)
	for {
		var next toyOrder
		if in.Decode(&next) != nil {
			return
		}
		u.mu.Lock()
		u.now = next
		close(u.next)
		u.next = make(chan struct{})
		u.mu.Unlock()
		switch next.Health {
		case "ok":
			u.env.Report(sdk.Status{Health: sdk.HealthOK})
		case "failing":
			u.env.Report(sdk.Status{Health: sdk.HealthFailing, Message: next.Fail})
		}
		if out.Encode("done") != nil {
			return
		}
	}
}

// Close ends the connection to the test.
func (u *toyUpstream) Close() error {
	if u.conn == nil {
		return nil
	}
	err := u.conn.Close()
	<-u.done
	return err
}

// Dial connects to the target.
func (u *toyUpstream) Dial(ctx context.Context, req *sdk.Request) (*sdk.Tunnel, error) {
	now, next := u.order()
	req.Enter(sdk.StageConnect)
	for now.Wait {
		select {
		case <-next:
			now, next = u.order()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if now.Fail != "" {
		return nil, &sdk.DialError{Reason: sdk.ReasonUnavailable, Retryable: true, Message: now.Fail, RetryAfter: now.RetryAfter}
	}
	conn, err := req.Outbound().DialContext(ctx, "tcp", req.Target.String())
	if err != nil {
		return nil, err
	}
	if u.Relay {
		return sdk.RelayConn(conn), nil
	}
	return sdk.Direct(conn, nil), nil
}

func (u *toyUpstream) order() (toyOrder, <-chan struct{}) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.now, u.next
}

// remote is the test's hand on toy upstreams.
type remote struct {
	ln net.Listener
}

func newRemote(t *testing.T) *remote {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return &remote{ln: ln}
}

func (r *remote) address() string { return r.ln.Addr().String() }

// hand takes the connection of the upstream that starts next.
func (r *remote) hand(t *testing.T) *hand {
	t.Helper()
	if err := r.ln.(*net.TCPListener).SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	c, err := r.ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &hand{conn: c, in: json.NewDecoder(c)}
}

// hand orders one upstream about.
type hand struct {
	conn net.Conn
	in   *json.Decoder
}

// order returns once the upstream obeys it, and has reported its health to the SDK.
func (h *hand) order(t *testing.T, o toyOrder) {
	t.Helper()
	if err := h.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if err := json.NewEncoder(h.conn).Encode(o); err != nil {
		t.Fatal(err)
	}
	var done string
	if err := h.in.Decode(&done); err != nil {
		t.Fatal(err)
	}
}
