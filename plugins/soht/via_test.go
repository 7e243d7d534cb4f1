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
	"github.com/tunneld/tunneld/plugins/sdk/sdktest"
	"github.com/tunneld/tunneld/plugins/soht/sohtemu"
)

// While nothing opens, the question whether a proxy keeps its connections stays
// open. That keeps none of them in memory.
func TestDoubtsKeepNoConnection(t *testing.T) {
	s := emulate(t, sohtemu.Options{Faults: sohtemu.Faults{OpenFail: "db.corp"}})
	p := Plugin()
	var c *Config
	p.New = func() sdk.Dialer { c = new(Config); return c }
	u := sdktest.Start(t, p).Configure(t, "test", values{"url": "http://soht.corp" + sohtemu.DefaultPath, "via": "http://" + s.Addr()})
	refused := func() {
		if _, err := u.Dial(t.Context(), "db.corp:1"); err == nil {
			t.Fatal("the dial is fine")
		}
	}
	refused()
	var cl *client
	for _, cl = range c.clients {
	}
	var mu sync.Mutex
	var made []weak.Pointer[net.TCPConn]
	transport := cl.transport.Load()
	transport.CloseIdleConnections()
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
		refused()
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
}

// With via_connect a proxy is asked for CONNECT and sees no request.
func TestViaConnect(t *testing.T) {
	s := emulate(t, sohtemu.Options{IdlePoll: time.Millisecond})
	methods := make(chan string, 64)
	proxy := nettest.Serve(t, func(c *net.TCPConn) {
		r, err := http.ReadRequest(bufio.NewReader(c)) // nothing comes behind it before the answer
		if err != nil {
			return
		}
		methods <- r.Method + " " + r.RequestURI + " " + r.Header.Get("Proxy-Authorization")
		up, err := net.Dial("tcp", r.RequestURI)
		if err != nil || r.Method != http.MethodConnect {
			_, _ = io.WriteString(c, "HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n")
			return
		}
		defer up.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		var both sync.WaitGroup
		both.Go(func() { _, _ = io.Copy(up, c); _ = up.(*net.TCPConn).CloseWrite() })
		_, _ = io.Copy(c, up)
		_ = c.CloseWrite()
		both.Wait()
	})
	modes(t, func(t *testing.T, mode string) {
		c := mustDial(t, towards(s, mode, values{"via": "http://u:p@" + proxy, "via_connect": true}), nettest.Serve(t, nettest.Echo))
		write(t, c, []byte("hi"))
		read(t, c, 2)
		if got := receive(t, methods); got != "CONNECT "+s.Addr()+" Basic dTpw" {
			t.Errorf("the proxy was asked for %q", got)
		}
	})
}

// A proxy that takes the connection and does not answer CONNECT, or not to the
// end, costs the upstream's own time, and is named.
func TestViaThatDoesNotAnswer(t *testing.T) {
	for name, tt := range map[string]struct {
		answer string // what comes of it
		close  bool   // the connection, then
		reason sdk.Reason
	}{
		"silent":              {"", false, sdk.ReasonTimeout},
		"silent in the midst": {"HTTP/1.1 200 OK\r\nX: y\r\n", false, sdk.ReasonTimeout},
		"closes":              {"", true, sdk.ReasonProtocol},
		"closes in the midst": {"HTTP/1.1 200 OK\r\nX: y\r\n", true, sdk.ReasonProtocol},
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
			connect := patience
			if tt.reason == sdk.ReasonTimeout {
				connect = 50 * time.Millisecond
			}
			_, err := dial(t, values{
				"url": "https://soht.corp/", "via": "http://u:p@" + via,
				"timeouts": values{"connect": connect.String(), "handshake": patience.String()},
			}, "db.corp:1")
			e := dialError(t, err)
			if e.Stage != sdk.StageConnect || e.Reason != tt.reason || e.Hint == "" {
				t.Errorf("got %+v", e)
			}
			if !strings.Contains(e.Message, "open at soht.corp: through the proxy at "+via+": ") {
				t.Errorf("message %q", e.Message)
			}
			receive(t, ended) // and nothing of it lives on
		})
	}
}
