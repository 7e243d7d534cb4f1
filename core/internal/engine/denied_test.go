package engine

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/proxytest"
)

// askWeb asks an http listener for a target, and returns the status and what the client
// reads of a refusal.
func askWeb(t *testing.T, r *rig, target string) (status int, body, header string) {
	t.Helper()
	at, _ := r.at(t, "http.web")
	c := dialFrom(t, "127.0.0.1", at[0])
	defer c.Close()
	if _, err := fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\n\r\n", target); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: http.MethodConnect})
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode == http.StatusOK {
		return res.StatusCode, "", ""
	}
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text), res.Header.Get("Proxy-Status")
}

// web is a configuration with an http listener that has these lines.
func web(lines, upstreams string) string {
	return "upstream \"direct\" \"x\" {}\nlistener \"http\" \"web\" {\n address = \"127.0.0.1:0\"\n" + lines + "}\nroute \"all\" {\n upstreams = [" + upstreams + "]\n}\n"
}

// TestNameOfDeniedAddresses: who asked for a name is told the rule, and only the log the
// addresses; those that are allowed are dialed.
func TestNameOfDeniedAddresses(t *testing.T) {
	server := nettest.ServeNames(t, nettest.Zone{
		"inside.test.": "127.0.3.1 127.0.3.2",
		"both.test.":   "127.0.3.1 127.0.0.1",
		"dead.test.":   "127.0.3.1 127.0.4.1",
	}, nil)
	r := startWith(t, nil, func(string) string {
		return web(" allow_targets = [\"127.0.0.0/16\"]\n deny_targets = [\"127.0.3.0/24\"]\n", "upstream.direct.x")
	}, func(o *Options) { o.resolver = nettest.ResolverAt(server) })
	_, port, err := net.SplitHostPort(r.echo)
	if err != nil {
		t.Fatal(err)
	}
	if status, body, _ := askWeb(t, r, "both.test.:"+port); status != http.StatusOK {
		t.Errorf("a name with an address that is allowed: %d\n%s", status, body)
	}
	status, body, header := askWeb(t, r, "inside.test.:"+port)
	const told = "stage: resolve\nreason: denied\nclients of listener.http.web may not reach inside.test.: in deny_targets\nwhoever runs the proxy finds in its log what to write in listener.http.web to allow it\n"
	if status != http.StatusForbidden || body != told || strings.Contains(header, "127.0.3") {
		t.Errorf("%d, %s\n%s", status, header, body)
	}
	line := r.log.Await(t, 1, "msg", "connection failed", "stage", "resolve", "reason", "denied")[0]
	for key, want := range map[string]string{
		"err":  "clients of listener.http.web may not reach inside.test. at 127.0.3.1, in 127.0.3.0/24 of deny_targets; 127.0.3.2, in 127.0.3.0/24 of deny_targets",
		"hint": "to allow it, take 127.0.3.0/24 out of deny_targets in listener.http.web, or write smaller networks there",
	} {
		if line[key] != want {
			t.Errorf("%s: %v\nwant %s", key, line[key], want)
		}
	}
	// Nothing listens on the port there.
	status, body, header = askWeb(t, r, "dead.test.:"+port)
	if status != http.StatusBadGateway || !strings.Contains(body, "reason: refused\ndial tcp 127.0.4.1:"+port+": ") || strings.Contains(body+header, "127.0.3") {
		t.Errorf("%d, %s\n%s", status, header, body)
	}
	line = r.log.Await(t, 1, "msg", "connection failed", "stage", "connect", "reason", "refused")[0]
	if text, _ := line["err"].(string); !strings.HasSuffix(text, "; not dialed: 127.0.3.1, in 127.0.3.0/24 of deny_targets") {
		t.Errorf("%v", line["err"])
	}
}

