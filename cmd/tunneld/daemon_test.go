package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/socks5"
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
	killPlugin(t, "sapsocks")
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
	d.log.await(t, 2, "msg", "connection", "path", "direct", "reason", "client_eof")
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
	killPlugin(t, "websocks")
	// The system tells of a reset once: to the reader or to the writer.
	_, readErr := io.Copy(io.Discard, c)
	if writeErr := <-written; !errors.Is(readErr, syscall.ECONNRESET) && !errors.Is(writeErr, syscall.ECONNRESET) {
		t.Fatalf("read: %v, write: %v; want a reset", readErr, writeErr)
	}
	d.log.await(t, 1, "msg", "connection", "path", "relay", "reason", "plugin_died")
	pingPong(t, d.dial(t, "tcp.db"), "a new one")
}

func TestKilledPluginLeavesPlainWebsocks(t *testing.T) {
	_, config := websocksRig(t, false)
	d := startDaemon(t, config)
	c := d.dial(t, "tcp.db")
	pingPong(t, c, "before")
	killPlugin(t, "websocks")
	pingPong(t, c, "after")
	pingPong(t, d.dial(t, "tcp.db"), "a new one")
}

// TestBadFarEnds: whatever a far end does wrong, the client is reset before a
// single byte, and one line of the log says where, why and what to check.
func TestBadFarEnds(t *testing.T) {
	method := socks5.MethodUnacceptable
	quick := "timeouts {\n connect = \"2s\"\n handshake = \"300ms\"\n }"
	tests := []struct {
		name          string
		faults        sapsocksemu.Faults
		stage, reason string
	}{
		{"silent at the greeting", sapsocksemu.Faults{Silent: sapsocksemu.StepGreeting}, "handshake", "timeout"},
		{"silent at the authentication", sapsocksemu.Faults{Silent: sapsocksemu.StepAuth}, "handshake", "timeout"},
		{"silent at the request", sapsocksemu.Faults{Silent: sapsocksemu.StepRequest}, "request", "timeout"},
		{"closes at the greeting", sapsocksemu.Faults{CloseAt: sapsocksemu.StepGreeting}, "handshake", ""},
		{"resets at the request", sapsocksemu.Faults{CloseAt: sapsocksemu.StepRequest, Reset: true}, "request", ""},
		{"garbage", sapsocksemu.Faults{Garbage: sapsocksemu.StepGreeting}, "handshake", "protocol"},
		{"no method", sapsocksemu.Faults{Method: &method}, "handshake", ""},
		{"REP 01", sapsocksemu.Faults{Reply: 1}, "request", "unavailable"},
		{"REP 02", sapsocksemu.Faults{Reply: 2}, "request", "denied"},
		{"REP 03", sapsocksemu.Faults{Reply: 3}, "request", "unavailable"},
		{"REP 04", sapsocksemu.Faults{Reply: 4}, "request", "unreachable"},
		{"REP 05", sapsocksemu.Faults{Reply: 5}, "", "unauthenticated"},
		{"REP 02 in two bytes", sapsocksemu.Faults{Reply: 2, ShortReply: true}, "request", "denied"},
		{"token service is broken", sapsocksemu.Faults{Token: sapsocksemu.TokenFaults{Status: 500}}, "credential", "unavailable"},
		{"token service refuses", sapsocksemu.Faults{Token: sapsocksemu.TokenFaults{Status: 401}}, "credential", "unauthenticated"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := startSapsocks(t, sapsocksemu.Options{Faults: tt.faults})
			d := startDaemon(t, s.upstream(quick)+listener("db", "127.0.0.1:0", "db.corp:5432", "")+route("all", "", "upstream.sapsocks.onprem"))
			wantReset(t, d.dial(t, "tcp.db"))
			line := d.log.await(t, 1, "msg", "connection failed")[0]
			if tt.stage != "" && line["stage"] != tt.stage || tt.reason != "" && line["reason"] != tt.reason {
				t.Errorf("stage %v, reason %v; want %s, %s", line["stage"], line["reason"], tt.stage, tt.reason)
			}
			if hint, _ := line["hint"].(string); hint == "" {
				t.Errorf("no hint in %v", line)
			}
			lines := d.log.matching("conn", fmt.Sprint(line["conn"]))
			lines = slices.DeleteFunc(lines, func(l map[string]any) bool { return l["level"] == "DEBUG" })
			if len(lines) != 1 {
				t.Errorf("%d lines for one connection", len(lines))
			}
		})
	}
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
		c := d.dial(t, id)
		if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: %v; want a reset", id, err)
		}
		d.log.await(t, 1, "msg", "connection failed", "listener", id, "stage", "connect", "reason", "refused")
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
	line := d.log.await(t, 1, "msg", "connection")[0]
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
	s.emu.SetFaults(sapsocksemu.Faults{Reply: 3})
	pingPong(t, d.dial(t, "tcp.db"), "by the second")
	d.log.await(t, 1, "msg", "upstream failed, the next is tried", "upstream", "sapsocks.onprem")
	s.emu.SetFaults(sapsocksemu.Faults{Reply: 2})
	wantReset(t, d.dial(t, "tcp.db"))
	d.log.await(t, 1, "msg", "connection failed", "upstream", "sapsocks.onprem", "reason", "denied")
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
	d.log.await(t, 1, "msg", "connection failed", "listener", "tcp.db")
	wantReset(t, c)
	d.log.await(t, 1, "msg", "connection", "reason", "idle")
	pingPong(t, d.dial(t, "tcp.db"), "the slot is free again")
}

// TestNoSecretIsTold looks for planted secrets wherever somebody could read
// them.
func TestNoSecretIsTold(t *testing.T) {
	const canary = "canary-7f3a9c"
	s := startSapsocks(t, sapsocksemu.Options{ClientID: "sb-client!b1|x", ClientSecret: canary + "-secret"})
	fixture := "upstream \"websocks\" \"other\" {\n url = \"ws://127.0.0.1:1\"\n username = \"alice\"\n password = \"" + canary + "-password\"\n}\n"
	d := startDaemon(t, s.upstream("")+fixture+listener("db", "127.0.0.1:0", "db.corp:5432", "")+listener("other", "127.0.0.1:0", "db.corp:5432", "")+
		route("other", "match {\n listeners = [listener.tcp.other]\n }", "upstream.websocks.other")+route("all", "", "upstream.sapsocks.onprem"))
	pingPong(t, d.dial(t, "tcp.db"), "x")
	s.emu.SetFaults(sapsocksemu.Faults{AuthStatus: 1, Token: sapsocksemu.TokenFaults{Status: 401, Body: canary + "-echoed"}})
	for _, id := range []string{"tcp.db", "tcp.other"} {
		wantReset(t, d.dial(t, id))
	}
	d.log.await(t, 2, "msg", "connection failed")
	if strings.Contains(d.log.String(), canary) {
		t.Errorf("a secret is in the log:\n%s", d.log)
	}
	for _, name := range []string{"sapsocks", "websocks"} {
		for _, pid := range pluginPIDs(t, os.Getpid(), name) {
			for _, file := range []string{"cmdline", "environ"} {
				b, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pid), file))
				if err != nil {
					t.Fatal(err)
				}
				if bytes.Contains(b, []byte(canary)) {
					t.Errorf("a secret is in the %s of plugin %s", file, name)
				}
			}
		}
	}
}
