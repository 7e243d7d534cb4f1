package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/core/internal/control"
	"github.com/tunneld/tunneld/core/status"
	"github.com/tunneld/tunneld/internal/fdtest"
)

// standing is what a failed reload leaves as it was.
type standing struct {
	generation *generation
	sockets    map[string][]string // their addresses, by block
	processes  map[string][]uint64 // the generations of each plugin's process, by its name and number
	control    os.FileInfo
	files      []string // where the unix sockets are, with their modes
	listening  int      // sockets of the process, whatever the engine knows of them
	running    int
}

// standing looks at everything, and uses it.
func (r *rig) standing(t *testing.T, socket string) standing {
	t.Helper()
	s := standing{generation: r.current.Load(), sockets: map[string][]string{}, processes: map[string][]uint64{}, running: len(r.running)}
	for block, sockets := range r.Engine.sockets {
		for _, one := range sockets {
			s.sockets[block] = append(s.sockets[block], fmt.Sprintf("%s %s", one.bound(), one.claimed().block))
			if c := one.claimed(); !c.serving || c.displaced {
				t.Errorf("%+v", c)
			}
			if kind(block) == listenerBlocks {
				visit(t, one.bound().String())
			} else if code, _ := get(t, one.bound(), "/healthz"); code != http.StatusOK {
				t.Errorf("%s: %d", one.bound(), code)
			}
		}
	}
	for _, p := range r.host.Plugins() {
		st := p.State()
		s.processes[fmt.Sprint(st.Name, " ", st.PID)] = st.Generations
	}
	info, err := os.Lstat(socket)
	if err != nil {
		t.Fatal(err)
	}
	s.control = info
	entries, err := os.ReadDir(filepath.Dir(socket))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil {
			t.Error(err)
		} else {
			s.files = append(s.files, fmt.Sprint(e.Name(), " ", info.Mode()))
		}
	}
	s.listening = listeningDescriptors(t)
	client, err := control.NewClient(socket)
	if err != nil {
		t.Fatal(err)
	}
	if now, err := client.Status(t.Context()); err != nil || now.Generation != s.generation.number || len(now.NotReady()) > 0 {
		t.Errorf("status by the control socket: %+v, %v", now, err)
	}
	return s
}

// listeningDescriptors counts the descriptors of the process that are listening sockets.
func listeningDescriptors(t *testing.T) int {
	t.Helper()
	n := 0
	for number := range fdtest.Open(t) {
		fd, err := strconv.Atoi(number)
		if err != nil {
			t.Fatal(err)
		}
		// One that is no socket, or closed by now, does not listen.
		if on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err == nil && on == 1 {
			n++
		}
	}
	return n
}

func (s standing) want(t *testing.T, want standing) {
	t.Helper()
	if s.generation != want.generation || s.running != want.running || !os.SameFile(s.control, want.control) ||
		!slices.Equal(s.files, want.files) || s.listening != want.listening ||
		!maps.EqualFunc(s.sockets, want.sockets, slices.Equal) || !maps.EqualFunc(s.processes, want.processes, slices.Equal) {
		t.Errorf("now %+v\nbefore %+v", s, want)
	}
}

// twoWorlds are two configurations that have nothing in common but the ports, and an
// upstream: from the first to the second each step has all there can be to do.
type twoWorlds struct {
	*rig
	dir string // of the unix sockets
}

func startFirstWorld(t *testing.T) *twoWorlds {
	w := &twoWorlds{dir: shortDir(t)}
	w.rig = start(t, nil, func(echo string) string { return w.world(t, toyName, "127.0.0.1:0", "127.0.0.1:0", echo) })
	return w
}

func (w *twoWorlds) world(t *testing.T, toy, listener, metrics, echo string) string {
	return toyBlocks(t) + fmt.Sprintf("control {\n address = \"unix://%s\"\n}\nmetrics {\n address = %q\n}\n", w.socket(toy), metrics) +
		fmt.Sprintf("upstream %q \"u\" {}\nupstream \"toy\" \"both\" {}\nroute \"r\" {\n upstreams = [upstream.%s.u, upstream.toy.both]\n}\n", toy, toy) +
		fmt.Sprintf("listener \"tcp\" \"l\" {\n address = %q\n target = %q\n open = true\n}\n", listener, echo) +
		fmt.Sprintf("listener \"tcp\" \"local\" {\n addresses = [\"unix://%s\", \"unix://%s\"]\n mode = %q\n target = %q\n}\n", w.socket("kept"), w.socket(toy+"-own"), modes[toy], echo)
}

