package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tunneld/tunneld/core"
	"github.com/tunneld/tunneld/internal/fdtest"
	"github.com/tunneld/tunneld/internal/logtest"
	"github.com/tunneld/tunneld/plugins/sapsocks/sapsocksemu"
)

// newDescriptors returns those that were not there before. The pipes of the
// library's own io.Copy, which the echo service uses, end with a collection.
func newDescriptors(t *testing.T, before map[string]string) map[string]string {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		runtime.GC()
		now := fdtest.Open(t)
		maps.DeleteFunc(now, func(fd, _ string) bool { return before[fd] != "" })
		if len(now) == 0 || time.Now().After(deadline) {
			return now
		}
	}
}

// children lists the processes that this one has started, those included that
// nobody has waited for.
func children(t *testing.T) []string {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // gone meanwhile
		}
		var state string
		var parent int
		_, rest, _ := strings.Cut(string(b), ") ")
		if _, err := fmt.Sscanf(rest, "%s %d", &state, &parent); err == nil && parent == os.Getpid() {
			out = append(out, string(b))
		}
	}
	return out
}

// TestNothingIsLeft: after a stop there are no more goroutines, descriptors,
// processes and files than before the start, whatever happened in between.
func TestNothingIsLeft(t *testing.T) {
	// What the runtime and the libraries open once and keep.
	t.Run("first life", liveFully)
	goroutines := goleak.IgnoreCurrent()
	before := fdtest.Open(t)
	t.Run("second life", liveFully)
	goleak.VerifyNone(t, goroutines)
	for fd, to := range newDescriptors(t, before) {
		t.Errorf("descriptor %s is left: %s", fd, to)
	}
	if left := children(t); len(left) > 0 {
		t.Errorf("processes are left: %q", left)
	}
}

// liveFully is a daemon's life with all that can happen to its plugins and
// tunnels, and its stop in the middle of it.
func liveFully(t *testing.T) {
	s := startSapsocks(t, sapsocksemu.Options{})
	emu := s.emu
	_, relayed := websocksRig(t, true)
	tmp := t.TempDir() // with nothing in it but the daemon's
	t.Setenv("TMPDIR", tmp)

	log := logtest.New(patience)
	r := &daemonRig{log: log, path: filepath.Join(t.TempDir(), "tunneld.hcl")}
	both := s.onprem("") + strings.NewReplacer(`"db"`, `"relayed"`, `route "all" {`, "route \"relayed\" {\n match {\n listeners = [listener.tcp.relayed]\n }").Replace(relayed)
	// The route for the one listener goes before the route for all.
	i := strings.Index(both, "route \"all\"")
	j := strings.Index(both, "upstream \"websocks\"")
	both = both[:i] + both[j:] + both[i:j]
	r.write(t, both)
	opts := options(r.path)
	opts.Log = log
	daemon, diags, err := core.Start(t.Context(), opts)
	if err != nil {
		t.Fatalf("%v\n%s", err, told(diags))
	}
	r.Daemon = daemon
	now, cancel := context.WithCancel(context.Background())
	cancel()
	stop := sync.OnceValue(func() error { return daemon.Stop(now) })
	defer func() { _ = stop() }() // also where the test ends early

	for _, id := range []string{"tcp.db", "tcp.relayed"} {
		pingPong(t, r.dial(t, id), "a tunnel that is there at the stop")
		c := r.dial(t, id)
		pingPong(t, c, "a tunnel that ends")
		closeWrite(t, c)
		wantRest(t, c, "")
	}
	emu.SetFaults(sapsocksemu.Faults{Reply: 2})
	r.dialReset(t, "tcp.db")
	emu.SetFaults(sapsocksemu.Faults{})
	for _, name := range []string{"sapsocks", "websocks"} {
		killPlugin(t, log, name)
	}
	for _, id := range []string{"tcp.db", "tcp.relayed"} {
		pingPong(t, r.dial(t, id), "after the kill")
	}
	r.write(t, "nonsense {")
	if out := r.Reload(t.Context()); out.Error == "" {
		t.Error("nonsense was put in force")
	}
	r.write(t, s.onprem("")) // the relay's listener and plugin go, its tunnel stays
	r.mustReload(t)
	emu.SetFaults(sapsocksemu.Faults{Silent: sapsocksemu.StepRequest})
	r.dial(t, "tcp.db") // is being dialed at the stop

	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	left, err := os.ReadDir(tmp)
	if err != nil || len(left) > 0 {
		t.Errorf("files are left: %v, %v", left, err)
	}
	if t.Failed() {
		t.Logf("log:\n%s", log)
	}
}
