package engine

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/core/internal/pluginhost"
	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/core/status"
	"github.com/tunneld/tunneld/internal/logtest"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

const (
	passedOver  = "upstream is passed over while a route has another"
	usableAgain = "upstream is usable again"
)

// pair is a rig whose one route has the upstreams toy.a and toy.b, and the hands on
// them.
type pair struct {
	*rig
	remotes [2]*remote
	a, b    *hand
	visits  map[string]int // by upstream
}

func startPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{remotes: [2]*remote{newRemote(t), newRemote(t)}, visits: map[string]int{}}
	p.rig = start(t, nil, func(echo string) string { return p.config(t, echo, "", "") })
	p.a, p.b = p.remotes[0].hand(t), p.remotes[1].hand(t)
	return p
}

// config has a note in the body of a, and more blocks.
func (p *pair) config(t *testing.T, echo, note, more string) string {
	return toyBlocks(t) + more + "metrics {\n address = \"127.0.0.1:0\"\n}\nroute \"all\" {\n upstreams = [upstream.toy.a, upstream.toy.b]\n}\n" +
		fmt.Sprintf("upstream \"toy\" \"a\" {\n remote = %q\n note = %q\n}\nupstream \"toy\" \"b\" {\n remote = %q\n}\n", p.remotes[0].address(), note, p.remotes[1].address()) +
		fmt.Sprintf("listener \"tcp\" \"l\" {\n address = \"127.0.0.1:0\"\n target = %q\n}\n", echo)
}

// goes expects that a client gets through by an upstream.
func (p *pair) goes(t *testing.T, by string) {
	t.Helper()
	at, _ := p.at(t, "tcp.l")
	visit(t, at[0])
	p.visits[by]++
	p.log.Await(t, p.visits["toy.a"]+p.visits["toy.b"], "msg", "connection", "listener", "tcp.l")
	if n := len(p.log.Matching("msg", "connection", "upstream", by)); n != p.visits[by] {
		t.Fatalf("%d connections by %s, want %d", n, by, p.visits[by])
	}
}

// usable expects what status, metrics and log say of toy.a, after a number of changes.
func (p *pair) usable(t *testing.T, want *status.Unusable, changes int) {
	t.Helper()
	is := p.upstream(t, "toy.a").Unusable
	value := "1"
	if want != nil {
		value = "0"
		if is == nil || is.Reason != want.Reason || is.Message != want.Message {
			t.Errorf("status %+v, want %+v", is, want)
		} else if left := time.Until(is.Until); left > want.Until.Sub(time.Time{}) || left < want.Until.Sub(time.Time{})/2 {
			t.Errorf("passed over for %s", left)
		}
	} else if is != nil {
		t.Errorf("status %+v", is)
	}
	if _, text := get(t, p.metricsSockets()[0].bound(), "/metrics"); !strings.Contains(text, "\ntunneld_upstream_usable{upstream=\"toy.a\"} "+value+"\n") {
		t.Errorf("the metric is not %s", value)
	}
	out := len(p.log.Await(t, (changes+1)/2, "msg", passedOver, "upstream", "toy.a"))
	back := len(p.log.Await(t, changes/2, "msg", usableAgain, "upstream", "toy.a"))
	if out != (changes+1)/2 || back != changes/2 {
		t.Errorf("the log says %d times that it is passed over, and %d times that it is not any more; want %d changes", out, back, changes)
	}
}

// within stands for a time that is at most that far away.
func within(d time.Duration) time.Time { return time.Time{}.Add(d) }

// TestRetryAfter: an upstream whose dial was told to come back later is passed over
// while there is another, is tried where that fails, too, and a success ends it.
func TestRetryAfter(t *testing.T) {
	p := startPair(t)
	p.usable(t, nil, 0)
	p.goes(t, "toy.a")
	p.a.order(t, toyOrder{Fail: "busy", RetryAfter: time.Hour})
	p.goes(t, "toy.b")
	busy := &status.Unusable{Reason: "retry_after", Message: "busy", Until: within(maxRetryAfter)}
	p.usable(t, busy, 1)
	p.a.order(t, toyOrder{})
	for range 3 {
		p.goes(t, "toy.b")
	}
	if n := len(p.log.Matching("msg", "upstream failed, the next is tried")); n != 1 {
		t.Errorf("%d dials have failed", n)
	}
	p.usable(t, busy, 1)
	// What a reload leaves alone it does not make usable; another upstream it is.
	p.reload(t, p.config(t, p.echo, "", "log {\n level = \"debug\"\n}\n"))
	p.usable(t, busy, 1)
	p.goes(t, "toy.b")

	p.b.order(t, toyOrder{Fail: "out of order"})
	p.goes(t, "toy.a")
	p.usable(t, nil, 2)
	p.goes(t, "toy.a")

	p.a.order(t, toyOrder{Fail: "busy", RetryAfter: time.Minute})
	at, _ := p.at(t, "tcp.l")
	wantReset(t, at[0])
	p.usable(t, &status.Unusable{Reason: "retry_after", Message: "busy", Until: within(time.Minute)}, 3)
	p.reload(t, p.config(t, p.echo, "another", ""))
	p.a = p.remotes[0].hand(t)
	p.usable(t, nil, 3)
	p.goes(t, "toy.a")
	if n := len(p.availabilities.byKey); n != 2 {
		t.Errorf("%d records are kept of two upstreams", n)
	}
}

