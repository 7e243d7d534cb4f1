package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/plugins/sapsocks/sapsocksemu"
	"github.com/tunneld/tunneld/plugins/websocks/websocksemu"
)

// TestKilledPluginLeavesDirectTunnels kills the sapsocks plugin: an established
// tunnel goes on, and new ones work again within three seconds.
func TestKilledPluginLeavesDirectTunnels(t *testing.T) {
	s := startSapsocks(t, sapsocksemu.Options{})
	d := startDaemon(t, s.onprem(""))
	c := d.dial(t, "tcp.db")
	pingPong(t, c, "before")
	killPlugin(t, d.log, "sapsocks")
	killed := time.Now()
	pingPong(t, c, "after the kill")
	// A dial waits for the plugin to be back, within the listener's own time.
	again := d.dial(t, "tcp.db")
	pingPong(t, again, "a new one")
	if took := time.Since(killed); took > 3*time.Second {
		t.Errorf("new tunnels took %s", took)
	}
	pingPong(t, c, "still")
	for _, c := range []*net.TCPConn{c, again} {
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
			t.Fatalf("end: %q, %v", rest, err)
		}
	}
	d.log.Await(t, 2, "msg", "connection", "path", "direct", "reason", "client_eof")
}

func websocksRig(t *testing.T, secure bool) (*websocksemu.Server, string) {
	t.Helper()
	echo, err := startEcho()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { echo.Close() })
	emu, err := websocksemu.Start(websocksemu.Options{TLS: secure, Targets: map[string]string{"db.corp:5432": echo.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := emu.Close(); err != nil {
			t.Error(err)
		}
	})
	tls := ""
	if secure {
		tls = fmt.Sprintf("tls {\n ca_file = %q\n}", emu.CAFile())
	}
	return emu, fmt.Sprintf("upstream \"websocks\" \"paas\" {\n url = %q\n %s\n}\n", emu.URL(), tls) +
		listener("db", "127.0.0.1:0", "db.corp:5432", "") + route("all", "", "upstream.websocks.paas")
}

// TestKilledPluginResetsRelays: over wss:// the plugin pumps. Its death is a
// reset for the client, in the middle of a download, and never a clean end.
func TestKilledPluginResetsRelays(t *testing.T) {
	_, config := websocksRig(t, true)
	d := startDaemon(t, config)
	c := d.dial(t, "tcp.db")
	pingPong(t, c, "before")
	// More than the buffers hold, so that the echo is under way.
	written := make(chan error, 1)
	go func() {
		buf := make([]byte, 64<<10)
		for {
			if _, err := c.Write(buf); err != nil {
				written <- err
				return
			}
		}
	}()
	if _, err := io.CopyN(io.Discard, c, 1<<20); err != nil {
		t.Fatal(err)
	}
	killPlugin(t, d.log, "websocks")
	// The system tells of a reset once: to the reader or to the writer.
	_, readErr := io.Copy(io.Discard, c)
	if writeErr := <-written; !errors.Is(readErr, syscall.ECONNRESET) && !errors.Is(writeErr, syscall.ECONNRESET) {
		t.Fatalf("read: %v, write: %v; want a reset", readErr, writeErr)
	}
	d.log.Await(t, 1, "msg", "connection", "path", "relay", "reason", "plugin_died")
	pingPong(t, d.dial(t, "tcp.db"), "a new one")
}

func TestKilledPluginLeavesPlainWebsocks(t *testing.T) {
	_, config := websocksRig(t, false)
	d := startDaemon(t, config)
	c := d.dial(t, "tcp.db")
	pingPong(t, c, "before")
	killPlugin(t, d.log, "websocks")
	pingPong(t, c, "after")
	pingPong(t, d.dial(t, "tcp.db"), "a new one")
}

// TestHalfCloseThroughWSS is a client that sends, ends its direction and waits:
// everything comes back, and the log says what is true.
func TestHalfCloseThroughWSS(t *testing.T) {
	_, config := websocksRig(t, true)
	d := startDaemon(t, config)
	sent := make([]byte, 3000)
	_, _ = rand.Read(sent)
	for range 20 {
		c := d.dial(t, "tcp.db")
		if _, err := c.Write(sent); err != nil {
			t.Fatal(err)
		}
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("%d bytes came back, equal %t: %v", len(got), bytes.Equal(got, sent), err)
		}
	}
	d.log.Await(t, 20, "msg", "connection", "path", "relay", "reason", "client_eof", "bytes_up", "3000", "bytes_down", "3000")
}

