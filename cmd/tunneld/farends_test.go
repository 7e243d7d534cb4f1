package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/socks5"
	"github.com/tunneld/tunneld/plugins/sapsocks/sapsocksemu"
)

// badEnd is a far end that does something wrong. An empty reason: any of several
// is right.
type badEnd struct {
	name          string
	faults        sapsocksemu.Faults
	stage, reason string
}

func badEnds() []badEnd {
	refusal, unoffered := byte(socks5.MethodUnacceptable), byte(socks5.MethodUserPass)
	greeting, auth, request := sapsocksemu.StepGreeting, sapsocksemu.StepAuth, sapsocksemu.StepRequest
	reply := func(code socks5.Code) sapsocksemu.Faults { return sapsocksemu.Faults{Reply: byte(code)} }
	token := func(f sapsocksemu.TokenFaults) sapsocksemu.Faults { return sapsocksemu.Faults{Token: f} }
	ends := []badEnd{
		{"offers no method", sapsocksemu.Faults{Method: &refusal}, "handshake", ""},
		{"chooses a method that was not offered", sapsocksemu.Faults{Method: &unoffered}, "handshake", ""},
		{"refuses the token", sapsocksemu.Faults{AuthStatus: 1}, "handshake", "unauthenticated"},
		{"refuses the token by reply 05", sapsocksemu.Faults{AuthStatus: 1, RefuseByReply: true}, "", "unauthenticated"},
		{"REP 01", reply(1), "request", "unavailable"},
		{"REP 02", reply(2), "request", "denied"},
		{"REP 03", reply(3), "request", "unavailable"},
		{"REP 04", reply(4), "request", "unreachable"},
		{"REP 05", reply(5), "", "unauthenticated"},
		{"REP 06", reply(6), "request", ""},
		{"REP 07", reply(7), "request", ""},
		{"REP 08", reply(8), "request", ""},
		{"REP 42", reply(0x42), "request", ""},
		{"REP 02 in two bytes", sapsocksemu.Faults{Reply: 2, ShortReply: true}, "request", "denied"},
		{"REP 02 in two bytes and no end", sapsocksemu.Faults{Reply: 2, HalfReply: true}, "request", "denied"},
		{"REP 02 byte by byte", sapsocksemu.Faults{Reply: 2, Bytewise: true}, "request", "denied"},
		{"the token service is broken", token(sapsocksemu.TokenFaults{Status: 500}), "credential", "unavailable"},
		{"the token service refuses", token(sapsocksemu.TokenFaults{Status: 401}), "credential", "unauthenticated"},
		{"the token service is busy", token(sapsocksemu.TokenFaults{Status: 429, RetryAfter: "7"}), "credential", ""},
		{"the token service is silent", token(sapsocksemu.TokenFaults{Silent: true}), "credential", "timeout"},
		{"the token service answers a page", token(sapsocksemu.TokenFaults{Body: "<html>", ContentType: "text/html"}), "credential", ""},
		{"the token service answers half", token(sapsocksemu.TokenFaults{BreakOff: true}), "credential", ""},
		{"the token service answers without an end", token(sapsocksemu.TokenFaults{Huge: true}), "credential", ""},
		{"the token service sends elsewhere", token(sapsocksemu.TokenFaults{Redirect: "http://127.0.0.1:1/"}), "credential", ""},
	}
	for name, step := range map[string]sapsocksemu.Step{"greeting": greeting, "authentication": auth, "request": request} {
		stage := "handshake"
		if step == request {
			stage = "request"
		}
		ends = append(ends,
			badEnd{"is silent at the " + name, sapsocksemu.Faults{Silent: step}, stage, "timeout"},
			badEnd{"closes at the " + name, sapsocksemu.Faults{CloseAt: step}, "", ""},
			badEnd{"resets at the " + name, sapsocksemu.Faults{CloseAt: step, Reset: true}, "", ""},
			badEnd{"answers the " + name + " with garbage", sapsocksemu.Faults{Garbage: step}, "", "protocol"},
		)
	}
	return ends
}

const quickTimeouts = "timeouts {\n connect = \"2s\"\n handshake = \"1500ms\"\n }"

