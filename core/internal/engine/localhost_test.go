package engine

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// names is what the resolver of a test says.
type names struct {
	atomic.Pointer[map[string][]string]
}

func (n *names) set(m map[string][]string) { n.Store(&m) }

func (n *names) lookup(_ context.Context, host string) ([]netip.Addr, error) {
	var ips []netip.Addr
	for _, text := range (*n.Load())[strings.ToLower(host)] {
		ips = append(ips, netip.MustParseAddr(text))
	}
	if len(ips) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return ips, nil
}

// listeners is a configuration with a listener at each address, "a" and so on,
// and one with more blocks.
func listeners(echo, more string, addresses ...string) string {
	text := "upstream \"direct\" \"x\" {}\nroute \"all\" {\n upstreams = [upstream.direct.x]\n}\n" + more
	for i, a := range addresses {
		text += fmt.Sprintf("listener \"tcp\" %q {\n address = %q\n target = %q\n open = true\n}\n", string(rune('a'+i)), a, echo)
	}
	return text
}

var both = map[string][]string{"localhost": {"::1", "127.0.0.1", "127.0.0.1"}}

// TestLocalhostIsAllItsAddresses: a listener on localhost, and the metrics, are
// reached by each loopback address that the name has, on the same port.
func TestLocalhostIsAllItsAddresses(t *testing.T) {
	needIPv6(t)
	r := start(t, both, func(echo string) string {
		return listeners(echo, "metrics {\n address = \"localhost:0\"\n}\n", "localhost:0")
	})
	addresses, port := r.at(t, "tcp.a")
	if want := []string{"127.0.0.1:" + port, "[::1]:" + port}; !slices.Equal(addresses, want) {
		t.Fatalf("addresses %q, want %q", addresses, want)
	}
	for _, a := range addresses {
		visit(t, a)
	}
	if r.Status().Listeners[0].Connections > 2 {
		t.Errorf("%+v", r.Status().Listeners)
	}
	metrics := r.metricsSockets()
	if len(metrics) != 2 || metrics[0].bound().addr.Port() != metrics[1].bound().addr.Port() {
		t.Fatalf("%d sockets of the metrics", len(metrics))
	}
	for _, m := range metrics {
		scrape(t, m.bound())
	}

	// A reload leaves each socket alone, whatever else changes.
	before := r.sockets("tcp.a")
	r.reload(t, listeners(r.echo, "metrics {\n address = \"localhost:0\"\n}\nlog {\n level = \"debug\"\n}\n", "localhost:0", "127.0.0.1:0"))
	if now := r.sockets("tcp.a"); !slices.Equal(now, before) {
		t.Errorf("the sockets are others")
	}
	if now := r.metricsSockets(); !slices.Equal(now, metrics) {
		t.Errorf("the metrics have other sockets")
	}
	// So does one that names what the system has picked, or one of the two.
	r.reload(t, listeners(r.echo, "", "localhost:"+port))
	if now := r.sockets("tcp.a"); !slices.Equal(now, before) {
		t.Errorf("the sockets are others")
	}
	r.retiring.Wait()
	wantRefused(t, metrics[0].bound().String())
	wantRefused(t, metrics[1].bound().String())
	r.reload(t, listeners(r.echo, "", "127.0.0.1:"+port))
	if now := r.sockets("tcp.a"); !slices.Equal(now, before[:1]) {
		t.Errorf("the socket is another")
	}
	wantRefused(t, "[::1]:"+port)
	visit(t, "127.0.0.1:"+port)
}

