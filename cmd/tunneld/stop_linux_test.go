package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/plugins/sapsocks/sapsocksemu"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest/fixture"
)

// TestTERMDrains: a tunnel that ends within shutdown_timeout ends cleanly, and
// so does the program. Nobody new is let in meanwhile.
func TestTERMDrains(t *testing.T) {
	b := startBackend(t)
	s := startSapsocks(t, b.mapped())
	p := runProgram(t, 1, s.onprem(""))
	address := p.address(t, "tcp.db")
	c := dialTCP(t, address)
	server := b.next(t)
	p.signal(t, syscall.SIGTERM)
	p.log.Await(t, 1, "msg", "stopping")
	for { // its listener closes right after the word
		other, err := net.DialTimeout("tcp", address, patience)
		if err != nil {
			break
		}
		// By a reset: half a tunnel would be waited for.
		breakConn(t, other.(*net.TCPConn))
	}
	send(t, server, "the rest")
	closeWrite(t, server)
	wantRest(t, c, "the rest")
	closeWrite(t, c)
	wantRest(t, server, "")
	if status := p.status(t); status != exitOK {
		t.Errorf("exit status %d", status)
	}
	if n := len(p.log.Matching("msg", "connection", "reason", "upstream_eof")); n != 1 {
		t.Errorf("%d lines for the tunnel", n)
	}
}

// TestEveryTunnelHasItsLine: also those that the end of the program breaks off.
func TestEveryTunnelHasItsLine(t *testing.T) {
	const tunnels = 300 // more lines than a pipe takes
	b := startBackend(t)
	p := runProgram(t, 1, "daemon {\n shutdown_timeout = \"0s\"\n}\nupstream \"direct\" \"local\" {}\n"+
		listener("db", "127.0.0.1:0", b.addr, "")+route("all", "", "upstream.direct.local"))
	var clients []*net.TCPConn
	for range tunnels {
		clients = append(clients, dialTCP(t, p.address(t, "tcp.db")))
		send(t, b.next(t), "x")
	}
	for _, c := range clients {
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	p.signal(t, syscall.SIGTERM)
	if status := p.status(t); status != exitOK {
		t.Errorf("exit status %d", status)
	}
	for _, c := range clients {
		wantReset(t, c)
	}
	if n := len(p.log.Matching("msg", "connection", "reason", "killed")); n != tunnels {
		t.Errorf("%d lines for %d tunnels", n, tunnels)
	}
	if n := len(p.log.Matching("msg", "tunnels are broken off", "err", "the time for draining is over")); n != 1 {
		t.Errorf("%d lines say why", n)
	}
}

// TestStopWaitsForNobody: neither a client that says nothing, nor one that does
// not read its answer, nor a plugin that hangs holds a second signal up.
func TestStopWaitsForNobody(t *testing.T) {
	p := runProgram(t, 1, thirdParty(t, fixture.RelayName, "")+
		fmt.Sprintf("upstream %q \"x\" {\n hang_in = \"connect\"\n}\n", fixture.RelayName)+
		proxyListener+route("all", "", "upstream."+fixture.RelayName+".x"))
	address := p.address(t, "socks5.apps")
	silent, hanging := dialTCP(t, address), dialTCP(t, address)
	send(t, hanging, "\x05\x01\x00"+"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x01")
	if _, err := io.ReadFull(hanging, make([]byte, 2)); err != nil {
		t.Fatal(err)
	}
	for _, pid := range descendants(t, p.cmd.Process.Pid) {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		defer watchProcess(t, pid)()
	}
	p.signal(t, syscall.SIGTERM)
	p.log.Await(t, 1, "msg", "stopping")
	second := time.Now()
	p.signal(t, syscall.SIGTERM)
	if status := p.status(t); status != exitOK {
		t.Errorf("exit status %d", status)
	}
	// Far less than what the handshake, the dial or the plugin may take.
	if took := time.Since(second); took > 4*time.Second {
		t.Errorf("the end took %s", took)
	}
	wantReset(t, silent)
	if n := len(p.log.Matching("msg", "client handshake failed", "level", "INFO", "err", "the daemon is stopping")); n != 1 {
		t.Errorf("%d lines for the silent client", n)
	}
	// The one that was being dialed may be told before it is reset, but nothing
	// good.
	if b, _ := io.ReadAll(hanging); len(b) > 1 && b[1] == 0 {
		t.Errorf("a client heard of success: %x", b)
	}
}

// TestTERMBreaksAReloadOff: one that waits for a plugin which does not answer.
func TestTERMBreaksAReloadOff(t *testing.T) {
	s := startSapsocks(t, sapsocksemu.Options{})
	p := runProgram(t, 1, s.onprem(""))
	for _, pid := range descendants(t, p.cmd.Process.Pid) {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(p.path, []byte(jsonLog+s.onprem("limits {\n max_connections = 9\n }")), 0o600); err != nil {
		t.Fatal(err)
	}
	p.signal(t, syscall.SIGHUP)
	asked := time.Now()
	p.signal(t, syscall.SIGTERM)
	p.log.Await(t, 1, "msg", "stopping")
	p.signal(t, syscall.SIGTERM)
	if status := p.status(t); status != exitOK {
		t.Errorf("exit status %d", status)
	}
	if took := time.Since(asked); took > 8*time.Second {
		t.Errorf("the end took %s", took)
	}
}

// TestTERMBreaksAConfigurationOff: the plugin that hangs is not asked to undo it.
func TestTERMBreaksAConfigurationOff(t *testing.T) {
	config := func(attributes string) string {
		return thirdParty(t, fixture.DirectName, "") + fmt.Sprintf("upstream %q \"x\" {\n %s\n}\n", fixture.DirectName, attributes) +
			listener("db", "127.0.0.1:0", "127.0.0.1:1", "") + route("all", "", "upstream."+fixture.DirectName+".x")
	}
	p := runProgram(t, 1, config(""))
	if err := os.WriteFile(p.path, []byte(jsonLog+config(`hang_in = "start"`)), 0o600); err != nil {
		t.Fatal(err)
	}
	p.signal(t, syscall.SIGHUP)
	p.log.Await(t, 1, "msg", "hangs")
	asked := time.Now()
	p.signal(t, syscall.SIGTERM)
	if status := p.status(t); status != exitOK {
		t.Errorf("exit status %d", status)
	}
	// Less than the plugin has to answer a call.
	if took := time.Since(asked); took > 8*time.Second {
		t.Errorf("the end took %s", took)
	}
}

// TestTERMDuringTheStart: a plugin that never gets ready is not waited for.
func TestTERMDuringTheStart(t *testing.T) {
	config := "plugin \"slow\" {\n command = [\"/bin/sh\", \"-c\", \"exec sleep 60\"]\n}\nupstream \"slow\" \"x\" {}\n" +
		listener("db", "127.0.0.1:0", "127.0.0.1:1", "") + route("all", "", "upstream.slow.x")
	p := runProgram(t, 0, config)
	p.log.Await(t, 1, "msg", "go-plugin: waiting for RPC address")
	asked := time.Now()
	p.signal(t, syscall.SIGTERM)
	if status := p.status(t); status != exitFailed {
		t.Errorf("exit status %d", status)
	}
	if took := time.Since(asked); took > 5*time.Second {
		t.Errorf("the end took %s", took)
	}
	if !strings.Contains(p.log.String(), "stopped by a signal during the start") {
		t.Error("that is not told")
	}
}
