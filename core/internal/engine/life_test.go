package engine

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/tunneld/tunneld/core/status"
)

// TestLife walks all ways from all states.
func TestLife(t *testing.T) {
	all := []status.State{status.Serving, status.Leaving, status.Draining, status.Closed}
	allowed := map[status.State]string{ // from, to
		status.Serving: "leaving draining closed ", status.Leaving: "serving draining closed ", status.Draining: "serving closed ",
	}
	for i, from := range all {
		ways := ""
		for j, to := range all {
			l := life{state: from}
			turned := l.turn(to)
			if want := map[bool]status.State{true: to, false: from}[turned]; l.is() != want {
				t.Errorf("from %s to %s: %v, and is %s", from, to, turned, l.is())
			}
			if turned {
				ways += string(to) + " "
			}
			if to.After(from) != (j > i) || from.Within(to) != all[max(i, j)] {
				t.Errorf("%s after %s: %v; the one within the other: %s", to, from, to.After(from), from.Within(to))
			}
		}
		if ways != allowed[from] {
			t.Errorf("from %s to %q, want %q", from, ways, allowed[from])
		}
		if from.Takes() != (i < 2) {
			t.Errorf("%s takes clients: %v", from, from.Takes())
		}
	}
	if l := new(life); l.is() != status.Serving || !l.turn(status.Draining) {
		t.Error("the zero value does not serve")
	}
}

// TestStopIsALife: a stop takes the daemon, its listeners and upstreams through all
// states. Each is told where somebody looks, and does what it says.
func TestStopIsALife(t *testing.T) {
	r := start(t, nil, func(echo string) string {
		return listeners(echo, "daemon {\n shutdown_delay = \"1h\"\n}\nmetrics {\n address = \"127.0.0.1:0\"\n}\n", "127.0.0.1:0")
	})
	at, _ := r.at(t, "tcp.a")
	metrics := r.metricsSockets()[0].bound()
	check := func(want status.State) {
		t.Helper()
		s := r.Status()
		if s.State != want || s.Listeners[0].State != want || s.Upstreams[0].State != want {
			t.Errorf("the daemon is %s, the listener %s, the upstream %s; want %s", s.State, s.Listeners[0].State, s.Upstreams[0].State, want)
		}
		code, text := get(t, metrics, "/readyz")
		if ready := want == status.Serving; (code == http.StatusOK) != ready || (len(s.NotReady()) == 0) != ready {
			t.Errorf("%s: /readyz: %d %q", want, code, text)
		}
		out := r.Reload(t.Context())
		if (out.Error == "") != (want == status.Serving) {
			t.Errorf("%s: a reload: %q", want, out.Error)
		}
	}
	check(status.Serving)
	open, err := net.DialTimeout("tcp", at[0], patience)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	echoed(t, open)

	leaving, enough := context.WithCancel(t.Context())
	left := make(chan struct{})
	go func() {
		defer close(left)
		r.Leave(leaving)
	}()
	r.log.Await(t, 1, "msg", "not ready, and still accepting until the stop")
	check(status.Leaving)
	visit(t, at[0])
	enough()
	<-left

	stopped := make(chan error, 1)
	go func() { stopped <- r.Stop(t.Context()) }()
	r.log.Await(t, 1, "msg", "stopping")
	for start := time.Now(); ; {
		c, err := net.DialTimeout("tcp", at[0], patience)
		if err != nil {
			break // the listener is closed after the line
		}
		c.Close()
		if time.Since(start) > patience {
			t.Fatal("it still accepts")
		}
	}
	check(status.Draining)
	echoed(t, open)
	open.Close()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if s := r.Status(); s.State != status.Closed || len(s.NotReady()) == 0 {
		t.Errorf("%+v", s)
	}
}

// TestRemovedListenerAndUpstreamDrain: what a reload takes away drains until its last
// connection has ended, and serves again where another reload brings it back.
func TestRemovedListenerAndUpstreamDrain(t *testing.T) {
	config := func(echo, name string) string {
		return fmt.Sprintf("upstream \"direct\" %q {}\nroute \"all\" {\n upstreams = [upstream.direct.%s]\n}\n", name, name) +
			fmt.Sprintf("listener \"tcp\" %q {\n address = \"127.0.0.1:0\"\n target = %q\n}\n", name, echo)
	}
	r := start(t, nil, func(echo string) string { return config(echo, "a") })
	life := func(name string) [2]status.State {
		r.gates.mu.Lock()
		defer r.gates.mu.Unlock()
		upstream := status.Closed
		if g := r.gates.byID["direct."+name]; g != nil {
			upstream = g.life.is()
		}
		return [2]status.State{r.slots.state("tcp." + name), upstream}
	}
	check := func(name string, want status.State) {
		t.Helper()
		if now := life(name); now != [2]status.State{want, want} {
			t.Errorf("%s: listener and upstream are %q, want %s", name, now, want)
		}
	}
	check("a", status.Serving)
	check("b", status.Closed)
	at, _ := r.at(t, "tcp.a")
	for range 2 {
		open, err := net.DialTimeout("tcp", at[0], patience)
		if err != nil {
			t.Fatal(err)
		}
		defer open.Close()
		echoed(t, open)
		r.reload(t, config(r.echo, "b"))
		check("a", status.Draining)
		check("b", status.Serving)
		echoed(t, open)
		r.reload(t, config(r.echo, "a"))
		check("a", status.Serving)
		r.reload(t, config(r.echo, "b"))
		open.Close()
		r.log.Await(t, 1, "msg", "connection", "listener", "tcp.a", "client", open.LocalAddr().String())
		if now := r.slots.state("tcp.a"); now != status.Closed {
			t.Errorf("the listener is %s", now)
		}
		r.reload(t, config(r.echo, "a"))
		check("a", status.Serving)
		check("b", status.Closed)
		at, _ = r.at(t, "tcp.a")
	}
}
