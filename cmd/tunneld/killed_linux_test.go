package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest/fixture"
)

// TestKilledDaemon kills the daemon, and then the daemon together with its plugins,
// as a machine that runs out of memory may: on no path does either end of a tunnel
// take half a stream for a whole one.
func TestKilledDaemon(t *testing.T) {
	for _, all := range []bool{false, true} {
		name := "alone"
		if all {
			name = "with its plugins"
		}
		t.Run(name, func(t *testing.T) {
			far := startBackend(t)
			p, paths := runOnAllPaths(t, far.addr)
			var open []openTunnel
			for path, dial := range paths {
				open = append(open, idle(t, path, dial, far), asked(t, path, dial, far))
				for _, what := range []string{"downloading", "uploading"} {
					open = append(open, busy(t, path, what, dial, far))
				}
			}
			victims := []int{p.cmd.Process.Pid}
			if all {
				for _, line := range p.log.Await(t, 2, "msg", "plugin started") {
					victims = append(victims, int(line["pid"].(float64)))
				}
			}
			for _, o := range open { // to make them all took its time
				for _, c := range o.ends {
					if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
						t.Fatal(err)
					}
				}
			}
			// Nobody has the time to see that another is gone.
			for _, signal := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGKILL} {
				for _, pid := range victims {
					if err := syscall.Kill(pid, signal); err != nil {
						t.Fatal(err)
					}
				}
			}
			for _, o := range open {
				for end, c := range o.ends {
					if _, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) {
						t.Errorf("%s, %s: the %s read %v; want a reset", o.path, o.what, end, err)
					}
				}
			}
		})
	}
}

// openTunnel is a tunnel, and those of its ends that still expect something.
type openTunnel struct {
	path, what string
	ends       map[string]net.Conn
}

// runOnAllPaths runs a daemon and returns a way to dial for each path that a tunnel
// may take to the backend.
func runOnAllPaths(t *testing.T, backend string) (*program, map[string]func() *net.TCPConn) {
	t.Helper()
	_, port, err := net.SplitHostPort(backend)
	if err != nil {
		t.Fatal(err)
	}
	config := "upstream \"direct\" \"x\" {}\nlistener \"socks5\" \"apps\" {\n address = \"127.0.0.1:0\"\n" + nettest.OpenTargets + "}\n" +
		listener("address", "127.0.0.1:0", backend, "") + listener("name", "127.0.0.1:0", "localhost:"+port, "")
	routes := ""
	for _, name := range []string{fixture.DirectName, fixture.RelayName} {
		config += thirdParty(t, name, "") + fmt.Sprintf("upstream %q \"x\" {}\n", name) + listener(name, "127.0.0.1:0", backend, "")
		routes += route(name, fmt.Sprintf("match {\n listeners = [listener.tcp.%s]\n}", name), "upstream."+name+".x")
	}
	p := runProgram(t, 5, config+routes+route("all", "", "upstream.direct.x"))
	paths := map[string]func() *net.TCPConn{"socks5": func() *net.TCPConn {
		c := dialTCP(t, p.address(t, "socks5.apps"))
		wantSOCKSTunnel(t, c, backend)
		return c
	}}
	for _, name := range []string{"address", "name", fixture.DirectName, fixture.RelayName} {
		paths[name] = func() *net.TCPConn { return dialTCP(t, p.address(t, "tcp."+name)) }
	}
	return p, paths
}

// wantSOCKSTunnel asks a socks5 listener for a tunnel to an IPv4 address.
func wantSOCKSTunnel(t *testing.T, c net.Conn, to string) {
	t.Helper()
	addr, err := net.ResolveTCPAddr("tcp4", to)
	if err != nil {
		t.Fatal(err)
	}
	request := append([]byte("\x05\x01\x00\x05\x01\x00\x01"), addr.IP.To4()...)
	send(t, c, string(append(request, byte(addr.Port>>8), byte(addr.Port))))
	answer := make([]byte, 12)
	if _, err := io.ReadFull(c, answer); err != nil || answer[3] != 0 {
		t.Fatalf("answer %x, %v", answer, err)
	}
}

// tunnelTo makes a tunnel and carries a word through it.
func tunnelTo(t *testing.T, dial func() *net.TCPConn, far *backend) (client, server *net.TCPConn) {
	t.Helper()
	client = dial()
	server = far.next(t)
	send(t, client, "hello")
	if _, err := io.ReadFull(server, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	return client, server
}

func idle(t *testing.T, path string, dial func() *net.TCPConn, far *backend) openTunnel {
	client, server := tunnelTo(t, dial, far)
	return openTunnel{path, "idle", map[string]net.Conn{"client": client, "server": server}}
}

// busy is a tunnel in the middle of a transfer that goes on until its end.
func busy(t *testing.T, path, what string, dial func() *net.TCPConn, far *backend) openTunnel {
	client, server := tunnelTo(t, dial, far)
	from, to, end := server, client, "client"
	if what == "uploading" {
		from, to, end = client, server, "server"
	}
	fed := make(chan struct{})
	t.Cleanup(func() {
		from.Close()
		<-fed
	})
	go func() {
		defer close(fed)
		for chunk := make([]byte, 64<<10); ; {
			if _, err := from.Write(chunk); err != nil {
				return
			}
		}
	}()
	if _, err := io.CopyN(io.Discard, to, 4<<20); err != nil {
		t.Fatal(err)
	}
	return openTunnel{path, what, map[string]net.Conn{end: to}}
}

// asked is a tunnel whose client has sent all and waits for the answer.
func asked(t *testing.T, path string, dial func() *net.TCPConn, far *backend) openTunnel {
	client, server := tunnelTo(t, dial, far)
	closeWrite(t, client)
	wantRest(t, server, "")
	return openTunnel{path, "asked", map[string]net.Conn{"client": client}}
}