// modes are those of the unix sockets, of which one is in both worlds.
var modes = map[string]string{toyName: "0600", otherToyName: "0660"}

// second is the other configuration. Its sockets overlap with those of the first, which
// have to be closed before, and there is one more.
func (w *twoWorlds) second(t *testing.T) string {
	port := func(s boundSocket) string { return fmt.Sprint("0.0.0.0:", s.bound().addr.Port()) }
	return w.world(t, otherToyName, port(w.sockets("tcp.l")[0]), port(w.metricsSockets()[0]), w.echo) +
		fmt.Sprintf("listener \"tcp\" \"new\" {\n address = \"127.0.0.1:0\"\n target = %q\n}\n", w.echo)
}

func (w *twoWorlds) socket(toy string) string { return filepath.Join(w.dir, toy) }

var errStep = errors.New("the step fails")

// TestEachStepIsUndone: whichever step fails, after it has done all that it does,
// everything is as it was: sockets, processes of plugins and their generations, the
// metrics, the control socket. So it is where the reload is broken off there.
func TestEachStepIsUndone(t *testing.T) {
	w := startFirstWorld(t)
	second := w.second(t)
	before := w.standing(t, w.socket(toyName))
	w.write(t, second)
	// attempt makes the reload, in which change alters the steps.
	attempt := func(ctx context.Context, change func([]step)) ([]step, error) {
		t.Helper()
		w.turn <- struct{}{}
		defer func() { <-w.turn }()
		cfg, diags := config.Parse(w.path)
		steps := w.newTransition(renewal{cfg: cfg, diags: diags}).steps()
		change(steps)
		return steps, transact(ctx, steps)
	}
	steps, _ := attempt(t.Context(), func(s []step) { s[0].prepare = func(context.Context) error { return errStep } })
	tried := 0
	for i, s := range steps {
		for how, end := range map[string]func(context.CancelCauseFunc) error{
			"fails":         func(context.CancelCauseFunc) error { return errStep },
			"is broken off": func(end context.CancelCauseFunc) error { end(errStep); return nil },
		} {
			t.Run(s.name+" "+how, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				_, err := attempt(ctx, func(steps []step) {
					prepare := steps[i].prepare
					steps[i].prepare = func(ctx context.Context) error {
						if prepare != nil {
							if err := prepare(ctx); err != nil {
								return err
							}
						}
						tried++
						return end(cancel)
					}
				})
				if err == nil || err.Error() != errStep.Error() {
					t.Errorf("error %v, want %v", err, errStep)
				}
				w.standing(t, w.socket(toyName)).want(t, before)
			})
		}
	}
	if tried != 2*len(steps) || len(steps) < 5 {
		t.Errorf("%d of %d steps were tried", tried, len(steps))
	}

	// Nothing of all that is in the way of the same reload.
	w.reload(t, second)
	after := w.standing(t, w.socket(otherToyName))
	if after.generation == before.generation || len(after.sockets) != 4 {
		t.Errorf("%+v", after)
	}
	for _, old := range []string{w.socket(toyName), w.socket(toyName + "-own")} {
		if _, err := os.Lstat(old); !os.IsNotExist(err) {
			t.Errorf("the old socket: %v", err)
		}
	}
	if kept, err := os.Lstat(w.socket("kept")); err != nil || kept.Mode() != os.ModeSocket|0o660 {
		t.Errorf("the socket that stays: %v, %v", kept.Mode(), err)
	}
}

