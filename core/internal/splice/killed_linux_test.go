package splice

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/core/internal/tunnel"
)

// pumpOf is the variable that names the pump of a child of TestKilled.
const pumpOf = "TUNNELD_TEST_PUMP"

// TestKilled ends the process that pumps: neither side of a tunnel takes that for
// a clean end, whatever the tunnel is about.
func TestKilled(t *testing.T) {
	if pump := os.Getenv(pumpOf); pump != "" {
		pumpForParent(t, pump)
		return
	}
	ends := map[string]syscall.Signal{"killed": syscall.SIGKILL, "crashed": syscall.SIGABRT}
	// Each returns those who still expect something.
	doing := map[string]func(t *testing.T, client, upstream *net.TCPConn) []*net.TCPConn{
		"idle": func(_ *testing.T, client, upstream *net.TCPConn) []*net.TCPConn {
			return []*net.TCPConn{client, upstream}
		},
		"download": func(t *testing.T, client, upstream *net.TCPConn) []*net.TCPConn {
			fill(t, upstream)
			return []*net.TCPConn{client, upstream}
		},
		"upload": func(t *testing.T, client, upstream *net.TCPConn) []*net.TCPConn {
			fill(t, client)
			return []*net.TCPConn{client, upstream}
		},
		"the client has ended": func(t *testing.T, client, upstream *net.TCPConn) []*net.TCPConn {
			endOneWay(t, client, upstream)
			return []*net.TCPConn{client}
		},
		"the upstream has ended": func(t *testing.T, client, upstream *net.TCPConn) []*net.TCPConn {
			endOneWay(t, upstream, client)
			return []*net.TCPConn{upstream}
		},
	}
	for _, pump := range []string{"kernel", "portable"} {
		for end, signal := range ends {
			for what, do := range doing {
				t.Run(pump+"/"+end+"/"+what, func(t *testing.T) {
					t.Parallel()
					client, upstream, child := pumpedByChild(t, pump)
					waiting := do(t, client, upstream)
					if err := child.Signal(signal); err != nil {
						t.Fatal(err)
					}
					for _, c := range waiting {
						expectReset(t, c)
					}
				})
			}
		}
	}
}

// pumpForParent pumps between descriptors 3 and 4 until it is killed.
func pumpForParent(t *testing.T, pump string) {
	var conns [2]net.Conn
	for i := range conns {
		f := os.NewFile(uintptr(3+i), "socket")
		c, err := net.FileConn(f)
		if err = errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		conns[i] = c
	}
	p, err := New()
	if err != nil {
		t.Fatal(err)
	}
	tun := Tunnel{Client: tunnel.End{Stream: conns[0]}, Upstream: tunnel.End{Stream: conns[1]}}
	tun.Done = func(Result) { os.Exit(1) } // the parent is gone
	if pump == "portable" {
		p.tunnels.add()
		p.portable.start(tun)
	} else {
		p.Start(tun)
	}
	select {}
}

// pumpedByChild returns the far ends of a tunnel that another process pumps.
func pumpedByChild(t *testing.T, pump string) (client, upstream *net.TCPConn, child *os.Process) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestKilled$")
	cmd.Env = append(os.Environ(), pumpOf+"="+pump)
	var far [2]*net.TCPConn
	for i := range far {
		near, c := tcpPair(t)
		f, err := near.File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		defer near.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
		far[i] = c
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it has ended unless the test failed
		_ = cmd.Wait()         // by a signal
	})
	write(t, far[0], "up")
	read(t, far[1], "up")
	write(t, far[1], "down")
	read(t, far[0], "down")
	return far[0], far[1], cmd.Process
}

// fill writes until every buffer on the way is full.
func fill(t *testing.T, c *net.TCPConn) {
	t.Helper()
	chunk := make([]byte, 256<<10)
	for full := false; !full; {
		if err := c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		_, err := c.Write(chunk)
		full = errors.Is(err, os.ErrDeadlineExceeded)
		if err != nil && !full {
			t.Fatal(err)
		}
	}
}

// endOneWay ends what from sends, and waits until that is known.
func endOneWay(t *testing.T, from, to *net.TCPConn) {
	t.Helper()
	if err := from.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	expectEOF(t, to, "")
}
