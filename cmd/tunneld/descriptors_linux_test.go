package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/internal/nettest"
)

// TestDescriptorExhaustion takes the descriptors away that a running daemon would
// need: clients are refused or wait in the queue, the tunnels that are there go
// on, the log says what to do, and once some are closed new ones work again.
func TestDescriptorExhaustion(t *testing.T) {
	far := startBackend(t)
	p := runProgram(t, 1, "daemon {\n max_connections = 10000\n}\nupstream \"direct\" \"x\" {}\n"+
		listener("db", "127.0.0.1:0", far.addr, "")+route("all", "", "upstream.direct.x"))
	go func() {
		for c := range far.conns {
			go pump(c)
		}
	}()
	first := dialTCP(t, p.address(t, "tcp.db"))
	pingPong(t, first, "before")
	low := unix.Rlimit{Cur: 96, Max: 96}
	if err := unix.Prlimit(p.cmd.Process.Pid, unix.RLIMIT_NOFILE, &low, nil); err != nil {
		t.Fatal(err)
	}
	var open []net.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	for range 96 {
		c, err := net.DialTimeout("tcp", p.address(t, "tcp.db"), patience)
		if err != nil {
			break // refused, politely
		}
		open = append(open, c)
	}
	p.log.Await(t, 1, "hint", "no file descriptors are left: raise LimitNOFILE or lower daemon.max_connections")
	pingPong(t, first, "while there are none")
	for _, c := range open {
		breakConn(t, c.(*net.TCPConn))
	}
	open = nil
	// Some that were waiting are accepted first, and are gone.
	deadline := time.Now().Add(patience)
	for {
		c, err := net.DialTimeout("tcp", p.address(t, "tcp.db"), patience)
		if err == nil {
			_ = c.SetDeadline(deadline)
			b := make([]byte, 5)
			if _, err = c.Write([]byte("after")); err == nil {
				_, err = c.Read(b)
			}
			c.Close()
		}
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("it does not recover: %v", err)
		}
	}
	pingPong(t, first, "after")
}

// TestLastDescriptor leaves a running daemon one descriptor: clients that speak a
// protocol are accepted with it, and told in that why they get no further.
func TestLastDescriptor(t *testing.T) {
	far := startBackend(t)
	p := runProgram(t, 3, "daemon {\n max_connections = 10000\n}\nupstream \"direct\" \"x\" {}\n"+
		listener("db", "127.0.0.1:0", far.addr, "")+proxyListener+
		"listener \"http\" \"web\" {\n address = \"127.0.0.1:0\"\n"+nettest.OpenTargets+"}\n"+route("all", "", "upstream.direct.x"))
	go func() {
		for c := range far.conns {
			go pump(c)
		}
	}()
	pingPong(t, dialTCP(t, p.address(t, "tcp.db")), "before")
	var free uint64
	for {
		_, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", p.cmd.Process.Pid, free))
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		free++
	}
	low := unix.Rlimit{Cur: free + 1, Max: free + 1}
	if err := unix.Prlimit(p.cmd.Process.Pid, unix.RLIMIT_NOFILE, &low, nil); err != nil {
		t.Fatal(err)
	}
	const hint = "no file descriptors are left: raise LimitNOFILE or lower daemon.max_connections"
	refusals := map[string]func(*net.TCPConn){
		"socks5.apps": func(c *net.TCPConn) { wantSOCKSRefusal(t, c) },
		"http.web":    func(c *net.TCPConn) { wantHTTPRefusal(t, c, hint) },
	}
	for id, want := range refusals {
		c := dialTCP(t, p.address(t, id))
		want(c)
		// The next needs the descriptor.
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		p.log.Await(t, 1, "msg", "client handshake failed", "listener", id, "hint", hint)
	}
}

// pump sends back what comes.
func pump(c *net.TCPConn) {
	defer c.Close()
	b := make([]byte, 4096)
	for {
		n, err := c.Read(b)
		if err != nil {
			return
		}
		if _, err := c.Write(b[:n]); err != nil {
			return
		}
	}
}
