package outbound

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tunneld/tunneld/internal/proxytest"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// denyAll returns an Allow that refuses these addresses, separated by spaces.
func denyAll(denied string) func(netip.Addr) error {
	return func(ip netip.Addr) error {
		if slices.Contains(addrs(denied), ip) {
			return fmt.Errorf("%s is denied", ip)
		}
		return nil
	}
}

// TestRaceLeavesOut: an address that is not allowed is not tried, costs no time, and does not
// keep others from being tried.
func TestRaceLeavesOut(t *testing.T) {
	const ms = time.Millisecond
	refuses := attempt{0, syscall.ECONNREFUSED, false}
	resolve, connect := pluginv1.Stage_STAGE_RESOLVE, pluginv1.Stage_STAGE_CONNECT
	for name, tt := range map[string]struct {
		lookups map[string]lookup
		hosts   hosts
		denied  string
		want    string // connected to, or the error
		named   int    // the denied ones that the error has
		tried   []string
		stages  []pluginv1.Stage
	}{
		"the first": {
			map[string]lookup{"ip": {0, "10.0.0.1 10.0.0.2 fd00::1", nil}, "ip4": {after: -1}},
			hosts{"10.0.0.2": {}, "fd00::1": refuses}, "10.0.0.1",
			"10.0.0.2", 0, []string{"fd00::1 at 0s", "10.0.0.2 at 0s"}, []pluginv1.Stage{resolve, connect},
		},
		"one in the middle": {
			map[string]lookup{"ip": {0, "10.0.0.1 10.0.0.2 10.0.0.3", nil}, "ip4": {after: -1}},
			hosts{"10.0.0.3": {}}, "10.0.0.2",
			"10.0.0.3", 0, []string{"10.0.0.1 at 0s", "10.0.0.3 at 250ms"}, []pluginv1.Stage{resolve, connect},
		},
		"all but the one that refuses": {
			map[string]lookup{"ip": {0, "10.0.0.1 10.0.0.2 fd00::1", nil}, "ip4": {after: -1}},
			hosts{"10.0.0.2": refuses}, "10.0.0.1 fd00::1",
			"dial tcp 10.0.0.2:443: connection refused", 2, []string{"10.0.0.2 at 0s"}, []pluginv1.Stage{resolve, connect},
		},
		"all": {
			map[string]lookup{"ip": {0, "10.0.0.1 fd00::1", nil}, "ip4": {after: -1}},
			nil, "10.0.0.1 fd00::1",
			"10.0.0.1 is denied; fd00::1 is denied", 2, nil, []pluginv1.Stage{resolve},
		},
		"all of IPv4 while IPv6's are late": {
			map[string]lookup{"ip": {time.Second, "10.0.0.1 fd00::1", nil}, "ip4": {0, "10.0.0.1", nil}},
			hosts{"fd00::1": {}}, "10.0.0.1",
			"fd00::1", 0, []string{"fd00::1 at 1s"}, []pluginv1.Stage{resolve, connect},
		},
		"all of IPv4 while IPv6's never come": {
			map[string]lookup{"ip": {after: -1}, "ip4": {0, "10.0.0.1", nil}},
			nil, "10.0.0.1",
			"10.0.0.1 is denied", 1, nil, []pluginv1.Stage{resolve},
		},
		"those that are late": {
			map[string]lookup{"ip": {100 * ms, "10.0.0.1 fd00::1", nil}, "ip4": {0, "10.0.0.1", nil}},
			hosts{"10.0.0.1": {200 * ms, syscall.ECONNREFUSED, false}}, "fd00::1",
			"dial tcp 10.0.0.1:443: connection refused", 1, []string{"10.0.0.1 at 50ms"}, []pluginv1.Stage{resolve, connect},
		},
		"a mapped one": {
			map[string]lookup{"ip": {0, "::ffff:10.0.0.1", nil}, "ip4": {after: -1}},
			nil, "10.0.0.1",
			"10.0.0.1 is denied", 1, nil, []pluginv1.Stage{resolve},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCourse(&lookups{answers: tt.lookups}, tt.hosts)
				c.race.Allow = denyAll(tt.denied)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				got, err := c.race.Connect(ctx, "far.test:443")
				var failed *ConnectError
				if err != nil {
					got = err.Error()
				}
				if got != tt.want {
					t.Errorf("%s\nwant %s", got, tt.want)
				}
				if errors.As(err, &failed) && len(failed.Denied) != tt.named || failed == nil && tt.named > 0 {
					t.Errorf("%v, want %d denied addresses in it", err, tt.named)
				}
				if !slices.Equal(c.tried, tt.tried) {
					t.Errorf("tried %q, want %q", c.tried, tt.tried)
				}
				if !slices.Equal(c.stages, tt.stages) {
					t.Errorf("stages %v, want %v", c.stages, tt.stages)
				}
			})
		})
	}
}