func TestFarEndRefusesTheConnection(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := ln.Addr().String()
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, fmt.Sprintf("upstream \"sapsocks\" \"onprem\" {\n proxy = %q\n token = \"t\"\n}\nupstream \"direct\" \"local\" {}\n", gone)+
		listener("db", "127.0.0.1:0", "db.corp:5432", "")+listener("local", "127.0.0.1:0", gone, "")+
		route("local", "match {\n listeners = [listener.tcp.local]\n }", "upstream.direct.local")+
		route("all", "", "upstream.sapsocks.onprem"))
	for _, id := range []string{"tcp.db", "tcp.local"} {
		d.dialReset(t, id)
		d.log.Await(t, 1, "msg", "connection failed", "listener", id, "stage", "connect", "reason", "refused")
	}
}

// TestNothingGoodBeforeTheUpstreamIsUp: a client that only waits hears nothing,
// however long the far end takes, and its bytes wait for the tunnel.
func TestNothingGoodBeforeTheUpstreamIsUp(t *testing.T) {
	s := startSapsocks(t, sapsocksemu.Options{Faults: sapsocksemu.Faults{Delay: 100 * time.Millisecond, Bytewise: true}})
	d := startDaemon(t, s.onprem(""))
	pingPong(t, d.dial(t, "tcp.db"), "early")
}

func TestHalfCloseAndBulkThroughSapsocks(t *testing.T) {
	s := startSapsocks(t, sapsocksemu.Options{})
	d := startDaemon(t, s.onprem(""))
	c := d.dial(t, "tcp.db")
	sent := make([]byte, 8<<20)
	rand.Read(sent)
	written := make(chan error, 1)
	go func() {
		_, err := c.Write(sent)
		written <- errors.Join(err, c.CloseWrite())
	}()
	got, err := io.ReadAll(c)
	if err := errors.Join(err, <-written); err != nil || !bytes.Equal(sent, got) {
		t.Fatalf("%d of %d bytes came back, %v", len(got), len(sent), err)
	}
	line := d.log.Await(t, 1, "msg", "connection")[0]
	if line["reason"] != "client_eof" || line["bytes_up"] != float64(len(sent)) || line["bytes_down"] != float64(len(sent)) {
		t.Errorf("line %v", line)
	}
}

// TestFallOver: the next upstream is tried after a retryable error alone.
func TestFallOver(t *testing.T) {
	s := startSapsocks(t, sapsocksemu.Options{})
	second := startSapsocks(t, sapsocksemu.Options{})
	config := s.upstream("") + strings.Replace(second.upstream(""), `"onprem"`, `"second"`, 1) +
		listener("db", "127.0.0.1:0", "db.corp:5432", "") + route("all", "", "upstream.sapsocks.onprem", "upstream.sapsocks.second")
	d := startDaemon(t, config)
	s.emu.SetFaults(sapsocksemu.Faults{Reply: 2})
	d.dialReset(t, "tcp.db")
	d.log.Await(t, 1, "msg", "connection failed", "upstream", "sapsocks.onprem", "reason", "denied")
	s.emu.SetFaults(sapsocksemu.Faults{Reply: 3}) // no Cloud Connector: it is passed over from then on
	pingPong(t, d.dial(t, "tcp.db"), "by the second")
	d.log.Await(t, 1, "msg", "upstream failed, the next is tried", "upstream", "sapsocks.onprem")
	pingPong(t, d.dial(t, "tcp.db"), "by the second at once")
	d.log.Await(t, 1, "msg", "upstream is passed over while a route has another", "upstream", "sapsocks.onprem")
}

func TestLimitsAndTimeouts(t *testing.T) {
	s := startSapsocks(t, sapsocksemu.Options{})
	d := startDaemon(t, s.onprem("limits {\n max_connections = 1\n }\n timeouts {\n idle = \"1s\"\n }"))
	c := d.dial(t, "tcp.db")
	pingPong(t, c, "one")
	// The refusal may be faster than the client's connect.
	two, err := net.DialTimeout("tcp", d.address(t, "tcp.db"), patience)
	if err == nil {
		defer two.Close()
		_, err = io.ReadAll(two)
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("second connection: %v; want a reset", err)
	}
	d.log.Await(t, 1, "msg", "connection failed", "listener", "tcp.db")
	wantReset(t, c)
	d.log.Await(t, 1, "msg", "connection", "reason", "idle")
	pingPong(t, d.dial(t, "tcp.db"), "the slot is free again")
}
