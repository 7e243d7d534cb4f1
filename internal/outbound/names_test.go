//go:build linux

package outbound

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/tunneld/tunneld/internal/neterr"
	"github.com/tunneld/tunneld/internal/nettest"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// zone is what a name server knows.
type zone = nettest.Zone

// nameServer answers from a zone.
func nameServer(t *testing.T, z zone, hold func(dnsmessage.Question) bool) *net.Resolver {
	t.Helper()
	return nettest.ResolverAt(nettest.ServeNames(t, z, hold))
}

// served is a listener on each of the addresses with one port, which it returns.
func served(t *testing.T, hosts ...string) (port string) {
	t.Helper()
	for range 20 {
		var all []net.Listener
		port = "0"
		for _, host := range hosts {
			ln, err := net.Listen("tcp", net.JoinHostPort(host, port))
			if err != nil {
				break
			}
			_, port, _ = net.SplitHostPort(ln.Addr().String())
			all = append(all, ln)
		}
		if len(all) == len(hosts) {
			for _, ln := range all {
				t.Cleanup(func() { _ = ln.Close() })
			}
			return port
		}
		for _, ln := range all {
			_ = ln.Close()
		}
	}
	t.Fatalf("no port is free on all of %v", hosts)
	return ""
}

// connected dials and returns the host that answered.
func connected(t *testing.T, d *Dialer, address string, limit time.Duration) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	conn, err := d.Dial(ctx, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	host, _, _ := net.SplitHostPort(conn.RemoteAddr().String())
	return host
}

// lostTime is less than the 5 s that the resolver waits for an answer.
const lostTime = 4 * time.Second

func TestLostAnswerForIPv6(t *testing.T) {
	port := served(t, "127.0.0.1")
	r := nameServer(t, zone{"far.test.": "127.0.0.1 ::1"}, func(q dnsmessage.Question) bool { return q.Type != dnsmessage.TypeAAAA })
	if host := connected(t, &Dialer{Resolver: r}, "far.test.:"+port, lostTime); host != "127.0.0.1" {
		t.Errorf("connected to %s", host)
	}
}

func TestLateAnswerForIPv6JoinsTheRace(t *testing.T) {
	port := served(t, "::1")
	tried := make(chan struct{})
	r := nameServer(t, zone{"far.test.": "127.0.0.1 ::1"}, func(q dnsmessage.Question) bool {
		if q.Type == dnsmessage.TypeAAAA {
			<-tried
		}
		return true
	})
	race := Race[net.Conn]{
		Resolver: r,
		Attempt: func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			if to.Addr().Is4() { // it hangs until IPv6 is there
				close(tried)
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return new(net.Dialer).DialContext(ctx, "tcp", to.String())
		},
	}
	ctx, cancel := context.WithTimeout(t.Context(), lostTime)
	defer cancel()
	conn, err := race.Connect(ctx, "far.test.:"+port)
	if err != nil {
		t.Fatal(err)
	}
	if host, _, _ := net.SplitHostPort(conn.RemoteAddr().String()); host != "::1" {
		t.Errorf("connected to %s", host)
	}
	_ = conn.Close()
}

func TestFirstAddressesHang(t *testing.T) {
	hanging := []string{"127.0.1.1", "127.0.1.2", "127.0.1.3"}
	port := served(t, "127.0.1.9")
	for _, host := range hanging {
		blackHole(t, host, port)
	}
	r := nameServer(t, zone{"far.test.": strings.Join(hanging, " ") + " 127.0.1.9"}, nil)
	if host := connected(t, &Dialer{Resolver: r}, "far.test.:"+port, time.Minute); host != "127.0.1.9" {
		t.Errorf("connected to %s", host)
	}
}

func TestUnknownName(t *testing.T) {
	r := nameServer(t, zone{}, nil)
	_, err := (&Dialer{Resolver: r}).Dial(t.Context(), "far.test.:80", nil)
	if err == nil || !strings.HasPrefix(err.Error(), "dial tcp: lookup far.test.") || !strings.HasSuffix(err.Error(), ": no such host") {
		t.Errorf("%v", err)
	}
}

// TestNameBeyondASCII: name servers know it in ASCII.
func TestNameBeyondASCII(t *testing.T) {
	port := served(t, "127.0.0.1")
	r := nameServer(t, zone{"xn--bcher-kva.test.": "127.0.0.1"}, nil)
	for _, name := range []string{"bücher.test.", "BÜCHER。test.", "xn--bcher-kva.test."} {
		if host := connected(t, &Dialer{Resolver: r}, name+":"+port, time.Minute); host != "127.0.0.1" {
			t.Errorf("%s: connected to %s", name, host)
		}
	}
	_, err := (&Dialer{Resolver: r}).Dial(t.Context(), "ü_b.test:80", nil)
	if m := neterr.Classify(err); m.Reason != pluginv1.Reason_REASON_NOT_FOUND || m.Hint == "" {
		t.Errorf("%v, %+v", err, m)
	}
}

// TestNameOfSeveralAddresses: those that are not allowed are not connected to.
func TestNameOfSeveralAddresses(t *testing.T) {
	const near = "127.0.1.1 127.0.1.2 ::1"
	port := served(t, "127.0.1.1", "127.0.1.2", "127.0.1.9")
	r := nameServer(t, zone{"far.test.": near + " 127.0.1.9", "near.test.": near}, nil)
	d := &Dialer{Resolver: r, Allow: denyAll(near)}
	if host := connected(t, d, "far.test.:"+port, time.Minute); host != "127.0.1.9" {
		t.Errorf("connected to %s", host)
	}
	_, err := d.Dial(t.Context(), "near.test.:"+port, nil)
	var failed *ConnectError
	if !errors.As(err, &failed) || len(failed.Denied) != 3 || len(failed.Tried) > 0 {
		t.Errorf("%v", err)
	}
}