// TestDeniedLiteral: nothing is tried, whatever else would be wrong with it.
func TestDeniedLiteral(t *testing.T) {
	c := newCourse(&lookups{}, hosts{"127.0.0.1": {}, "127.0.0.2": {}})
	c.race.Allow = denyAll("127.0.0.1 fe80::1%lo")
	for address, want := range map[string]string{"127.0.0.1:80": "127.0.0.1 is denied", "[fe80::1%lo]:80": "fe80::1%lo is denied"} {
		_, err := c.race.Connect(t.Context(), address)
		var failed *ConnectError
		if !errors.As(err, &failed) || len(failed.Denied) != 1 || len(failed.Tried) > 0 || err.Error() != want {
			t.Errorf("%s: %v", address, err)
		}
	}
	c.race.Bind = netip.MustParseAddr("fd00::1")
	if _, err := c.race.Connect(t.Context(), "127.0.0.1:80"); err == nil || err.Error() != "127.0.0.1 is denied" {
		t.Errorf("from an address of the other family: %v", err)
	}
	if len(c.tried)+len(c.stages) > 0 {
		t.Errorf("tried %q, in stages %v", c.tried, c.stages)
	}
}

// TestDeniedAddressesAreBounded: their number is the name server's.
func TestDeniedAddressesAreBounded(t *testing.T) {
	var all []string
	for i := range 200 {
		all = append(all, fmt.Sprintf("10.0.0.%d", i+1))
	}
	c := newCourse(&lookups{answers: map[string]lookup{"ip": {addrs: strings.Join(all, " ")}, "ip4": {after: -1}}}, nil)
	c.race.Allow = denyAll(strings.Join(all, " "))
	_, err := c.race.Connect(t.Context(), "far.test:443")
	if err == nil || !strings.HasSuffix(err.Error(), "and 192 more") || strings.Count(err.Error(), "10.0.0.") != maxAddresses {
		t.Errorf("%v", err)
	}
}

// TestAllowThroughProxy: of what a proxy is asked for only an IP address can be checked, and
// then it is not asked. Where the proxy itself is does not matter, and what goes without it
// is checked as ever.
func TestAllowThroughProxy(t *testing.T) {
	target := serve(t, greeter)
	_, port, _ := net.SplitHostPort(target)
	for name, proxy := range map[string]*proxytest.Proxy{"http": proxytest.HTTP(t, ""), "socks5": proxytest.SOCKS5(t, "", "")} {
		t.Run(name, func(t *testing.T) {
			d := &Dialer{Via: via(t, name+"://"+proxy.Addr), Allow: denyAll("127.0.0.1 ::1")}
			for _, address := range []string{target, "127.0.0.1.:" + port} {
				_, err := d.Dial(t.Context(), address, nil)
				var failed *ConnectError
				if !errors.As(err, &failed) || len(failed.Denied) != 1 || len(failed.Tried) > 0 {
					t.Errorf("%s: %v", address, err)
				}
			}
			if asked := proxy.Asked(); len(asked) > 0 {
				t.Errorf("the proxy was asked for %q", asked)
			}
			conn, err := d.Dial(t.Context(), "localhost:"+port, nil)
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.Close()
			if asked := proxy.Asked(); !slices.Equal(asked, []string{"localhost:" + port}) {
				t.Errorf("the proxy was asked for %q", asked)
			}
		})
	}
	t.Run("environment", func(t *testing.T) {
		unset(t)
		proxy := proxytest.HTTP(t, "")
		t.Setenv("HTTPS_PROXY", "http://"+proxy.Addr)
		t.Setenv("NO_PROXY", "near.test")
		d := &Dialer{
			Via: via(t, Environment), Allow: denyAll("127.0.0.1 ::1 10.0.0.1"),
			Resolver: &lookups{answers: map[string]lookup{"ip": {addrs: "10.0.0.1"}, "ip4": {addrs: "10.0.0.1"}}},
		}
		for _, address := range []string{"near.test:443", "localhost:" + port, target, "10.0.0.1:443"} {
			_, err := d.Dial(t.Context(), address, nil)
			var failed *ConnectError
			if !errors.As(err, &failed) || len(failed.Denied) != 1 || len(failed.Tried) > 0 {
				t.Errorf("%s: %v", address, err)
			}
		}
		if asked := proxy.Asked(); len(asked) > 0 {
			t.Errorf("the proxy was asked for %q", asked)
		}
	})
}
