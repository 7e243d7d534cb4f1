package outbound

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// lookups is a resolver: what it answers for each network, and when.
type lookups struct {
	answers map[string]lookup

	mu    sync.Mutex
	asked []string
}

type lookup struct {
	after time.Duration // negative: never
	addrs string
	err   error
}

func (l *lookups) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	l.mu.Lock()
	l.asked = append(l.asked, network)
	l.mu.Unlock()
	a := l.answers[network]
	if a.after < 0 {
		<-ctx.Done()
		return nil, &net.DNSError{Err: ctx.Err().Error(), Name: host, IsTimeout: true}
	}
	select {
	case <-time.After(a.after):
	case <-ctx.Done():
		return nil, &net.DNSError{Err: ctx.Err().Error(), Name: host, IsTimeout: true}
	}
	return addrs(a.addrs), a.err
}

func addrs(text string) (all []netip.Addr) {
	for _, s := range strings.Fields(text) {
		all = append(all, netip.MustParseAddr(s))
	}
	return all
}

// hosts says what becomes of an attempt at an address: after how long, and with
// which error. An address that is not there hangs until the attempt is ended.
type hosts map[string]attempt

type attempt struct {
	after time.Duration
	err   error
	stays bool // it goes on when it is ended
}

// course is a race that was run.
type course struct {
	race      Race[string]
	tried     []string // "address at time"
	stages    []pluginv1.Stage
	discarded []string
}

func newCourse(r Resolver, h hosts) *course {
	c := &course{}
	var mu sync.Mutex
	start := time.Now()
	c.race = Race[string]{
		Resolver: r,
		Enter:    func(s pluginv1.Stage) { c.stages = append(c.stages, s) },
		Attempt: func(ctx context.Context, to netip.AddrPort) (string, error) {
			mu.Lock()
			c.tried = append(c.tried, fmt.Sprintf("%s at %s", to.Addr(), time.Since(start)))
			mu.Unlock()
			opErr := func(err error) error {
				return &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(to), Err: err}
			}
			a, known := h[to.Addr().String()]
			end := ctx.Done()
			if a.stays {
				end = nil
			}
			var done <-chan time.Time
			if known {
				done = time.After(a.after)
			}
			select {
			case <-done:
			case <-end:
				return "", opErr(ctx.Err())
			}
			if a.err != nil {
				return "", opErr(a.err)
			}
			return to.Addr().String(), nil
		},
		Discard: func(made string) { c.discarded = append(c.discarded, made) },
	}
	return c
}

var notFound = &net.DNSError{Err: "no such host", Name: "far.test", IsNotFound: true}