// TestDenialIsTheListeners: the route's next upstream is not tried, and the one that refused
// is not passed over.
func TestDenialIsTheListeners(t *testing.T) {
	r := start(t, nil, func(string) string {
		return "upstream \"direct\" \"y\" {}\n" + web("", "upstream.direct.x, upstream.direct.y")
	})
	for range 3 {
		if status, body, _ := askWeb(t, r, r.echo); status != http.StatusForbidden || !strings.Contains(body, `allow_targets = ["127.0.0.1/32"] in listener.http.web`) {
			t.Errorf("%d\n%s", status, body)
		}
	}
	r.log.Await(t, 3, "msg", "connection failed", "upstream", "direct.x", "stage", "request", "reason", "denied")
	if tried := r.log.Matching("msg", "upstream failed, the next is tried"); len(tried) > 0 {
		t.Errorf("%v", tried)
	}
	for _, id := range []string{"direct.x", "direct.y"} {
		if u := r.upstream(t, id); u.Unusable != nil {
			t.Errorf("%s: %+v", id, u.Unusable)
		}
	}
}

// TestDeniedBehindAProxy: an IP address is refused before the proxy is asked, and a name is
// the proxy's to resolve.
func TestDeniedBehindAProxy(t *testing.T) {
	proxy := proxytest.HTTP(t, "")
	r := start(t, nil, func(string) string {
		return strings.Replace(web("", "upstream.direct.x"), "\"x\" {}", fmt.Sprintf("\"x\" { via = \"http://%s\" }", proxy.Addr), 1)
	})
	_, port, err := net.SplitHostPort(r.echo)
	if err != nil {
		t.Fatal(err)
	}
	if status, body, _ := askWeb(t, r, r.echo); status != http.StatusForbidden || !strings.Contains(body, "a loopback address") {
		t.Errorf("%d\n%s", status, body)
	}
	if status, body, _ := askWeb(t, r, "localhost:"+port); status != http.StatusOK {
		t.Errorf("%d\n%s", status, body)
	}
	if asked := proxy.Asked(); !slices.Equal(asked, []string{"localhost:" + port}) {
		t.Errorf("the proxy was asked for %q", asked)
	}
}

// TestTargetOfTheConfiguration: it may be anything.
func TestTargetOfTheConfiguration(t *testing.T) {
	r := start(t, nil, func(echo string) string {
		return fmt.Sprintf("upstream \"direct\" \"x\" {}\nlistener \"tcp\" \"fixed\" {\n address = \"127.0.0.1:0\"\n target = %q\n}\nroute \"all\" {\n upstreams = [upstream.direct.x]\n}\n", echo)
	})
	at, _ := r.at(t, "tcp.fixed")
	visit(t, at[0])
	if notes := r.log.Matching("msg", "configuration note"); len(notes) > 0 {
		t.Errorf("%v", notes)
	}
}

// TestAddressesOfTheMachineAreNotKnown: what may be its own is refused, and a start and a
// reload say why; what the listener names by itself is not.
func TestAddressesOfTheMachineAreNotKnown(t *testing.T) {
	r := startWith(t, nil, func(string) string {
		return web(" allow_targets = [\"0.0.0.0/0\", \"127.0.0.1\"]\n", "upstream.direct.x")
	}, func(o *Options) {
		o.own = func() ([]netip.Prefix, error) { return nil, syscall.EAFNOSUPPORT }
	})
	line := r.log.Await(t, 1, "msg", "configuration problem", "level", "WARN", "summary", "This machine's addresses cannot be listed")[0]
	if detail, _ := line["detail"].(string); !strings.Contains(detail, "address family not supported") || !strings.Contains(detail, "AF_NETLINK") {
		t.Errorf("%v", line)
	}
	if status, body, _ := askWeb(t, r, "192.0.2.1:443"); status != http.StatusForbidden || !strings.Contains(body, "perhaps an address of this machine") || !strings.Contains(body, "AF_NETLINK") {
		t.Errorf("%d\n%s", status, body)
	}
	if status, body, _ := askWeb(t, r, r.echo); status != http.StatusOK {
		t.Errorf("%d\n%s", status, body)
	}
	if out := r.reload(t, web("", "upstream.direct.x")); !strings.Contains(out, "cannot be listed") {
		t.Errorf("reload: %s", out)
	}
}