// TestEachStepFails: the same where the machine or the configuration is the reason,
// and the author is told.
func TestEachStepFails(t *testing.T) {
	w := startFirstWorld(t)
	second := w.second(t)
	noSocket := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(noSocket, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	before := w.standing(t, w.socket(toyName))
	for step, c := range map[string]struct{ old, new, want string }{
		"a plugin that is not there":        {`"serve", "` + otherToyName + `"`, `"serve", "nobody"`, "does not start"},
		"an upstream that does not start":   {`"` + otherToyName + `" "u" {}`, `"` + otherToyName + "\" \"u\" {\n fail_start = \"out of order\"\n}", "out of order"},
		"an address that somebody else has": {`"127.0.0.1:0"`, `"` + taken.Addr().String() + `"`, "address already in use"},
		"a control socket that is a file":   {"unix://" + w.socket(otherToyName) + `"`, "unix://" + noSocket + `"`, "a file that is not a socket"},
		"a unix socket that is a file":      {w.socket(otherToyName + "-own"), noSocket, "a file that is not a socket: remove it"},
	} {
		t.Run(step, func(t *testing.T) {
			text := strings.Replace(second, c.old, c.new, 1)
			if text == second {
				t.Fatalf("%q is not in the configuration", c.old)
			}
			w.reloadFails(t, text, c.want)
			w.standing(t, w.socket(toyName)).want(t, before)
		})
	}
}

// TestRestartIsUndone: the restart of a plugin is the same list of steps.
func TestRestartIsUndone(t *testing.T) {
	w := startFirstWorld(t)
	before := w.standing(t, w.socket(toyName))
	w.turn <- struct{}{}
	steps := w.newTransition(renewal{cfg: before.generation.cfg.Undecoded(), fresh: toyName}).steps()
	last := &steps[len(steps)-1]
	last.prepare = func(context.Context) error { return errStep }
	err := transact(t.Context(), steps)
	<-w.turn
	if !errors.Is(err, errStep) {
		t.Error(err)
	}
	w.standing(t, w.socket(toyName)).want(t, before)

	var out status.Reload
	if out = w.RestartPlugin(t.Context(), toyName); out.Error != "" {
		t.Fatal(out.Error)
	}
	w.retiring.Wait()
	after := w.standing(t, w.socket(toyName))
	if after.generation.number != out.Generation || len(after.processes) != 1 || maps.EqualFunc(after.processes, before.processes, slices.Equal) {
		t.Errorf("%+v\nbefore %+v", after, before)
	}
	for block, sockets := range after.sockets {
		if !slices.Equal(sockets, before.sockets[block]) {
			t.Errorf("%s: %q, before %q", block, sockets, before.sockets[block])
		}
	}
}

// TestTransact: in order forwards, in reverse backwards, and only what was begun.
func TestTransact(t *testing.T) {
	var did []string
	note := func(what string, err error) func(context.Context) error {
		return func(ctx context.Context) error {
			did = append(did, what)
			if strings.HasPrefix(what, "undo") && ctx.Err() != nil {
				t.Errorf("%s: its context has ended", what)
			}
			return err
		}
	}
	steps := func(second error) []step {
		did = nil
		return []step{
			{name: "a", prepare: note("prepare a", nil), undo: note("undo a", errors.New("a stays")), commit: func() { did = append(did, "commit a") }},
			{name: "b", commit: func() { did = append(did, "commit b") }},
			{name: "c", prepare: note("prepare c", second), undo: note("undo c", nil)},
			{name: "d", prepare: note("prepare d", nil), undo: note("undo d", nil)},
		}
	}
	if err := transact(t.Context(), steps(nil)); err != nil || strings.Join(did, ", ") != "prepare a, prepare c, prepare d, commit a, commit b" {
		t.Errorf("%v: %q", err, did)
	}
	if err := transact(t.Context(), steps(errStep)); !errors.Is(err, errStep) || !strings.Contains(err.Error(), "a stays") ||
		strings.Join(did, ", ") != "prepare a, prepare c, undo c, undo a" {
		t.Errorf("%v: %q", err, did)
	}
	ended, cancel := context.WithCancelCause(t.Context())
	cancel(errStep)
	if err := transact(ended, steps(nil)); !errors.Is(err, errStep) || strings.Join(did, ", ") != "prepare a, undo a" {
		t.Errorf("%v: %q", err, did)
	}
}
