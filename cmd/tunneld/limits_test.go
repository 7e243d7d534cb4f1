package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/plugins/sapsocks/sapsocksemu"
)

// dialFrom connects from another address of the loopback network.
func dialFrom(t *testing.T, source, address string) (*net.TCPConn, error) {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}, Timeout: patience}
	c, err := dialer.DialContext(t.Context(), "tcp", address)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn), c.SetDeadline(time.Now().Add(patience))
}

// wantRefusal expects a reset and not a byte, be it so early that the client's
// connect fails.
func wantRefusal(t *testing.T, source, address string) {
	t.Helper()
	var heard []byte
	c, err := dialFrom(t, source, address)
	if err == nil {
		heard, err = io.ReadAll(c)
	}
	if len(heard) > 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("heard %q, %v; want a reset and not a byte", heard, err)
	}
}

// wantSOCKSRefusal expects that c is told of a general failure (RFC 1928, section
// 6) when it asks, and reads nothing else.
func wantSOCKSRefusal(t *testing.T, c *net.TCPConn) {
	t.Helper()
	send(t, c, "\x05\x01\x00"+"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x01")
	if got, err := io.ReadAll(c); err != nil || string(got) != "\x05\x00"+"\x05\x01\x00\x01\x00\x00\x00\x00\x00\x00" {
		t.Errorf("heard % x, %v; want a general failure", got, err)
	}
}

// wantHTTPRefusal expects that c, which has asked or not, is told 503 and text.
func wantHTTPRefusal(t *testing.T, c *net.TCPConn, text string) {
	t.Helper()
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(body), text) {
		t.Errorf("%s, %q, %v", res.Status, body, err)
	}
}

func TestLimitPerSource(t *testing.T) {
	s := startSapsocks(t, sapsocksemu.Options{})
	d := startDaemon(t, s.onprem("limits {\n max_per_source = 2\n }"))
	address := d.address(t, "tcp.db")
	var open []*net.TCPConn
	for i, source := range []string{"127.0.0.1", "127.0.0.1", "127.0.0.2"} {
		c, err := dialFrom(t, source, address)
		if err != nil {
			t.Fatal(err)
		}
		pingPong(t, c, fmt.Sprint("connection ", i))
		open = append(open, c)
	}
	wantRefusal(t, "127.0.0.1", address)
	line := d.log.Await(t, 1, "msg", "connection failed")[0]
	if text := fmt.Sprint(line["err"]); !strings.Contains(text, "max_per_source") || !strings.Contains(text, "127.0.0.1") {
		t.Errorf("line %v", line)
	}
	// A slot that is free is free for its source.
	if err := open[0].Close(); err != nil {
		t.Fatal(err)
	}
	d.log.Await(t, 1, "msg", "connection")
	pingPong(t, d.dial(t, "tcp.db"), "again")

	// A reload changes the limit for the connections that are open, too.
	d.write(t, s.onprem("limits {\n max_per_source = 1\n }"))
	d.mustReload(t)
	wantRefusal(t, "127.0.0.2", address)
	d.write(t, s.onprem(""))
	d.mustReload(t)
	pingPong(t, d.dial(t, "tcp.db"), "without a limit")
}

// TestLimitOfTheDaemon holds over all listeners, and tells each client in its
// own way.
func TestLimitOfTheDaemon(t *testing.T) {
	s := startSapsocks(t, sapsocksemu.Options{})
	d := startDaemon(t, "daemon {\n max_connections = 2\n}\n"+s.upstream("")+
		listener("db", "127.0.0.1:0", "db.corp:5432", "")+
		"listener \"socks5\" \"apps\" {\n address = \"127.0.0.1:0\"\n"+nettest.OpenTargets+"}\nlistener \"http\" \"web\" {\n address = \"127.0.0.1:0\"\n"+nettest.OpenTargets+"}\n"+
		route("all", "", "upstream.sapsocks.onprem"))
	for range 2 {
		pingPong(t, d.dial(t, "tcp.db"), "within")
	}
	wantRefusal(t, "127.0.0.1", d.address(t, "tcp.db"))
	wantSOCKSRefusal(t, d.dial(t, "socks5.apps"))
	wantHTTPRefusal(t, d.dial(t, "http.web"), "daemon.max_connections")
	d.log.Await(t, 3, "msg", "connection failed", "reason", "unavailable")
}