// TestSoonestFree: where all are passed over, the one comes first that is free first.
func TestSoonestFree(t *testing.T) {
	p := startPair(t)
	p.a.order(t, toyOrder{Fail: "busy", RetryAfter: 2 * time.Minute})
	p.b.order(t, toyOrder{Fail: "busy", RetryAfter: time.Minute})
	at, _ := p.at(t, "tcp.l")
	wantReset(t, at[0])
	p.a.order(t, toyOrder{})
	p.b.order(t, toyOrder{})
	p.goes(t, "toy.b")
	p.goes(t, "toy.b")
}

// TestFailingHealth: an upstream that its plugin reports failing is passed over until it
// reports otherwise, a dial succeeds, or the plugin's process dies.
func TestFailingHealth(t *testing.T) {
	p := startPair(t)
	failing := &status.Unusable{Reason: "health", Until: within(longPause)}
	changed := func(order toyOrder, message string, n int) {
		t.Helper()
		p.a.order(t, order)
		p.log.Await(t, n, "msg", message, "upstream", "toy.a")
	}
	changed(toyOrder{Health: "failing"}, passedOver, 1)
	p.usable(t, failing, 1)
	p.goes(t, "toy.b")
	p.goes(t, "toy.b")
	p.usable(t, failing, 1)
	changed(toyOrder{Health: "ok"}, usableAgain, 1)
	p.usable(t, nil, 2)
	p.goes(t, "toy.a")

	changed(toyOrder{Health: "failing"}, passedOver, 2)
	p.b.order(t, toyOrder{Fail: "out of order"})
	p.goes(t, "toy.a")
	p.usable(t, nil, 4)
	p.goes(t, "toy.a")

	changed(toyOrder{Health: "ok"}, usableAgain, 2)
	changed(toyOrder{Health: "failing"}, passedOver, 3)
	if err := syscall.Kill(p.Status().Plugins[0].PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	p.log.Await(t, 3, "msg", usableAgain, "upstream", "toy.a")
}

// TestAvailability: what is passed over when, by a clock of the test's own.
func TestAvailability(t *testing.T) {
	now := time.Now()
	j := logtest.New(patience)
	repeats := newRepeats(slog.New(slog.NewJSONHandler(j, nil)))
	defer repeats.close()
	a := &availability{id: "toy.a", repeats: repeats, life: new(life), pause: failingPause}
	a.inForce(now, true)
	failed := func(after time.Duration) *tunnel.DialError {
		return &tunnel.DialError{RetryAfter: after, Message: "busy"}
	}
	report := func(h pluginv1.Health) *pluginv1.UpstreamStatus {
		return &pluginv1.UpstreamStatus{Health: h, Message: "down"}
	}
	check := func(after time.Duration, reason string, until time.Duration) {
		t.Helper()
		v := a.at(now.Add(after))
		if v.reason != reason || reason != "" && !v.until.Equal(now.Add(until)) {
			t.Errorf("after %s: %+v, want %q until %s", after, v, reason, until)
		}
	}
	check(0, "", 0)
	a.dialed(now, failed(0))
	check(0, "", 0)
	a.dialed(now, failed(time.Minute))
	check(time.Minute-1, "retry_after", time.Minute)
	check(time.Minute, "", 0)
	a.dialed(now, failed(24*time.Hour))
	check(0, "retry_after", maxRetryAfter)
	a.dialed(now, failed(time.Second)) // the newest word
	check(0, "retry_after", time.Second)
	a.dialed(now, failed(0))
	check(0, "retry_after", time.Second)
	a.reported(now, report(pluginv1.Health_HEALTH_FAILING), false)
	check(0, "retry_after", failingPause)
	check(time.Second, "health", failingPause)

	// One dial in a pause finds out whether it works again.
	a.tried(now.Add(time.Second))
	check(failingPause-1, "health", failingPause)
	check(failingPause, "", 0)
	a.tried(now.Add(failingPause))
	check(failingPause, "health", 2*failingPause)
	a.reported(now.Add(failingPause), report(pluginv1.Health_HEALTH_FAILING), false) // no change
	check(failingPause, "health", 2*failingPause)
	a.reported(now, report(pluginv1.Health_HEALTH_UNKNOWN), false)
	check(failingPause, "", 0)
	check(0, "retry_after", time.Second) // which only a dial ends
	a.reported(now, report(pluginv1.Health_HEALTH_FAILING), false)
	a.dialed(now, nil)
	check(0, "", 0)
	if out, back := len(j.Matching("msg", passedOver)), len(j.Matching("msg", usableAgain)); out != 1 || back != 1 {
		t.Errorf("%d and %d lines for two changes", out, back)
	}
	a.life.turn(status.Draining)
	if v := a.at(now); v.reason != "drained" || !v.until.IsZero() {
		t.Errorf("%+v", v)
	}

	// Of a flapping one there are ten lines a minute.
	a.life.turn(status.Serving)
	for range 100 {
		a.dialed(now, failed(time.Second))
		a.dialed(now, nil)
	}
	if out := len(j.Matching("msg", passedOver)); out != repeatsLogged {
		t.Errorf("%d lines", out)
	}
}

// TestChoose: those that are usable in the route's order, then the others.
func TestChoose(t *testing.T) {
	now := time.Now()
	repeats := newRepeats(slog.New(slog.DiscardHandler))
	defer repeats.close()
	all := newAvailabilities(repeats, 0)
	lives, used := map[string]*life{}, map[string]upstream{}
	plugin := new(pluginhost.Plugin)
	var route []upstream
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		lives[name] = new(life)
		u := config.Upstream{Type: "toy", Name: name, Hash: "h"}
		route = append(route, upstream{id: name, availability: all.of(u, plugin, lives[name])})
		if used[u.ID()] = route[len(route)-1]; all.of(u, plugin, lives[name]) != used[u.ID()].availability {
			t.Error("an upstream has two records")
		}
	}
	check := func(want string) {
		t.Helper()
		var got []string
		for _, u := range choose(route, now) {
			got = append(got, u.id)
		}
		if strings.Join(got, "") != want || len(route) != 5 || !slices.IsSortedFunc(route, func(a, b upstream) int { return strings.Compare(a.id, b.id) }) {
			t.Errorf("%q, want %s", got, want)
		}
	}
	check("abcde")
	lives["a"].turn(status.Draining)
	check("bcdea")
	route[2].availability.dialed(now, &tunnel.DialError{RetryAfter: 2 * time.Minute})
	failing := func(name, hash string) *pluginv1.UpstreamStatus {
		return &pluginv1.UpstreamStatus{Name: name, ConfigHash: hash, Health: pluginv1.Health_HEALTH_FAILING}
	}
	all.reported(plugin, []*pluginv1.UpstreamStatus{failing("d", "h"), failing("e", "of another")})
	all.reported(new(pluginhost.Plugin), []*pluginv1.UpstreamStatus{failing("b", "h")})
	check("bedca")
	for _, u := range route {
		u.availability.dialed(now, &tunnel.DialError{RetryAfter: time.Minute})
	}
	check("bcdea")
	all.lost(new(pluginhost.Plugin))
	check("bcdea")
	all.lost(plugin)
	check("bcdea")
	lives["a"].turn(status.Serving)
	check("abcde")
	route[2].availability.dialed(now, &tunnel.DialError{RetryAfter: time.Minute})
	other := all.of(config.Upstream{Type: "toy", Name: "b", Hash: "another"}, plugin, lives["b"])
	all.retain(map[string]upstream{"toy.a": used["toy.a"], "toy.b": {availability: other}})
	if len(all.byKey) != 2 {
		t.Errorf("%d records are kept", len(all.byKey))
	}
	// What is heard of the others is of no matter.
	for _, u := range route[1:] {
		u.availability.dialed(now, &tunnel.DialError{RetryAfter: time.Minute})
		u.availability.dialed(now, nil)
		u.availability.reported(now, failing(u.id, "h"), false)
	}
	check("abdec")
}

// TestStoredReport: what a plugin has said before its upstream had a record counts,
// and not against what was heard since.
func TestStoredReport(t *testing.T) {
	repeats := newRepeats(slog.New(slog.DiscardHandler))
	defer repeats.close()
	all := newAvailabilities(repeats, time.Hour)
	plugin := new(pluginhost.Plugin)
	a := all.of(config.Upstream{Type: "toy", Name: "x", Hash: "h"}, plugin, new(life))
	stored := func() usability {
		all.pass(plugin, []*pluginv1.UpstreamStatus{{Name: "x", ConfigHash: "h", Health: pluginv1.Health_HEALTH_FAILING}}, true)
		return a.at(time.Now())
	}
	if v := stored(); v.reason != "health" {
		t.Errorf("%+v, want it to be failing", v)
	}
	a.dialed(time.Now(), nil)
	if v := stored(); v.reason != "" {
		t.Errorf("%+v after a success", v)
	}
}
