package engine

import (
	"fmt"
	"io"
	"testing"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/socks5"
)

// TestRouteBySource: clients of one listener go different ways by their address.
// Linux has all of 127.0.0.0/8 on loopback.
func TestRouteBySource(t *testing.T) {
	r := start(t, nil, func(string) string {
		return `
upstream "direct" "d" {}
listener "socks5" "l" {
 address = "127.0.0.1:0"
` + nettest.OpenTargets + `}
route "apps" {
  match { sources = ["127.0.1.0/24", "127.0.0.1"] }
  upstreams = [upstream.direct.d]
}
`
	})
	addresses, _ := r.at(t, "socks5.l")
	for _, source := range []string{"127.0.0.1", "127.0.1.77"} {
		through(t, source, addresses[0], r.echo)
	}
	c := dialFrom(t, "127.0.2.1", addresses[0])
	b, err := socks5.AppendGreeting(nil, socks5.MethodNone)
	if err == nil {
		b, err = socks5.AppendRequest(b, socks5.Request{Command: socks5.Connect, Address: socks5.Address{Host: "db", Port: 1}})
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
	if heard, err := io.ReadAll(c); err != nil || len(heard) != 12 || heard[3] != byte(socks5.NotAllowed) {
		t.Errorf("a client that no route takes heard % x, %v", heard, err)
	}
	if out := r.reload(t, fmt.Sprintf(`
upstream "direct" "d" {}
listener "socks5" "l" {
 address = "127.0.0.1:0"
%s}
route "apps" {
  match { sources = [%q] }
  upstreams = [upstream.direct.d]
}
`, nettest.OpenTargets, "127.0.2.1")); out != "" {
		t.Errorf("reload: %s", out)
	}
	through(t, "127.0.2.1", addresses[0], r.echo)
}