func TestRace(t *testing.T) {
	const ms = time.Millisecond
	for name, tt := range map[string]struct {
		lookups map[string]lookup
		hosts   hosts
		want    string
		tried   []string
	}{
		"one address": {
			map[string]lookup{"ip": {20 * ms, "10.0.0.1", nil}, "ip4": {20 * ms, "10.0.0.1", nil}},
			hosts{"10.0.0.1": {}},
			"10.0.0.1", []string{"10.0.0.1 at 20ms"},
		},
		"the first hangs": {
			map[string]lookup{"ip": {0, "fd00::1 10.0.0.1", nil}, "ip4": {after: -1}},
			hosts{"10.0.0.1": {after: 30 * ms}},
			"10.0.0.1", []string{"fd00::1 at 0s", "10.0.0.1 at 250ms"},
		},
		"the first is slow and wins": {
			map[string]lookup{"ip": {0, "fd00::1 10.0.0.1", nil}, "ip4": {after: -1}},
			hosts{"fd00::1": {after: 300 * ms}, "10.0.0.1": {after: 100 * ms}},
			"fd00::1", []string{"fd00::1 at 0s", "10.0.0.1 at 250ms"},
		},
		"the first refuses": {
			map[string]lookup{"ip": {0, "fd00::1 10.0.0.1", nil}, "ip4": {after: -1}},
			hosts{"fd00::1": {10 * ms, syscall.ECONNREFUSED, false}, "10.0.0.1": {}},
			"10.0.0.1", []string{"fd00::1 at 0s", "10.0.0.1 at 10ms"},
		},
		"the families take turns": {
			map[string]lookup{"ip": {0, "fd00::1 fd00::2 fd00::3 10.0.0.1 10.0.0.2", nil}, "ip4": {after: -1}},
			hosts{"fd00::3": {}},
			"fd00::3", []string{"fd00::1 at 0s", "10.0.0.1 at 250ms", "fd00::2 at 500ms", "10.0.0.2 at 750ms", "fd00::3 at 1s"},
		},
		"the answer for IPv6 is lost": {
			map[string]lookup{"ip": {after: -1}, "ip4": {20 * ms, "10.0.0.1", nil}},
			hosts{"10.0.0.1": {}},
			"10.0.0.1", []string{"10.0.0.1 at 70ms"},
		},
		"both are there soon after IPv4's": {
			map[string]lookup{"ip": {60 * ms, "fd00::1 10.0.0.1", nil}, "ip4": {20 * ms, "10.0.0.1", nil}},
			hosts{"fd00::1": {}, "10.0.0.1": {}},
			"fd00::1", []string{"fd00::1 at 60ms"},
		},
		"both come late, and the one that is new joins": {
			map[string]lookup{"ip": {time.Second, "10.0.0.1 fd00::1", nil}, "ip4": {20 * ms, "10.0.0.1", nil}},
			hosts{"fd00::1": {}},
			"fd00::1", []string{"10.0.0.1 at 70ms", "fd00::1 at 1s"},
		},
		"both come late, within an attempt's own time": {
			map[string]lookup{"ip": {100 * ms, "fd00::1 10.0.0.1 10.0.0.2", nil}, "ip4": {0, "10.0.0.1 10.0.0.2", nil}},
			hosts{"fd00::1": {}},
			"fd00::1", []string{"10.0.0.1 at 50ms", "fd00::1 at 300ms"},
		},
		"IPv4's refuse before both come": {
			map[string]lookup{"ip": {time.Second, "10.0.0.1 fd00::1", nil}, "ip4": {0, "10.0.0.1", nil}},
			hosts{"10.0.0.1": {0, syscall.ECONNREFUSED, false}, "fd00::1": {}},
			"fd00::1", []string{"10.0.0.1 at 50ms", "fd00::1 at 1s"},
		},
		"there are none of IPv4": {
			map[string]lookup{"ip": {100 * ms, "fd00::1", nil}, "ip4": {0, "", notFound}},
			hosts{"fd00::1": {}},
			"fd00::1", []string{"fd00::1 at 100ms"},
		},
		"the lookup of both fails where IPv4's has not": {
			map[string]lookup{"ip": {30 * ms, "", &net.DNSError{Err: "server misbehaving"}}, "ip4": {0, "10.0.0.1", nil}},
			hosts{"10.0.0.1": {}},
			"10.0.0.1", []string{"10.0.0.1 at 30ms"},
		},
		"an address is mapped, and named twice": {
			map[string]lookup{"ip": {0, "::ffff:10.0.0.1 10.0.0.1 10.0.0.2", nil}, "ip4": {after: -1}},
			hosts{"10.0.0.2": {}},
			"10.0.0.2", []string{"10.0.0.1 at 0s", "10.0.0.2 at 250ms"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &lookups{answers: tt.lookups}
				c := newCourse(r, tt.hosts)
				made, err := c.race.Connect(t.Context(), "far.test:443")
				if err != nil || made != tt.want {
					t.Errorf("connected to %q, %v, want %q", made, err, tt.want)
				}
				if !slices.Equal(c.tried, tt.tried) {
					t.Errorf("tried %q, want %q", c.tried, tt.tried)
				}
				if want := []pluginv1.Stage{pluginv1.Stage_STAGE_RESOLVE, pluginv1.Stage_STAGE_CONNECT}; !slices.Equal(c.stages, want) {
					t.Errorf("stages %v, want %v", c.stages, want)
				}
				if slices.Contains(r.asked, "ip6") {
					t.Errorf("asked for %v: of ip6 alone the resolver may bring another host's", r.asked)
				}
			})
		})
	}
}