func TestTimeouts(t *testing.T) {
	tests := []struct {
		timeout, reason string
		end             bool // the client ends its direction
	}{
		{"lifetime", "lifetime", false},
		{"idle", "idle", false},
		{"half_close", "half_close", true},
	}
	for _, tt := range tests {
		t.Run(tt.timeout, func(t *testing.T) {
			t.Parallel()
			b := startBackend(t)
			s := startSapsocks(t, b.mapped())
			d := startDaemon(t, s.onprem(fmt.Sprintf("timeouts {\n %s = \"300ms\"\n }", tt.timeout)))
			client := d.dial(t, "tcp.db")
			server := b.next(t)
			if tt.end {
				closeWrite(t, client)
				wantRest(t, server, "")
			}
			wantReset(t, client)
			if _, err := io.Copy(io.Discard, server); err != nil && !errors.Is(err, syscall.ECONNRESET) || err == nil && !tt.end {
				t.Errorf("the backend reads %v", err)
			}
			line := d.log.Await(t, 1, "msg", "connection")[0]
			if line["reason"] != tt.reason || !strings.Contains(fmt.Sprint(line["err"]), "300ms") {
				t.Errorf("line %v", line)
			}
		})
	}
}

// TestDialTimeout is the listener's, over all upstreams: one that hangs leaves
// the next its share.
func TestDialTimeout(t *testing.T) {
	hangs := startSapsocks(t, sapsocksemu.Options{Faults: sapsocksemu.Faults{Silent: sapsocksemu.StepGreeting}})
	good := startSapsocks(t, sapsocksemu.Options{})
	d := startDaemon(t, hangs.upstream("")+strings.Replace(good.upstream(""), `"onprem"`, `"second"`, 1)+
		listener("short", "127.0.0.1:0", "db.corp:5432", "timeouts {\n dial = \"300ms\"\n }")+
		listener("long", "127.0.0.1:0", "db.corp:5432", "timeouts {\n dial = \"5s\"\n }")+
		route("short", "match {\n listeners = [listener.tcp.short]\n }", "upstream.sapsocks.onprem")+
		route("all", "", "upstream.sapsocks.onprem", "upstream.sapsocks.second"))
	// This comes first: what hangs is passed over from then on.
	pingPong(t, d.dial(t, "tcp.long"), "by the second")
	d.log.Await(t, 1, "msg", "upstream failed, the next is tried", "listener", "tcp.long", "reason", "timeout")
	d.dialReset(t, "tcp.short")
	line := d.log.Await(t, 1, "msg", "connection failed", "listener", "tcp.short", "reason", "timeout")[0]
	if hint, _ := line["hint"].(string); hint == "" {
		t.Errorf("no hint in %v", line)
	}
}

// TestMaxRate tells each client beyond it in its own way, and lets the next in.
func TestMaxRate(t *testing.T) {
	s := startSapsocks(t, sapsocksemu.Options{})
	const limits = " limits {\n  max_rate = 1\n }\n"
	d := startDaemon(t, s.upstream("")+
		listener("db", "127.0.0.1:0", "db.corp:5432", limits)+
		"listener \"socks5\" \"apps\" {\n address = \"127.0.0.1:0\"\n"+nettest.OpenTargets+limits+"}\nlistener \"http\" \"web\" {\n address = \"127.0.0.1:0\"\n"+nettest.OpenTargets+limits+"}\n"+
		route("all", "", "upstream.sapsocks.onprem"))
	const (
		socksTarget  = "\x05\x01\x00\x03\x07db.corp\x15\x38"
		socksGranted = "\x05\x00" + "\x05\x00\x00\x01"
		socksRefused = "\x05\x00" + "\x05\x01\x00\x01"
	)
	for id, client := range map[string]struct{ says, in, out string }{
		"tcp.db":      {"ping", "ping", ""},
		"socks5.apps": {"\x05\x01\x00" + socksTarget, socksGranted, socksRefused},
		"http.web":    {"CONNECT db.corp:5432 HTTP/1.1\r\nHost: db.corp:5432\r\n\r\n", "HTTP/1.1 200", "HTTP/1.1 503"},
	} {
		t.Run(id, func(t *testing.T) {
			// await connects until a client hears what it should; nothing is a reset.
			await := func(what, want string) {
				for deadline := time.Now().Add(patience); ; {
					heard, n := make([]byte, max(len(want), 1)), 0
					c, err := dialFrom(t, "127.0.0.1", d.address(t, id))
					if err == nil {
						if _, err = io.WriteString(c, client.says); err == nil {
							n, err = io.ReadFull(c, heard)
						}
						_ = c.Close()
					}
					heard = heard[:n]
					if want != "" && string(heard) == want || want == "" && n == 0 && errors.Is(err, syscall.ECONNRESET) {
						return
					}
					if time.Now().After(deadline) {
						t.Fatalf("%s: the last heard %q, %v", what, heard, err)
					}
				}
			}
			await("let in", client.in)
			await("refused", client.out)
			await("let in again", client.in)
			line := d.log.Await(t, 1, "msg", "connection failed", "listener", id, "reason", "unavailable")[0]
			if text := fmt.Sprint(line["err"], line["hint"]); !strings.Contains(text, "limits.max_rate: more than 1 connections a second come from 127.0.0.1") || !strings.Contains(text, "raise max_rate") {
				t.Errorf("line %v", line)
			}
		})
	}
}
