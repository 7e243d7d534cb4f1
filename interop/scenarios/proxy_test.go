//go:build interop

package interop

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/proctest"
)

// TestCurl is what the example's comment says, word by word, and what a user is
// told when it fails.
func TestCurl(t *testing.T) {
	curl := proctest.Tool(t, "curl")
	emu := connectivity(t, map[string]string{"intranet.corp:80": website(t, "intranet"), "down.corp:80": nettest.FreeAddress(t)})
	d := startExample(t, "proxy", emu)
	socks, web, all := d.addresses["socks5.apps"], "http://"+d.addresses["http.web"], d.addresses["mixed.all"]

	ways := map[string][]string{
		"socks5-hostname":        {"--socks5-hostname", socks},
		"proxytunnel":            {"--proxytunnel", "--proxy", web},
		"mixed, socks4a":         {"--proxy", "socks4a://user@" + all},
		"mixed, socks5-hostname": {"--socks5-hostname", all},
		"mixed, proxytunnel":     {"--proxytunnel", "--proxy", "http://" + all},
	}
	run := func(way, url string, more ...string) (string, error) {
		args := slices.Concat([]string{"--silent", "--show-error", "--max-time", "30", "--noproxy", ""}, ways[way], more, []string{url})
		return output(t, exec.Command(curl, args...))
	}
	for way := range ways {
		t.Run(way, func(t *testing.T) {
			if out, err := run(way, "http://intranet.corp/orders"); err != nil || out != "intranet/orders\n" {
				t.Errorf("%v: %q", err, out)
			}
			for url, want := range map[string]string{
				"http://down.corp/":          "unreachable",
				"http://unknown.corp/":       "denied",
				"http://intranet.corp:5432/": "denied", // by the route
				"http://example.com/":        "denied",
			} {
				if out, err := run(way, url, "--verbose"); err == nil || strings.HasSuffix(way, "proxytunnel") && !strings.Contains(out, "Proxy-Status: tunneld;") {
					t.Errorf("%s: %v\n%s", url, err, out)
				}
				target := strings.TrimSuffix(strings.TrimPrefix(url, "http://"), "/")
				if !strings.Contains(target, ":") {
					target += ":80"
				}
				d.await(1, "msg", "connection failed", "target", target, "reason", want)
			}
		})
	}
	if got, want := asked(emu), []string{"down.corp:80", "intranet.corp:80", "unknown.corp:80"}; !slices.Equal(got, want) {
		t.Errorf("the proxy was asked for %q, want %q", got, want)
	}
	t.Run("the wrong listener", func(t *testing.T) {
		out, err := run("proxytunnel", "http://intranet.corp/", "--proxy", "http://"+socks)
		if err == nil || !strings.Contains(out, "400") {
			t.Errorf("%v: %s", err, out)
		}
	})
	t.Run("SOCKS4", func(t *testing.T) {
		out, err := run("socks5-hostname", "http://intranet.corp/", "--proxy", "socks4a://"+socks)
		if err == nil || !strings.Contains(out, "91") {
			t.Errorf("%v: %s", err, out)
		}
	})
}
