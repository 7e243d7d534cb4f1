package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/core/status"
	"github.com/tunneld/tunneld/plugins/soht/sohtemu"
)

// startSOHT runs an emulated server, and a daemon with a listener through it
// whose target is db.corp:5432, at the address target. Upstream and listener are
// further lines of the two bodies.
func startSOHT(t *testing.T, o sohtemu.Options, target, upstream, listen string) (*daemonRig, *sohtemu.Server) {
	t.Helper()
	o.Hosts = map[string]string{"db.corp:5432": target}
	emu, err := sohtemu.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := emu.Close(); err != nil {
			t.Error(err)
		}
	})
	return startDaemon(t, fmt.Sprintf("upstream \"soht\" \"legacy\" {\n url = %q\n %s\n}\n", emu.URL(), upstream)+
		listener("db", "127.0.0.1:0", "db.corp:5432", listen)+route("all", "", "upstream.soht.legacy")), emu
}

// upstreamStatus is what the daemon says of an upstream.
func (r *daemonRig) upstreamStatus(t *testing.T, id string) status.Upstream {
	t.Helper()
	for _, u := range r.Status().Upstreams {
		if u.ID == id {
			return u
		}
	}
	t.Fatalf("there is no upstream %s", id)
	panic("unreachable")
}

// askOnce is a connection whose client has its answer before it closes: behind
// half_close there would be none.
func askOnce(address string) error {
	c, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(2 * patience)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	_, err = io.ReadFull(c, make([]byte, 1))
	return err
}

// wantNothingLeft expects that the server's threads are free, and that it was
// asked for n connections.
func wantNothingLeft(t *testing.T, s *sohtemu.Server, n int) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		st := s.Stats()
		if st.Open == 0 && st.Threads == 0 && st.Requests["open"] == n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the server has %+v", st)
		}
		time.Sleep(time.Millisecond)
	}
}

