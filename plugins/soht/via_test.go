package soht

import (
	"context"
	"net"
	"runtime"
	"sync"
	"testing"
	"weak"

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
