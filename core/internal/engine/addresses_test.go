package engine

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tunneld/tunneld/internal/nettest"
)

// several is a configuration with one listener, "tcp.a", at all of the addresses.
func several(echo string, addresses ...string) string {
	return fmt.Sprintf("upstream \"direct\" \"x\" {}\nroute \"all\" {\n upstreams = [upstream.direct.x]\n}\nlistener \"tcp\" \"a\" {\n target = %q\n addresses = [\n  %s,\n ]\n}\n",
		echo, `"`+strings.Join(addresses, "\",\n  \"")+`"`)
}

// bound returns the addresses of listener tcp.a as the status has them.
func (r *rig) bound() []string { return r.Status().Listeners[0].Addresses }

// TestAddressesComeAndGo: a reload that adds an address to a listener, or takes one from it,
// leaves the sockets of the others alone: nobody who connects there meanwhile is refused.
func TestAddressesComeAndGo(t *testing.T) {
	r := start(t, map[string][]string{"localhost": {"127.0.0.1"}}, func(echo string) string {
		return several(echo, "127.0.0.1:0", "127.0.0.1:0")
	})
	first := r.sockets("tcp.a")
	at := r.bound()
	if len(at) != 2 || at[0] == at[1] {
		t.Fatalf("bound to %q", at)
	}
	for _, a := range at {
		visit(t, a)
	}
	free := nettest.FreeAddress(t)

	var visitors sync.WaitGroup
	reloaded := make(chan struct{})
	visitors.Go(func() {
		for {
			c, err := net.DialTimeout("tcp", at[1], patience)
			if err != nil {
				t.Errorf("at the address that stays: %v", err)
				return
			}
			echoed(t, c)
			c.Close()
			select {
			case <-reloaded:
				return
			default:
			}
		}
	})
	for _, step := range []struct {
		addresses, bound []string
		kept             []*listening
		says             string
	}{
		{[]string{at[0], at[1]}, []string{at[0], at[1]}, first, "moved from 127.0.0.1:0, 127.0.0.1:0 to "},
		{[]string{at[0], at[1], free}, []string{at[0], at[1], free}, first, "also on " + free},
		{[]string{at[1], free}, []string{at[1], free}, first[1:], "no longer on " + at[0]},
		{[]string{free, at[1]}, []string{free, at[1]}, first[1:], ""},
		{[]string{at[0], at[1]}, []string{at[0], at[1]}, first[1:], "moved from " + free + " to " + at[0]},
		{[]string{strings.Replace(at[1], "127.0.0.1", "localhost", 1)}, []string{at[1]}, first[1:], "moved from"},
		{[]string{at[1]}, []string{at[1]}, first[1:], "moved from"},
	} {
		r.write(t, several(r.echo, step.addresses...))
		out := r.Reload(t.Context())
		if out.Error != "" {
			t.Fatalf("%q: %s\n%s", step.addresses, out.Error, out.Diagnostics)
		}
		if now := r.bound(); !slices.Equal(now, step.bound) {
			t.Errorf("%q: bound to %q", step.addresses, now)
		}
		now := r.sockets("tcp.a")
		for _, s := range step.kept {
			if !slices.Contains(now, s) {
				t.Errorf("%q: the socket at %s is another", step.addresses, s.bound())
			}
		}
		if said := strings.Join(out.Changes, "\n"); !strings.Contains(said, step.says) || step.says == "" && said != "" {
			t.Errorf("%q: %q, want %q", step.addresses, said, step.says)
		}
		for _, a := range step.bound {
			visit(t, a)
		}
		for _, a := range append([]string{free}, at...) {
			if !slices.Contains(step.bound, a) {
				wantRefused(t, a)
			}
		}
	}
	close(reloaded)
	visitors.Wait()
}

// TestOneOfSeveralAddressesIsTaken: a reload that cannot bind one of them says which, and
// changes nothing.
func TestOneOfSeveralAddressesIsTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	r := start(t, nil, func(echo string) string { return several(echo, "127.0.0.1:0") })
	at, before := r.bound(), r.sockets("tcp.a")
	free := nettest.FreeAddress(t)
	text := several(r.echo, at[0], free, taken.Addr().String())
	r.write(t, text)
	out := r.Reload(t.Context())
	line := 1 + strings.Count(text[:strings.Index(text, taken.Addr().String())], "\n")
	if out.Error == "" || !strings.Contains(out.Diagnostics, fmt.Sprintf("line %d, in listener", line)) || !strings.Contains(out.Diagnostics, taken.Addr().String()+": ") {
		t.Errorf("%q\n%s", out.Error, out.Diagnostics)
	}
	if now := r.bound(); !slices.Equal(now, at) || !slices.Equal(r.sockets("tcp.a"), before) {
		t.Errorf("bound to %q, or by another socket", now)
	}
	visit(t, at[0])
	wantRefused(t, free)
}

// TestInheritedBesideOthers: an inherited socket can be one of several addresses, and stays
// when the other one goes.
func TestInheritedBesideOthers(t *testing.T) {
	echo := nettest.Serve(t, nettest.Echo)
	orders, at := passed(t, "127.0.0.1:0")
	free := nettest.FreeAddress(t)
	h, told := startHeir(t, several(echo, free, "fd://orders"), []string{"orders"}, orders)
	if told.Error != "" {
		t.Fatalf("%+v", told)
	}
	visit(t, at)
	visit(t, free)
	if out := h.reload(t, several(echo, "fd://orders")); out.Error != "" {
		t.Fatalf("%+v", out)
	}
	visit(t, at)
	wantRefused(t, free)
	if out := h.reload(t, several(echo, "fd://orders", "fd://nobody")); !strings.Contains(out.Diagnostics, "fd://nobody: the daemon inherited no socket") || !strings.Contains(out.Diagnostics, `"fd://nobody",`) {
		t.Errorf("%+v", out)
	}
	visit(t, at)
}