func TestRaceIsLost(t *testing.T) {
	const ms = time.Millisecond
	refuses := attempt{0, syscall.ECONNREFUSED, false}
	for name, tt := range map[string]struct {
		lookups map[string]lookup
		hosts   hosts
		bind    string
		limit   time.Duration
		want    string
		after   time.Duration
	}{
		"no such name": {
			map[string]lookup{"ip": {30 * ms, "", notFound}, "ip4": {0, "", notFound}},
			nil, "", time.Hour, "dial tcp: lookup far.test: no such host", 30 * ms,
		},
		"one address": {
			map[string]lookup{"ip": {0, "10.0.0.1", nil}, "ip4": {after: -1}},
			hosts{"10.0.0.1": refuses}, "", time.Hour,
			"dial tcp 10.0.0.1:443: connection refused", 0,
		},
		"all addresses": {
			map[string]lookup{"ip": {0, "fd00::1 10.0.0.1 10.0.0.2", nil}, "ip4": {after: -1}},
			hosts{"10.0.0.1": refuses, "10.0.0.2": {time.Second, syscall.EHOSTUNREACH, false}, "fd00::1": {2 * time.Second, syscall.ENETUNREACH, false}}, "", time.Hour,
			"dial tcp [fd00::1]:443: network is unreachable (also tried 10.0.0.1:443: connection refused; 10.0.0.2:443: no route to host)", 2 * time.Second,
		},
		"more addresses than are told": {
			map[string]lookup{"ip": {0, "10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.4 10.0.0.5 10.0.0.6 10.0.0.7 10.0.0.8 10.0.0.9 10.0.0.10", nil}, "ip4": {after: -1}},
			hosts{"10.0.0.1": refuses, "10.0.0.2": refuses, "10.0.0.3": refuses, "10.0.0.4": refuses, "10.0.0.5": refuses, "10.0.0.6": refuses, "10.0.0.7": refuses, "10.0.0.8": refuses, "10.0.0.9": refuses, "10.0.0.10": refuses}, "", time.Hour,
			"dial tcp 10.0.0.1:443: connection refused (also tried 10.0.0.2:443: connection refused; 10.0.0.3:443: connection refused; 10.0.0.4:443: connection refused; 10.0.0.5:443: connection refused; 10.0.0.6:443: connection refused; 10.0.0.7:443: connection refused; 10.0.0.8:443: connection refused; and 2 more)", 0,
		},
		"all hang": {
			map[string]lookup{"ip": {0, "fd00::1 10.0.0.1", nil}, "ip4": {after: -1}},
			nil, "", time.Second,
			"dial tcp [fd00::1]:443: context deadline exceeded (also tried 10.0.0.1:443: context deadline exceeded)", time.Second,
		},
		"the name server hangs": {
			map[string]lookup{"ip": {after: -1}, "ip4": {after: -1}},
			nil, "", time.Second,
			"dial tcp: lookup far.test: context deadline exceeded", time.Second,
		},
		"IPv4's refuse and the others never come": {
			map[string]lookup{"ip": {after: -1}, "ip4": {0, "10.0.0.1", nil}},
			hosts{"10.0.0.1": refuses}, "", time.Hour,
			"dial tcp 10.0.0.1:443: connection refused", resolutionDelay + lateGrace,
		},
		"IPv4's refuse and the time ends": {
			map[string]lookup{"ip": {after: -1}, "ip4": {0, "10.0.0.1", nil}},
			hosts{"10.0.0.1": refuses}, "", time.Second,
			"dial tcp 10.0.0.1:443: connection refused", time.Second,
		},
		"bound to the other family": {
			map[string]lookup{"ip": {0, "10.0.0.1", nil}},
			nil, "fd00::2", time.Hour, "far.test has only IPv4 addresses, and bind is an IPv6 one", 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCourse(&lookups{answers: tt.lookups}, tt.hosts)
				if tt.bind != "" {
					c.race.Bind = netip.MustParseAddr(tt.bind)
				}
				start := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), tt.limit)
				defer cancel()
				_, err := c.race.Connect(ctx, "far.test:443")
				if err == nil || err.Error() != tt.want {
					t.Errorf("%v\nwant %s", err, tt.want)
				}
				if after := time.Since(start); after != tt.after {
					t.Errorf("after %s, want %s", after, tt.after)
				}
			})
		})
	}
}

