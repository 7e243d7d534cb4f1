package targets

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/cidr"
)

// parse reads networks, separated by spaces.
func parse(t testing.TB, written string) (networks []netip.Prefix) {
	t.Helper()
	for _, s := range strings.Fields(written) {
		n, problem := cidr.Parse(s)
		if problem != "" {
			t.Fatalf("%q: %s", s, problem)
		}
		networks = append(networks, n)
	}
	return networks
}

// ownAre are the addresses of a machine that has these.
func ownAre(t testing.TB, written string) *Own {
	all := parse(t, written)
	return NewOwn(func() ([]netip.Prefix, error) { return all, nil })
}

// machine is what the machine of the tests has.
const machine = "127.0.0.1 127.0.0.0/8 ::1 10.1.2.3 2001:db8::3 fe80::3 169.254.7.7 192.168.77.1 192.168.77.0/24"

func TestPolicy(t *testing.T) {
	for _, tt := range []struct {
		deny, allow string
		allowed     string
		refused     map[string]string // by address; part of why
	}{
		{
			allowed: "10.1.2.4 8.8.8.8 2001:db8::4 fd00::1 100.100.100.201 fd00:ec2::253 64:ff9b::808:808 64:ff9b:1::808:808 64:ff9b:1:808:8:800:: 240.0.0.1 2002:7f00:1::1 ::8.8.8.8 1.0.0.0 223.255.255.255 fec0::1 192.168.78.1",
			refused: map[string]string{
				"0.0.0.0": "an unspecified address (0.0.0.0/8)", "0.1.2.3": "unspecified", "0.255.255.255": "unspecified",
				"127.0.0.1": "a loopback address (127.0.0.0/8)", "127.0.0.0": "loopback", "127.255.255.255": "loopback",
				"169.254.0.0": "link-local", "169.254.255.255": "link-local", "169.254.169.254": "a cloud's metadata service",
				"100.100.100.200": "metadata", "224.0.0.1": "multicast", "239.255.255.255": "multicast", "255.255.255.255": "the broadcast address",
				"::": "the unspecified address", "::1": "the loopback address", "fe80::1": "link-local", "febf::1": "link-local", "ff02::1": "multicast", "ffff::1": "multicast",
				"fd00:ec2::254": "metadata", "fd00:ec2::23": "credentials", "fd20:ce::254": "metadata",
				"10.1.2.3": "an address of this machine", "2001:db8::3": "an address of this machine",
				// The network of an address of a loopback interface.
				"192.168.77.1": "an address of this machine", "192.168.77.99": "an address of this machine (192.168.77.0/24)",
				// A zone does not matter.
				"fe80::1%eth0": "link-local", "2001:db8::3%eth0": "this machine", "::1%lo": "loopback",
				// IPv4-mapped.
				"::ffff:127.0.0.1": "loopback", "::ffff:0.0.0.0": "unspecified", "::ffff:169.254.169.254": "metadata", "::ffff:10.1.2.3": "this machine", "::ffff:255.255.255.255": "broadcast", "::ffff:224.0.0.1": "multicast", "::ffff:127.0.0.1%lo": "loopback",
				// NAT64, IPv4-compatible and IPv4-translated.
				"64:ff9b::127.0.0.1": "as 127.0.0.1 a loopback address (127.0.0.0/8)", "64:ff9b::0.0.0.0": "unspecified", "64:ff9b::169.254.169.254": "metadata", "64:ff9b::10.1.2.3": "as 10.1.2.3 an address of this machine", "64:ff9b::224.0.0.1": "multicast", "64:ff9b::255.255.255.255": "broadcast", "64:ff9b::100.100.100.200": "metadata",
				"::127.0.0.1": "as 127.0.0.1 a loopback", "::10.1.2.3": "this machine", "::169.254.169.254": "metadata", "::ffff:0:127.0.0.1": "as 127.0.0.1 a loopback",
				// NAT64 with a prefix of 96, 64, 56 and 48 bits (RFC 6052, section 2.2), and with bits 64 to 71 and a suffix that are not zero.
				"64:ff9b:1::127.0.0.1": "loopback", "64:ff9b:1:2:3:4:127.0.0.1": "loopback",
				"64:ff9b:1:fffe:7f:0:100::": "as 127.0.0.1 a loopback", "64:ff9b:1:ff7f:0:1::": "as 127.0.0.1 a loopback", "64:ff9b:1:7f00:0:100::": "as 127.0.0.1 a loopback",
				"64:ff9b:1:a01:2:300::": "as 10.1.2.3 an address of this machine", "64:ff9b:1:7f00:ff00:100::": "loopback", "64:ff9b:1:7f00:0:1ff:ffff:ffff": "loopback", "64:ff9b:1:a9fe:a9:fe00::": "metadata",
				"64:ff9b:1::": "unspecified",
			},
		},
		{
			allow:   "10.0.0.0/8 fd00::/8",
			allowed: "10.1.2.4 10.255.255.255 fd00::1 ::ffff:10.1.2.4",
			refused: map[string]string{
				"11.0.0.1": "not in allow_targets", "2001:db8::4": "not in allow_targets", "64:ff9b::10.1.2.4": "not in allow_targets",
				"10.1.2.3": "an address of this machine", "fd00:ec2::254": "metadata", "127.0.0.1": "not in allow_targets", "::ffff:10.1.2.3": "this machine",
			},
		},
		{
			allow:   "0.0.0.0/0 ::/0",
			allowed: "10.1.2.4 8.8.8.8 2001:db8::4 64:ff9b::808:808",
			refused: map[string]string{
				"127.0.0.1": "loopback", "::1": "loopback", "0.0.0.0": "unspecified", "::": "unspecified", "169.254.169.254": "metadata", "fd00:ec2::254": "metadata",
				"10.1.2.3": "this machine", "192.168.77.99": "this machine", "64:ff9b::127.0.0.1": "loopback", "::ffff:127.0.0.1": "loopback", "224.0.0.1": "multicast",
			},
		},
		{
			allow:   "127.0.0.0/8 ::1",
			allowed: "127.0.0.1 127.9.9.9 ::1 ::ffff:127.0.0.1 ::1%lo",
			refused: map[string]string{"::": "not in", "0.0.0.0": "not in", "64:ff9b::127.0.0.1": "not in", "::127.0.0.1": "not in", "10.1.2.3": "not in"},
		},
		{allow: "127.0.0.1", allowed: "127.0.0.1", refused: map[string]string{"127.0.0.2": "not in allow_targets"}},
		{allow: "126.0.0.0/7", allowed: "126.0.0.1", refused: map[string]string{"127.0.0.1": "loopback"}},
		{allow: "::ffff:127.0.0.0/104", allowed: "127.0.0.1"},
		{allow: "10.1.2.3 10.0.0.0/8", allowed: "10.1.2.3 10.1.2.4"},
		{allow: "192.168.77.0/24", allowed: "192.168.77.99", refused: map[string]string{"192.168.77.1": "this machine"}},
		{allow: "192.168.77.0/25", allowed: "192.168.77.99", refused: map[string]string{"192.168.77.199": "not in"}},
		{allow: "192.168.0.0/16", allowed: "192.168.78.1", refused: map[string]string{"192.168.77.99": "this machine"}},
		{
			// A metadata service is not opened by the network around it, nor is this machine.
			allow: "169.254.0.0/16 fe80::/10", allowed: "169.254.1.1 fe80::1",
			refused: map[string]string{"169.254.169.254": "a cloud's metadata service", "169.254.7.7": "this machine", "fe80::3": "this machine", "fe80::3%eth0": "this machine"},
		},
		{allow: "169.254.169.254 fd00:ec2::254", allowed: "169.254.169.254 fd00:ec2::254 ::ffff:169.254.169.254", refused: map[string]string{"169.254.169.253": "not in", "64:ff9b::169.254.169.254": "not in"}},
		{allow: "64:ff9b::/96 ::/96", allowed: "64:ff9b::808:808", refused: map[string]string{"64:ff9b::127.0.0.1": "loopback", "::127.0.0.1": "loopback", "::1": "loopback", "::": "unspecified"}},
		{allow: "64:ff9b::7f00:0/104", allowed: "64:ff9b::127.0.0.1", refused: map[string]string{"127.0.0.1": "not in"}},
		{allow: "64:ff9b::10.1.2.3", allowed: "64:ff9b::10.1.2.3", refused: map[string]string{"10.1.2.3": "not in"}},
		{allow: "64:ff9b:1:7f00::/56", allowed: "64:ff9b:1:7f00:0:100::", refused: map[string]string{"64:ff9b:1:7e00:0:100::": "not in"}},
		{allow: "64:ff9b:1:7e00::/55", refused: map[string]string{"64:ff9b:1:7f00:0:100::": "loopback"}},
		{allow: "64:ff9b:1:fffe:7f::/80", allowed: "64:ff9b:1:fffe:7f:0:100::", refused: map[string]string{"64:ff9b:1:fffe:7e:0:100::": "not in"}},
		{allow: "64:ff9b:1:fffe::/72", refused: map[string]string{"64:ff9b:1:fffe:7f:0:100::": "loopback"}},
		{allow: "64:ff9b:1:a01:2:300::/88", allowed: "64:ff9b:1:a01:2:300::", refused: map[string]string{"64:ff9b:1:a01:2:400::": "not in"}},
		{allow: "64:ff9b:1:a01:2:200::/87", allowed: "64:ff9b:1:a01:2:200::", refused: map[string]string{"64:ff9b:1:a01:2:300::": "this machine"}},
		{
			deny: "10.0.0.0/8 fd00::/8", allowed: "11.0.0.1 2001:db8::4",
			refused: map[string]string{
				"10.1.2.4": "in 10.0.0.0/8 of deny_targets", "fd00::1": "in fd00::/8 of deny_targets", "10.1.2.3": "deny_targets", "fd00:ec2::254": "deny_targets", "127.0.0.1": "loopback",
				"::ffff:10.1.2.4": "in 10.0.0.0/8", "64:ff9b::10.1.2.4": "as 10.1.2.4 in 10.0.0.0/8 of deny_targets", "64:ff9b:1:a01:2:400::": "as 10.1.2.4 in 10.0.0.0/8",
			},
		},
		{
			deny: "127.0.0.1 10.1.0.0/16", allow: "127.0.0.0/8 10.0.0.0/8", allowed: "127.0.0.2 10.2.0.1",
			refused: map[string]string{"127.0.0.1": "in 127.0.0.1/32 of deny_targets", "10.1.2.4": "in 10.1.0.0/16 of deny_targets", "11.0.0.1": "not in allow_targets"},
		},
		{deny: "0.0.0.0/0", allow: "::/0 ::1", allowed: "2001:db8::4 ::1", refused: map[string]string{"8.8.8.8": "deny_targets", "64:ff9b::808:808": "deny_targets", "64:ff9b:1::808:808": "deny_targets", "::": "unspecified"}},
		{deny: "0.0.0.0/0 ::/0", allow: "0.0.0.0/0 ::/0", refused: map[string]string{"8.8.8.8": "deny_targets", "2001:db8::4": "deny_targets"}},
	} {
		t.Run(tt.deny+" but "+tt.allow, func(t *testing.T) {
			p := New(Options{Listener: "listener.socks5.apps", Deny: parse(t, tt.deny), Allow: parse(t, tt.allow), Own: ownAre(t, machine)})
			for _, a := range strings.Fields(tt.allowed) {
				if err := p.Check(netip.MustParseAddr(a)); err != nil {
					t.Errorf("%s: %v", a, err)
				}
			}
			for a, why := range tt.refused {
				err := p.Check(netip.MustParseAddr(a))
				var refusal *Refusal
				if !errors.As(err, &refusal) || !strings.Contains(refusal.why(), why) {
					t.Errorf("%s: %v, want %q", a, err, why)
				}
			}
		})
	}
}
