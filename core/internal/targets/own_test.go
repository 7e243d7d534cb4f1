package targets

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tunneld/tunneld/internal/cidr"
)

// TestOwnAddresses: every address that an interface has is this machine's.
func TestOwnAddresses(t *testing.T) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	own := NewOwn(nil)
	if err := own.Check(); err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		ip := netip.MustParsePrefix(a.String()).Addr()
		if n, err := own.network(ip); err != nil || !n.Contains(ip) {
			t.Errorf("%s: %s, %v", ip, n, err)
		}
	}
	for _, other := range []string{"192.0.2.199", "2001:db8::199"} {
		if n, err := own.network(netip.MustParseAddr(other)); err != nil || n.IsValid() {
			t.Errorf("%s: %s, %v", other, n, err)
		}
	}
	if n, err := own.network(netip.MustParseAddr("127.9.9.9")); err != nil || n.String() != "127.0.0.0/8" {
		t.Errorf("of the loopback interface: %s, %v", n, err)
	}
}

// TestOwnAddressesChange: an address that comes is known two seconds later at most, and
// they are not listed each time.
func TestOwnAddressesChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		listed, has := 0, "10.1.2.3"
		own := NewOwn(func() ([]netip.Prefix, error) {
			listed++
			return parse(t, has), nil
		})
		is := func(a string) bool {
			n, err := own.network(netip.MustParseAddr(a))
			return err == nil && n.IsValid()
		}
		if !is("10.1.2.3") || is("10.1.2.4") || listed != 1 {
			t.Fatalf("listed %d times", listed)
		}
		has = "10.1.2.4"
		time.Sleep(ownAge - time.Nanosecond)
		if !is("10.1.2.3") || listed != 1 {
			t.Errorf("listed %d times", listed)
		}
		time.Sleep(time.Nanosecond)
		if is("10.1.2.3") || !is("10.1.2.4") || listed != 2 {
			t.Errorf("listed %d times", listed)
		}
	})
}

// TestOwnAddressesAreNotKnown: any address may be this machine's then, and only an element
// that has no other opens it. What was known before does not count, and the next lookup tries
// again.
func TestOwnAddressesAreNotKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failure := errors.New("address family not supported")
		own := NewOwn(func() ([]netip.Prefix, error) { return parse(t, machine), failure })
		p := New(Options{Listener: "listener.http.web", Allow: parse(t, "0.0.0.0/0 ::/0 10.1.2.4"), Own: own})
		check := func(allowed bool, addresses ...string) {
			t.Helper()
			for _, a := range addresses {
				if err := p.Check(netip.MustParseAddr(a)); (err == nil) != allowed {
					t.Errorf("%s: %v", a, err)
				}
			}
		}
		check(false, "10.1.2.5", "8.8.8.8", "2001:db8::4", "64:ff9b::808:808", "127.0.0.1")
		check(true, "10.1.2.4")
		if own.Check() == nil {
			t.Error("no error")
		}
		known := failure
		failure = nil
		check(true, "10.1.2.5", "8.8.8.8")
		check(false, "10.1.2.3", "127.0.0.1")
		failure = known
		time.Sleep(ownAge)
		check(false, "10.1.2.5", "8.8.8.8")
		var refusal *Refusal
		if !errors.As(p.Check(netip.MustParseAddr("8.8.8.8")), &refusal) {
			t.Fatal("8.8.8.8 is allowed")
		}
		texts := Full("8.8.8.8", []*Refusal{refusal})
		if want := "clients of listener.http.web may not reach 8.8.8.8: perhaps an address of this machine, which cannot list them (address family not supported)"; texts.Message != want {
			t.Errorf("%s\nwant %s", texts.Message, want)
		}
		if !strings.Contains(texts.Hint, "AF_NETLINK") || !strings.Contains(texts.Hint, `"8.8.8.8/32"`) {
			t.Errorf("hint: %s", texts.Hint)
		}
	})
}

func BenchmarkPolicy(b *testing.B) {
	b.Run("list", func(b *testing.B) {
		own := NewOwn(nil)
		for b.Loop() {
			if err := own.Check(); err != nil {
				b.Fatal(err)
			}
		}
	})
	many := parse(b, machine)
	for i := range 1000 {
		many = append(many, cidr.Of(netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)})))
	}
	policy := New(Options{Allow: slices.Concat(parse(b, "0.0.0.0/0 ::/0"), many[:10]), Own: NewOwn(func() ([]netip.Prefix, error) { return many, nil })})
	for _, a := range []string{"8.8.8.8", "2001:db8::4", "64:ff9b::808:808"} {
		b.Run(fmt.Sprintf("check/%s", a), func(b *testing.B) {
			b.ReportAllocs()
			ip := netip.MustParseAddr(a)
			for b.Loop() {
				if err := policy.Check(ip); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