// TestBadFarEnds: whatever a far end does wrong, the client is reset before a
// single byte, and one line of the log says where, why and what to check.
func TestBadFarEnds(t *testing.T) {
	ends := badEnds()
	var config strings.Builder
	for i, e := range ends {
		s := startSapsocks(t, sapsocksemu.Options{Faults: e.faults})
		name := fmt.Sprint("n", i)
		config.WriteString(strings.Replace(s.upstream(quickTimeouts), `"onprem"`, fmt.Sprintf("%q", name), 1) +
			listener(name, "127.0.0.1:0", "db.corp:5432", "") +
			route(name, "match {\n listeners = [listener.tcp."+name+"]\n }", "upstream.sapsocks."+name))
	}
	d := startDaemon(t, config.String())
	t.Run("all", func(t *testing.T) {
		for i, e := range ends {
			t.Run(e.name, func(t *testing.T) {
				t.Parallel()
				id := fmt.Sprint("tcp.n", i)
				d.dialReset(t, id)
				line := d.log.Await(t, 1, "msg", "connection failed", "listener", id)[0]
				stage, reason := fmt.Sprint(line["stage"]), fmt.Sprint(line["reason"])
				if e.stage != "" && stage != e.stage || e.reason != "" && reason != e.reason || stage == "unknown" || reason == "unknown" {
					t.Errorf("stage %s, reason %s; want %s, %s", stage, reason, e.stage, e.reason)
				}
				if hint, _ := line["hint"].(string); hint == "" {
					t.Errorf("no hint in %v", line)
				}
				lines := d.log.Matching("conn", fmt.Sprint(line["conn"]))
				lines = slices.DeleteFunc(lines, func(l map[string]any) bool { return l["level"] == "DEBUG" })
				if len(lines) != 1 {
					t.Errorf("%d lines for one connection", len(lines))
				}
			})
		}
	})
	if died := d.log.Matching("msg", "plugin died"); len(died) > 0 {
		t.Errorf("a far end killed the plugin: %v", died)
	}
}

// TestAnswerOfAProxyListener: the first word that a client hears is the outcome,
// however long it takes, in its own protocol.
func TestAnswerOfAProxyListener(t *testing.T) {
	s := startSapsocks(t, sapsocksemu.Options{})
	d := startDaemon(t, s.upstream(quickTimeouts)+
		"listener \"socks5\" \"apps\" {\n address = \"127.0.0.1:0\"\n"+nettest.OpenTargets+"}\nlistener \"http\" \"web\" {\n address = \"127.0.0.1:0\"\n"+nettest.OpenTargets+"}\n"+
		route("all", "match {\n ports = [5432]\n }", "upstream.sapsocks.onprem"))
	tests := []struct {
		name    string
		target  string
		faults  sapsocksemu.Faults
		status  int
		answer  byte
		details string
	}{
		{"it works, slowly", "db.corp:5432", sapsocksemu.Faults{Delay: 50 * time.Millisecond, Bytewise: true}, 200, 0, ""},
		{"silent", "db.corp:5432", sapsocksemu.Faults{Silent: sapsocksemu.StepRequest}, 504, 4, "connection_timeout"},
		{"refused by the far end", "db.corp:5432", sapsocksemu.Faults{Reply: 2}, 403, 2, "http_request_denied"},
		{"no route", "db.corp:99", sapsocksemu.Faults{}, 403, 2, "no route matches"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s.emu.SetFaults(tt.faults)
			web := d.dial(t, "http.web")
			// What is sent ahead of the answer waits for the tunnel.
			send(t, web, "CONNECT "+tt.target+" HTTP/1.1\r\nHost: "+tt.target+"\r\n\r\nearly")
			r := bufio.NewReader(web)
			res, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect})
			if err != nil || res.StatusCode != tt.status {
				t.Fatalf("%v, %v; want status %d", res, err, tt.status)
			}
			if status := res.Header.Get("Proxy-Status"); !strings.Contains(status, tt.details) {
				t.Errorf("Proxy-Status: %s", status)
			}
			wantEarly(t, r, tt.status == 200)

			apps := d.dial(t, "socks5.apps")
			host, port := splitAddress(tt.target)
			var n uint16
			if _, err := fmt.Sscan(port, &n); err != nil {
				t.Fatal(err)
			}
			request := append([]byte{5, 1, 0, 5, 1, 0, 3, byte(len(host))}, host...)
			send(t, apps, string(append(request, byte(n>>8), byte(n)))+"early")
			answer := make([]byte, 12) // of both steps
			if _, err := io.ReadFull(apps, answer); err != nil || answer[1] != 0 || answer[3] != tt.answer {
				t.Fatalf("%x, %v; want reply %d", answer, err, tt.answer)
			}
			wantEarly(t, apps, tt.answer == 0)
		})
	}
}

// wantEarly expects the echo of what was sent ahead through a tunnel.
func wantEarly(t *testing.T, r io.Reader, tunnel bool) {
	t.Helper()
	if !tunnel {
		return
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(r, b); err != nil || string(b) != "early" {
		t.Errorf("%q, %v", b, err)
	}
}