// TestNameThatChanges: a reload follows the name, and the sockets that stay are
// the same ones. A name that cannot be resolved now costs nothing that is there.
func TestNameThatChanges(t *testing.T) {
	needIPv6(t)
	one := map[string][]string{"localhost": {"127.0.0.1"}}
	metrics := "metrics {\n address = \"localhost:0\"\n}\n"
	// The port that the system picks is to be free on both.
	r := start(t, both, func(echo string) string { return listeners(echo, metrics, "localhost:0") })
	r.names.set(one)
	r.reload(t, listeners(r.echo, metrics, "localhost:0"))
	before, metricsBefore := r.sockets("tcp.a"), r.metricsSockets()
	_, port := r.at(t, "tcp.a")
	wantRefused(t, "[::1]:"+port)
	for range 3 {
		r.names.set(both)
		r.reload(t, listeners(r.echo, metrics, "localhost:0"))
		if now := r.sockets("tcp.a"); len(now) != 2 || now[0] != before[0] {
			t.Fatalf("%d sockets, or the first is another", len(now))
		}
		visit(t, "[::1]:"+port)
		now := r.metricsSockets()
		if len(now) != 2 || now[0] != metricsBefore[0] {
			t.Fatalf("the metrics have %d sockets, or the first is another", len(now))
		}
		scrape(t, now[0].bound())
		scrape(t, now[1].bound())

		r.names.set(map[string][]string{})
		r.reload(t, listeners(r.echo, metrics, "localhost:0"))
		visit(t, "[::1]:"+port)
		visit(t, "127.0.0.1:"+port)

		r.names.set(one)
		r.reload(t, listeners(r.echo, metrics, "localhost:0"))
		wantRefused(t, "[::1]:"+port)
		wantRefused(t, now[1].bound().String())
		visit(t, "127.0.0.1:"+port)
		scrape(t, now[0].bound())
	}
}

// TestNameWithAnAddressThatTheMachineLacks: it is skipped with a warning while
// another is bound; without another the address cannot be bound.
func TestNameWithAnAddressThatTheMachineLacks(t *testing.T) {
	const elsewhere = "192.0.2.1"
	r := start(t, map[string][]string{"here.test": {elsewhere, "127.0.0.1"}, "there.test": {elsewhere}}, func(echo string) string {
		return listeners(echo, "", "here.test:0")
	})
	addresses, port := r.at(t, "tcp.a")
	if !slices.Equal(addresses, []string{"127.0.0.1:" + port}) {
		t.Errorf("addresses %q", addresses)
	}
	visit(t, addresses[0])
	told := r.reload(t, listeners(r.echo, "metrics {\n address = \"here.test:0\"\n}\n", "here.test:0"))
	for _, block := range []string{`in listener "tcp" "a"`, "in metrics"} {
		if !strings.Contains(told, "Warning") || !strings.Contains(told, block) || !strings.Contains(told, "here.test is also "+elsewhere) {
			t.Errorf("no warning %s:\n%s", block, told)
		}
	}
	for _, address := range []string{"there.test:0", "nowhere.test:0", elsewhere + ":0"} {
		r.write(t, listeners(r.echo, "", "here.test:0", address))
		if out := r.Reload(t.Context()); out.Error == "" || out.Invalid || !strings.Contains(out.Diagnostics, `in listener "tcp" "b"`) {
			t.Errorf("%s: %q, %s", address, out.Error, out.Diagnostics)
		}
		visit(t, addresses[0])
	}
}

// TestLocalhostIsNoOtherMachine: an address of localhost that others reach is not
// listened on.
func TestLocalhostIsNoOtherMachine(t *testing.T) {
	r := start(t, map[string][]string{"localhost": {"0.0.0.0", "127.0.0.1"}}, func(echo string) string { return listeners(echo, "", "localhost:0") })
	if addresses, port := r.at(t, "tcp.a"); !slices.Equal(addresses, []string{"127.0.0.1:" + port}) {
		t.Errorf("addresses %q", addresses)
	}
	r.names.set(map[string][]string{"localhost": {"0.0.0.0"}})
	r.write(t, listeners(r.echo, "", "127.0.0.1:0", "localhost:0"))
	if out := r.Reload(t.Context()); !strings.Contains(out.Diagnostics, "no loopback address") {
		t.Errorf("%q, %s", out.Error, out.Diagnostics)
	}
}