// TestShortConnectionsThroughSOHT: the server cannot learn of a client's end of
// file. Connections of one exchange leave nothing there all the same, far beyond
// the number of its threads.
func TestShortConnectionsThroughSOHT(t *testing.T) {
	d, emu := startSOHT(t, sohtemu.Options{}, runEcho(t).Addr(), `half_close = "20ms"`, "")
	address := d.address(t, "tcp.db")
	const workers, each = 40, 25
	var wait sync.WaitGroup
	for range workers {
		wait.Go(func() {
			for range each {
				if err := askOnce(address); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
	wantNothingLeft(t, emu, workers*each)
	for _, line := range d.log.Await(t, workers*each, "msg", "connection") {
		if line["reason"] != "client_eof" || line["err"] != nil {
			t.Fatalf("it ended as %v", line)
		}
	}
}

// TestManyAtOnceThroughSOHT: with 90 tunnels open, 400 clients at once wait for
// the ten places that are left, and all get theirs.
func TestManyAtOnceThroughSOHT(t *testing.T) {
	d, emu := startSOHT(t, sohtemu.Options{}, runEcho(t).Addr(), `half_close = "20ms"`, "timeouts {\n dial = \"60s\"\n }")
	if u := d.upstreamStatus(t, "soht.legacy"); u.MaxConnections != 100 {
		t.Fatalf("the plugin's default is %d", u.MaxConnections)
	}
	var open []net.Conn
	for i := range 90 {
		c := d.dial(t, "tcp.db")
		pingPong(t, c, fmt.Sprint("stays open ", i))
		open = append(open, c)
	}
	address := d.address(t, "tcp.db")
	var wait sync.WaitGroup
	for range 400 {
		wait.Go(func() {
			if err := askOnce(address); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	for i, c := range open {
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		pingPong(t, c, fmt.Sprint("is still open ", i))
		_ = c.Close()
	}
	wantNothingLeft(t, emu, 490)
	if failed := d.log.Matching("msg", "connection failed"); len(failed) > 0 {
		t.Errorf("%d failed, the first as %v", len(failed), failed[0])
	}
}

// TestSlowWritesThroughSOHT: the listener's half_close does not end a tunnel whose
// far end is still taking what the client sent, however slowly.
func TestSlowWritesThroughSOHT(t *testing.T) {
	sent := make([]byte, 150_000)
	rand.NewChaCha8([32]byte{}).Read(sent)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	got := make(chan []byte, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		b, _ := io.ReadAll(c)
		got <- b
	}()
	d, _ := startSOHT(t, sohtemu.Options{Observe: func(f sohtemu.Form) {
		if f.Action == "write" {
			time.Sleep(1500 * time.Millisecond)
		}
	}}, l.Addr().String(), "", "timeouts {\n half_close = \"1s\"\n }")
	c := d.dial(t, "tcp.db")
	if _, err := c.Write(sent); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
		t.Errorf("read %q, %v", rest, err)
	}
	select {
	case b := <-got:
		if !bytes.Equal(b, sent) {
			t.Errorf("%d of %d bytes arrived", len(b), len(sent))
		}
	case <-time.After(patience):
		t.Error("the target hears of no end")
	}
	line := d.log.Await(t, 1, "msg", "connection")[0]
	if line["reason"] != "client_eof" || line["err"] != nil || fmt.Sprint(line["bytes_up"]) != "150000" {
		t.Errorf("it ended as %v", line)
	}
}

// TestUpstreamLimit: a dial beyond max_connections waits for a place, and when its
// time is over the next upstream is tried. The count and those who wait live
// through reloads, and a new limit holds at once.
func TestUpstreamLimit(t *testing.T) {
	echo := runEcho(t).Addr()
	config := func(limit int, dial string, more ...string) string {
		return fmt.Sprintf("upstream \"direct\" \"narrow\" {\n max_connections = %d\n}\nupstream \"direct\" \"spare\" {}\n", limit) +
			listener("db", "127.0.0.1:0", echo, "timeouts {\n dial = \""+dial+"\"\n }") +
			route("all", "", append([]string{"upstream.direct.narrow"}, more...)...)
	}
	d := startDaemon(t, config(1, "0s"))
	first := d.dial(t, "tcp.db")
	pingPong(t, first, "takes the place")
	d.reload(t, config(1, "50ms"))
	d.dialReset(t, "tcp.db")
	line := d.log.Await(t, 1, "msg", "connection failed")[0]
	if err := fmt.Sprint(line["err"]); line["stage"] != "connect" || line["reason"] != "unavailable" || !strings.Contains(err, "max_connections: 1 connections of upstream direct.narrow") {
		t.Errorf("the log says %v", line)
	}

	// The route's next upstream has room. The first gets two seconds at the least.
	d.reload(t, config(1, "3s", "upstream.direct.spare"))
	pingPong(t, d.dial(t, "tcp.db"), "by the next upstream")
	if n := d.upstreamStatus(t, "direct.narrow").Connections; n != 1 {
		t.Errorf("%d connections count after the reload", n)
	}

	// A waiting dial is let in by a larger limit, and when another connection ends.
	d.reload(t, config(1, "0s"))
	waiting := []*net.TCPConn{d.dial(t, "tcp.db"), d.dial(t, "tcp.db")}
	d.awaitWaiting(t, 2)
	d.reload(t, config(2, "0s"))
	d.awaitWaiting(t, 1)
	_ = first.Close()
	for _, c := range waiting {
		pingPong(t, c, "let in")
	}

	// A client that leaves gives up its wait.
	gone := d.dial(t, "tcp.db")
	d.awaitWaiting(t, 1)
	_ = gone.SetLinger(0)
	_ = gone.Close()
	d.awaitWaiting(t, 0)
	if n := d.upstreamStatus(t, "direct.narrow").Connections; n != 2 {
		t.Errorf("%d connections count in the end", n)
	}
}

// awaitWaiting waits until so many dials wait for a place in direct.narrow.
func (r *daemonRig) awaitWaiting(t *testing.T, n int) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for r.upstreamStatus(t, "direct.narrow").Waiting != n {
		if time.Now().After(deadline) {
			t.Fatalf("the upstream is %+v", r.upstreamStatus(t, "direct.narrow"))
		}
		time.Sleep(time.Millisecond)
	}
}

// TestHalfCloseOfAnUpstream: it stands for the listener's.
func TestHalfCloseOfAnUpstream(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	d := startDaemon(t, "upstream \"direct\" \"d\" {\n half_close = \"10ms\"\n}\n"+
		listener("db", "127.0.0.1:0", l.Addr().String(), "timeouts {\n half_close = \"1h\"\n }")+route("all", "", "upstream.direct.d"))
	c := d.dial(t, "tcp.db")
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read %v, want a reset", err)
	}
	if line := d.log.Await(t, 1, "msg", "connection")[0]; line["reason"] != "half_close" || !strings.Contains(fmt.Sprint(line["err"]), "10ms") {
		t.Errorf("it ended as %v", line)
	}
}
