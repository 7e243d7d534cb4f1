package main

import (
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"
)

// TestEqualRefusals: ten lines of the log for each listener and reason, and a count
// of the others; the metrics count each.
func TestEqualRefusals(t *testing.T) {
	const tries, logged = 14, 10
	echo, err := startEcho()
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	// Port 1 of an address of its own: nobody listens there.
	p := runProgram(t, 3, "upstream \"direct\" \"local\" {}\n"+withMetrics+route("all", "", "upstream.direct.local")+
		listener("refused", "127.0.0.1:0", "127.9.9.9:1", "")+
		listener("full", "127.0.0.1:0", echo.Addr(), "limits {\n max_connections = 1\n }")+
		"listener \"socks5\" \"apps\" { address = \"127.0.0.1:0\" }\n")
	holder := dialTCP(t, p.address(t, "tcp.full"))
	pingPong(t, holder, "the only one")
	for range tries {
		dialReset(t, p.address(t, "tcp.refused"))
		dialReset(t, p.address(t, "tcp.full"))
		c := dialTCP(t, p.address(t, "socks5.apps"))
		send(t, c, "GET / HTTP/1.1\r\n\r\n")
		_, _ = io.Copy(io.Discard, c) // an answer, or a reset
	}
	serving, _ := p.log.Await(t, 1, "msg", "serving metrics")[0]["address"].(string)
	eventually(t, "a series lacks some", func() bool {
		_, text := get(t, serving, "/metrics")
		for _, series := range []string{
			`tunneld_connection_failures_total{listener="tcp.refused",reason="refused",route="all",stage="connect",upstream="direct.local"}`,
			`tunneld_connections_refused_total{limit="limits.max_connections",listener="tcp.full"}`,
			`tunneld_handshake_failures_total{listener="socks5.apps",reason="protocol"}`,
		} {
			if !strings.Contains(text, fmt.Sprintf("\n%s %d\n", series, tries)) {
				return false
			}
		}
		return true
	})
	holder.Close()
	p.signal(t, syscall.SIGTERM)
	if status := p.status(t); status != exitOK {
		t.Errorf("exit status %d", status)
	}
	for _, tt := range []struct{ message, listener, reason string }{
		{"connection failed", "tcp.refused", "refused"},
		{"connection failed", "tcp.full", "limits.max_connections"},
		{"client handshake failed", "socks5.apps", "protocol"},
	} {
		if n := len(p.log.Matching("msg", tt.message, "listener", tt.listener)); n != logged {
			t.Errorf("%s: %d lines", tt.listener, n)
		}
		if n := len(p.log.Matching("msg", "more lines like these were left out", "like", tt.message, "listener", tt.listener, "reason", tt.reason, "lines", fmt.Sprint(tries-logged))); n != 1 {
			t.Errorf("%s: %d lines count the others", tt.listener, n)
		}
	}
}
