package engine

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/core/status"
	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/proxytest"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// TestNewProcessBeginsAnew: what was heard by a plugin's process holds neither for the
// one that is started after its death, nor for one that takes its place. What the old one
// still says then is of no matter.
func TestNewProcessBeginsAnew(t *testing.T) {
	p := startPair(t)
	busy := toyOrder{Fail: "busy", RetryAfter: time.Hour}
	p.a.order(t, busy)
	p.goes(t, "toy.b")
	p.usable(t, &status.Unusable{Reason: "retry_after", Message: "busy", Until: within(maxRetryAfter)}, 1)
	if err := syscall.Kill(p.Status().Plugins[0].PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	p.log.Await(t, 1, "msg", usableAgain, "upstream", "toy.a")
	p.a, p.b = p.remotes[0].hand(t), p.remotes[1].hand(t)
	p.usable(t, nil, 2)
	p.goes(t, "toy.a")

	p.a.order(t, busy)
	p.goes(t, "toy.b")
	p.a.order(t, toyOrder{Wait: true})
	p.b.order(t, toyOrder{Wait: true})
	at, _ := p.at(t, "tcp.l")
	client, err := net.DialTimeout("tcp", at[0], patience)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	p.await(t, "no dial is under way", func(s status.Status) bool { return s.Plugins[0].Open == 1 })
	old, hands := p.current.Load().plugins[toyName], [2]*hand{p.a, p.b}
	if out := p.RestartPlugin(t.Context(), toyName); out.Error != "" {
		t.Fatal(out.Error)
	}
	p.a, p.b = p.remotes[0].hand(t), p.remotes[1].hand(t)
	p.usable(t, nil, 3)
	p.goes(t, "toy.a")

	hands[0].order(t, toyOrder{Health: "failing", Wait: true})
	p.await(t, "the old process has not reported", func(status.Status) bool {
		return slices.ContainsFunc(old.State().Upstreams, func(u *pluginv1.UpstreamStatus) bool { return u.GetHealth() == pluginv1.Health_HEALTH_FAILING })
	})
	hands[1].order(t, busy)
	hands[0].order(t, busy)
	if _, err := io.Copy(io.Discard, client); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client has %v", err)
	}
	p.retiring.Wait()
	p.usable(t, nil, 3)
	p.goes(t, "toy.a")
}

// TestAnotherProxyBeginsAnew: what a proxy has told holds for it alone.
func TestAnotherProxyBeginsAnew(t *testing.T) {
	full := nettest.Serve(t, func(c *net.TCPConn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n")
		}
	})
	config := func(echo, via string) string {
		return fmt.Sprintf("upstream \"direct\" \"d\" {\n via = \"http://%s\"\n}\nupstream \"direct\" \"e\" {}\nroute \"all\" {\n upstreams = [upstream.direct.d, upstream.direct.e]\n}\n", via) +
			fmt.Sprintf("listener \"tcp\" \"l\" {\n address = \"127.0.0.1:0\"\n target = %q\n}\n", echo)
	}
	r := start(t, nil, func(echo string) string { return config(echo, full) })
	at, _ := r.at(t, "tcp.l")
	visit(t, at[0])
	if is := r.upstream(t, "direct.d").Unusable; is == nil || is.Reason != "retry_after" {
		t.Fatalf("status %+v", is)
	}
	r.reload(t, config(r.echo, proxytest.HTTP(t, "").Addr))
	if is := r.upstream(t, "direct.d").Unusable; is != nil {
		t.Errorf("status %+v", is)
	}
	visit(t, at[0])
	r.log.Await(t, 1, "msg", "connection", "upstream", "direct.d")
}

// TestOnlyUpstreamOfARouteIsNotPassedOver, and the log does not say so, until a route has
// another.
func TestOnlyUpstreamOfARouteIsNotPassedOver(t *testing.T) {
	p := startPair(t)
	alone := strings.Replace(p.config(t, p.echo, "", ""), "[upstream.toy.a, upstream.toy.b]", "[upstream.toy.a]", 1)
	p.reload(t, alone)
	p.a.order(t, toyOrder{Fail: "busy", RetryAfter: time.Minute})
	at, _ := p.at(t, "tcp.l")
	wantReset(t, at[0])
	if is := p.upstream(t, "toy.a").Unusable; is == nil || is.Reason != "retry_after" {
		t.Errorf("status %+v", is)
	}
	logged := func(out int) {
		t.Helper()
		if n, back := len(p.log.Await(t, out, "msg", passedOver)), len(p.log.Matching("msg", usableAgain)); n != out || back != 0 {
			t.Errorf("%d and %d lines, want %d", n, back, out)
		}
	}
	logged(0)
	p.reload(t, p.config(t, p.echo, "", ""))
	logged(1)
	p.reload(t, alone)
	p.a.order(t, toyOrder{})
	p.goes(t, "toy.a")
	logged(1)
}
