package soht

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"weak"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/soht/sohtemu"
)

// While nothing opens, the question whether a proxy keeps its connections stays
// open. That keeps none of them in memory.
func TestDoubtsKeepNoConnection(t *testing.T) {
	s := emulate(t, sohtemu.Options{Faults: sohtemu.Faults{OpenFail: "db.corp"}})
	c := config(s, modeStateful)
	c.URL, c.Via = "http://soht.corp"+sohtemu.DefaultPath, sdk.NewSecret("http://"+s.Addr())
	req := &sdk.Request{Target: sdk.Target{Host: "db.corp", Port: 1}}
	cl, err := c.client(req)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var made []weak.Pointer[net.TCPConn]
	transport := cl.transport.Load()
	dial := transport.DialContext
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err == nil {
			mu.Lock()
			made = append(made, weak.Make(conn.(*markedConn).Conn.(*net.TCPConn)))
			mu.Unlock()
		}
		return conn, err
	}
	for range 5 {
		if _, _, err := c.dial(t.Context(), req); err == nil {
			t.Fatal("the dial is fine")
		}
		transport.CloseIdleConnections()
	}
	if len(made) < 5 || !cl.doubtful.Load() {
		t.Fatalf("%d connections, doubtful: %v", len(made), cl.doubtful.Load())
	}
	waitFor(t, func() bool {
		runtime.GC()
		left := 0
		for _, conn := range made {
			if conn.Value() != nil {
				left++
			}
		}
		return left == 0
	})
	runtime.KeepAlive(c)
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// A proxy that takes the connection and does not answer CONNECT, or not to the
// end, costs the upstream's own time, and is named.
func TestViaThatDoesNotAnswer(t *testing.T) {
	for name, tt := range map[string]struct {
		answer string // what comes of it
		close  bool   // the connection, then
		reason sdk.Reason
		words  string
	}{
		"silent":              {"", false, sdk.ReasonTimeout, "did not answer CONNECT within 50ms"},
		"silent in the midst": {"HTTP/1.1 200 OK\r\nX: y\r\n", false, sdk.ReasonTimeout, "did not answer CONNECT within 50ms"},
		"closes":              {"", true, sdk.ReasonUnavailable, "broke off instead of answering CONNECT: EOF"},
		"closes in the midst": {"HTTP/1.1 200 OK\r\nX: y\r\n", true, sdk.ReasonUnavailable, "broke off instead of answering CONNECT: EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			ended := make(chan struct{}, 1)
			via := nettest.Serve(t, func(c *net.TCPConn) {
				br := bufio.NewReader(c)
				if _, err := http.ReadRequest(br); err != nil {
					t.Error(err)
				}
				_, _ = io.WriteString(c, tt.answer)
				if tt.close {
					_ = c.CloseWrite()
				}
				_, _ = io.Copy(io.Discard, br)
				ended <- struct{}{}
			})
			handshake := patience
			if tt.reason == sdk.ReasonTimeout {
				handshake = 50 * time.Millisecond
			}
			_, err := dial(t, values{
				"url": "https://soht.corp/", "via": "http://u:p@" + via,
				"timeouts": values{"connect": patience.String(), "handshake": handshake.String()},
			}, "db.corp:1")
			e := dialError(t, err)
			if e.Stage != sdk.StageConnect || e.Reason != tt.reason || !e.Retryable || e.Hint == "" {
				t.Errorf("got %+v", e)
			}
			if !strings.Contains(e.Message, "the HTTP proxy at "+via+" "+tt.words) {
				t.Errorf("message %q", e.Message)
			}
			receive(t, ended) // and nothing of it lives on
		})
	}
}

// deadlines tells which were set.
type deadlines struct {
	net.Conn
	set []time.Time
}

func (d *deadlines) SetDeadline(at time.Time) error {
	d.set = append(d.set, at)
	return d.Conn.SetDeadline(at)
}

// The time for the answer to CONNECT is no time for the tunnel behind it.
func TestAskingEndsWithTheAnswer(t *testing.T) {
	addr := nettest.Serve(t, func(c *net.TCPConn) {
		_, _ = io.CopyN(c, c, int64(len("askthrough")))
	})
	var d *deadlines
	dial := dialFunc(func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		d = &deadlines{Conn: conn}
		return d, err
	})
	conn, err := dial.asking(addr, patience)(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	write(t, conn, []byte("ask"))
	read(t, conn, 3)
	if len(d.set) != 1 || time.Until(d.set[0]) <= 0 || time.Until(d.set[0]) > patience {
		t.Fatalf("before the answer is read: %v", d.set)
	}
	write(t, conn, []byte("through"))
	read(t, conn, 7)
	if len(d.set) != 2 || !d.set[1].IsZero() {
		t.Errorf("behind it: %v", d.set)
	}
	// What ends the tunnel is not the proxy's.
	if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}