// TestEachSocketMakesRoom: the sockets of localhost make room for an address that
// overlaps with them, and are bound again where the reload fails; likewise those
// of the metrics.
func TestEachSocketMakesRoom(t *testing.T) {
	needIPv6(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	metrics := func(address string) string { return fmt.Sprintf("metrics {\n address = %q\n}\n", address) }
	r := start(t, both, func(echo string) string { return listeners(echo, metrics("localhost:0"), "localhost:0") })
	_, port := r.at(t, "tcp.a")
	metricsPort := fmt.Sprint(r.metricsSockets()[0].bound().addr.Port())
	check := func(hosts ...string) {
		t.Helper()
		for _, host := range hosts {
			visit(t, net.JoinHostPort(host, port))
			scrape(t, netip.MustParseAddrPort(net.JoinHostPort(host, metricsPort)))
		}
	}
	check("127.0.0.1", "::1")
	for _, other := range []string{"0.0.0.0", "[::]", "", "127.0.0.1", "[::1]"} {
		r.write(t, listeners(r.echo, metrics(other+":"+metricsPort), other+":"+port, taken.Addr().String()))
		if out := r.Reload(t.Context()); !strings.Contains(out.Diagnostics, "address already in use") {
			t.Fatalf("%s: %q, %s", other, out.Error, out.Diagnostics)
		}
		check("127.0.0.1", "::1")
	}
	for _, other := range []string{"0.0.0.0", "localhost", "[::1]", "localhost", "127.0.0.1", "[::]", "localhost"} {
		r.reload(t, listeners(r.echo, metrics(other+":"+metricsPort), other+":"+port))
		if !strings.Contains(other, ":") {
			check("127.0.0.1")
		}
		if other == "localhost" {
			check("127.0.0.1", "::1")
		}
	}
	// The two swap their ports.
	r.reload(t, listeners(r.echo, metrics("localhost:"+port), "localhost:"+metricsPort))
	port, metricsPort = metricsPort, port
	check("127.0.0.1", "::1")
}

// TestObstaclesAreBounded: what cannot be bound for one reason is not told without an
// end, and costs nothing that is bound.
func TestObstaclesAreBounded(t *testing.T) {
	taken, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	r := start(t, nil, func(echo string) string { return listeners(echo, "", "127.0.0.1:0") })
	addresses, _ := r.at(t, "tcp.a")
	more := ""
	for i := range 2 * maxObstacles {
		more += fmt.Sprintf("listener \"tcp\" \"l%d\" {\n address = \"127.0.1.%d:%d\"\n target = %q\n}\n", i, i+1, port, r.echo)
	}
	r.write(t, listeners(r.echo, more, "127.0.0.1:0"))
	out := r.Reload(t.Context())
	if n := strings.Count(out.Diagnostics, "address already in use"); out.Error == "" || out.Invalid || n != maxObstacles {
		t.Errorf("%d are told: %s", n, out.Error)
	}
	visit(t, addresses[0])
}

// TestPickedPortIsFreeOnAll: where the port that the system picks is taken on
// another address of the name, another is picked.
func TestPickedPortIsFreeOnAll(t *testing.T) {
	needIPv6(t)
	tries := 0
	s, err := resolve(t.Context(), func(context.Context, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}, nil
	}, "listener.tcp.a", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	var b binding
	lacking, err := s.bind(t.Context(), &b, func(ctx context.Context, at place, c claim) (boundSocket, error) {
		if at.addr.Addr().Is6() {
			if tries++; tries < 3 {
				taken, err := listenTCP(ctx, at.addr)
				if err != nil {
					return nil, err
				}
				defer taken.Close()
			}
		}
		ln, err := listenTCP(ctx, at.addr)
		return &metricsSocket{claim: c, ln: ln}, err
	})
	if err != nil || len(lacking) > 0 || len(b.fresh) != 2 || tries < 3 {
		t.Fatalf("%v, %v, %d bound in %d tries", lacking, err, len(b.fresh), tries)
	}
	if b.fresh[0].bound().addr.Port() != b.fresh[1].bound().addr.Port() {
		t.Errorf("bound to %s and %s", b.fresh[0].bound(), b.fresh[1].bound())
	}
	for _, bound := range b.fresh {
		if err := bound.close(); err != nil {
			t.Error(err)
		}
	}
}