// TestLosersAreDiscarded: an attempt that is made although it was ended, and one
// that waits, leave nothing. The bubble fails where a goroutine is left.
func TestLosersAreDiscarded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCourse(&lookups{answers: map[string]lookup{"ip": {addrs: "10.0.0.1 10.0.0.2 10.0.0.3"}, "ip4": {after: -1}}},
			hosts{"10.0.0.2": {after: time.Second, stays: true}, "10.0.0.3": {after: 100 * time.Millisecond}})
		made, err := c.race.Connect(t.Context(), "far.test:443")
		if err != nil || made != "10.0.0.3" {
			t.Fatalf("connected to %q, %v", made, err)
		}
		if !slices.Equal(c.discarded, []string{"10.0.0.2"}) {
			t.Errorf("discarded %q", c.discarded)
		}
	})
}

func TestCancelledRaceLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCourse(&lookups{answers: map[string]lookup{"ip": {after: -1}, "ip4": {addrs: "10.0.0.1 10.0.0.2"}}},
			hosts{"10.0.0.2": {after: time.Minute, stays: true}})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := c.race.Connect(ctx, "far.test:443"); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		if !slices.Equal(c.discarded, []string{"10.0.0.2"}) {
			t.Errorf("discarded %q", c.discarded)
		}
	})
}

func TestAttemptsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all []string
		for i := range 2 * maxAttempts {
			all = append(all, fmt.Sprintf("10.0.0.%d", i+1))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*maxAttempts*attemptDelay)
		defer cancel()
		c := newCourse(&lookups{answers: map[string]lookup{"ip": {addrs: strings.Join(all, " ")}, "ip4": {after: -1}}}, nil)
		if _, err := c.race.Connect(ctx, "far.test:443"); err == nil || len(c.tried) != maxAttempts {
			t.Errorf("%d attempts at once, %v", len(c.tried), err)
		}
	})
}

func TestBindPicksTheFamily(t *testing.T) {
	for bind, want := range map[string]struct{ asked, made string }{
		"":          {"ip ip4", "fd00::1"},
		"127.0.0.1": {"ip ip4", "10.0.0.1"},
		"fd00::9":   {"ip", "fd00::1"},
	} {
		t.Run(bind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &lookups{answers: map[string]lookup{"ip": {addrs: "fd00::1 10.0.0.1"}, "ip4": {addrs: "10.0.0.1", after: time.Millisecond}}}
				c := newCourse(r, hosts{"fd00::1": {}, "10.0.0.1": {}})
				if bind != "" {
					c.race.Bind = netip.MustParseAddr(bind)
				}
				made, err := c.race.Connect(t.Context(), "far.test:443")
				if err != nil || made != want.made {
					t.Errorf("connected to %q, %v", made, err)
				}
				slices.Sort(r.asked)
				if got := strings.Join(r.asked, " "); got != want.asked {
					t.Errorf("asked for %s", got)
				}
			})
		})
	}
}

func TestLiteralsAreNotLookedUp(t *testing.T) {
	c := newCourse(&lookups{}, hosts{"127.0.0.1": {}, "fe80::1%lo": {}})
	for address, want := range maps.All(map[string]string{"127.0.0.1:80": "127.0.0.1", "[fe80::1%lo]:80": "fe80::1%lo"}) {
		if made, err := c.race.Connect(t.Context(), address); err != nil || made != want {
			t.Errorf("%s: %q, %v", address, made, err)
		}
	}
	c.race.Bind = netip.MustParseAddr("fd00::1")
	if _, err := c.race.Connect(t.Context(), "127.0.0.1:80"); err == nil || !strings.Contains(err.Error(), "127.0.0.1 has only IPv4 addresses") {
		t.Errorf("from an address of the other family: %v", err)
	}
	for _, address := range []string{"", "host", "host:", "host:0", "host:65536", "host:http", ":80", "[::1]"} {
		if made, err := c.race.Connect(t.Context(), address); err == nil {
			t.Errorf("%q: %q", address, made)
		}
	}
}

// TestCanceledAsTheAnswerComes: the error is the context's, and no address is missed.
func TestCanceledAsTheAnswerComes(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("the client left")
	r := resolverFunc(func() ([]netip.Addr, error) {
		cancel(cause)
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	})
	for range 100 {
		n := lookUp(ctx, r, "far.test", netip.Addr{})
		<-ctx.Done()
		if found, err := n.first(ctx); err == nil && len(found) == 0 || err != nil && !errors.Is(err, cause) {
			t.Errorf("%v, %v", found, err)
		}
		n.stop()
	}
}

type resolverFunc func() ([]netip.Addr, error)

func (f resolverFunc) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) { return f() }
