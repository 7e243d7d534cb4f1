package engine

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/tunneld/tunneld/core/status"
	"github.com/tunneld/tunneld/internal/nettest"
)

// standIn is a path at which the test's binary is the plugins' program, until it is taken
// away.
type standIn string

func newStandIn(t *testing.T) standIn {
	t.Helper()
	s := standIn(filepath.Join(t.TempDir(), "program"))
	s.put(t)
	return s
}

func (s standIn) put(t *testing.T) {
	t.Helper()
	exe, err := os.Executable()
	if err == nil {
		err = os.Symlink(exe, string(s))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (s standIn) takeAway(t *testing.T) {
	t.Helper()
	if err := os.Remove(string(s)); err != nil {
		t.Fatal(err)
	}
}

// rotating is a rig whose upstream toy.rotates has a note in a file.
type rotating struct {
	*rig
	note    string
	program standIn
	control string
}

// startRotating has a listener at localhost, which is resolved to this address, and two
// plugins whose program can be taken away. body is that of othertoy.other.
func startRotating(t *testing.T, body string) *rotating {
	t.Helper()
	r := &rotating{note: filepath.Join(t.TempDir(), "note"), program: newStandIn(t), control: filepath.Join(shortDir(t), "control.sock")}
	put(t, r.note, "one")
	r.rig = start(t, map[string][]string{"localhost": {"127.0.0.1"}}, func(echo string) string {
		return toyBlocksOf(string(r.program)) + fmt.Sprintf(`
metrics { address = "localhost:0" }
control { address = "unix://%s" }
upstream "toy" "rotates" {
  note = file(%q)
}
upstream "othertoy" "other" {
  %s
}
listener "tcp" "l" {
  address = "localhost:0"
  target  = %q
}
listener "tcp" "m" {
  address = "localhost:0"
  target  = %q
}
route "l" {
  match { listeners = [listener.tcp.l] }
  upstreams = [upstream.toy.rotates]
}
route "m" {
  upstreams = [upstream.othertoy.other]
}
`, r.control, r.note, body, echo, echo)
	})
	return r
}

// rotate waits until the next generation is in force.
func (r *rotating) rotate(t *testing.T, note string) {
	t.Helper()
	before := r.current.Load()
	put(t, r.note, note)
	r.await(t, "the note is not rotated", func(s status.Status) bool {
		if problem := s.Upstreams[0].FileProblem; problem != "" {
			t.Fatal(problem)
		}
		return s.Generation > before.number
	})
	if now := r.current.Load(); now.hashes["toy.rotates"] == before.hashes["toy.rotates"] || now.plugins[toyName] != before.plugins[toyName] || now.plugins[otherToyName] != before.plugins[otherToyName] {
		t.Error("the upstream is the same, or a plugin another")
	}
	r.visit(t, "tcp.l")
}

func (r *rotating) visit(t *testing.T, listener string) {
	t.Helper()
	at, _ := r.at(t, listener)
	visit(t, at[0])
}

// TestRotationLeavesTheRestAlone: a changed value does not come to nothing because of what
// has become of the plugins' programs, of names, and of the control socket's place; none of
// them changes. So it is where a plugin is restarted.
func TestRotationLeavesTheRestAlone(t *testing.T) {
	t.Parallel()
	r := startRotating(t, "")
	sockets, metrics := r.sockets("tcp.l"), r.metricsSockets()
	r.program.takeAway(t)
	r.names.set(map[string][]string{"localhost": {"127.0.0.2"}})
	if err := os.Remove(r.control); err != nil {
		t.Fatal(err)
	}
	put(t, r.control, "in the way")
	check := func() {
		t.Helper()
		if !slices.Equal(r.sockets("tcp.l"), sockets) || !slices.Equal(r.metricsSockets(), metrics) {
			t.Error("a socket is another")
		}
		if text, err := os.ReadFile(r.control); string(text) != "in the way" {
			t.Errorf("the file is gone: %v", err)
		}
		r.visit(t, "tcp.l")
		r.visit(t, "tcp.m")
	}
	r.rotate(t, "two")
	check()

	// Only the program of the plugin that is restarted is needed.
	if out := r.RestartPlugin(t.Context(), toyName); !strings.Contains(out.Diagnostics, "there is no plugin") {
		t.Errorf("%+v", out)
	}
	r.program.put(t)
	other := r.current.Load().plugins[otherToyName]
	if out := r.RestartPlugin(t.Context(), toyName); out.Error != "" || len(out.Changes) != 1 {
		t.Errorf("%+v", out)
	}
	if r.current.Load().plugins[otherToyName] != other {
		t.Error("another plugin is replaced, too")
	}
	check()
	r.reloadFails(t, r.text(t), "control socket")
}

func (r *rotating) text(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(r.path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestRotationBesideAPluginThatIsDown: it is given the new generation once it is up again,
// and so is one that refuses what it has taken before.
func TestRotationBesideAPluginThatIsDown(t *testing.T) {
	t.Parallel()
	refuses := filepath.Join(t.TempDir(), "refuses")
	r := startRotating(t, fmt.Sprintf("fail_if = %q", refuses))
	other := func(s status.Status) status.Plugin {
		i := slices.IndexFunc(s.Plugins, func(p status.Plugin) bool { return p.Name == otherToyName })
		return s.Plugins[i]
	}
	kill := func() {
		t.Helper()
		if err := syscall.Kill(other(r.Status()).PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	r.program.takeAway(t)
	kill()
	r.await(t, "it does not keep dying", func(s status.Status) bool { return other(s).Status == "crash_looping" })
	r.rotate(t, "two")
	r.program.put(t)
	r.await(t, "it is not up again", func(s status.Status) bool { return other(s).Status == "running" })
	r.visit(t, "tcp.m")

	put(t, refuses, "no license")
	kill()
	r.await(t, "it does not refuse", func(s status.Status) bool { return strings.Contains(other(s).Refused, "no license") })
	r.rotate(t, "three")
	if p := other(r.Status()); !strings.Contains(p.Refused, "no license") {
		t.Errorf("status %+v", p)
	}
	if err := os.Remove(refuses); err != nil {
		t.Fatal(err)
	}
	r.await(t, "it is not asked again", func(s status.Status) bool { return other(s).Refused == "" })
	r.visit(t, "tcp.m")
}

// TestFailureOfTheMachineIsTriedAgain: the value may have been right all along.
func TestFailureOfTheMachineIsTriedAgain(t *testing.T) {
	t.Parallel()
	address := filepath.Join(t.TempDir(), "address")
	put(t, address, "127.0.0.1:0")
	taken, err := net.Listen("tcp", nettest.FreeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	r := start(t, nil, func(echo string) string {
		return fmt.Sprintf("upstream \"direct\" \"d\" {}\nlistener \"tcp\" \"l\" {\n address = file(%q)\n target = %q\n}\nroute \"r\" {\n upstreams = [upstream.direct.d]\n}\n", address, echo)
	})
	put(t, address, taken.Addr().String())
	s := r.await(t, "it is not told of", func(s status.Status) bool { return s.Listeners[0].FileProblem != "" })
	if !strings.Contains(s.Listeners[0].FileProblem, "address already in use") {
		t.Errorf("problem %q", s.Listeners[0].FileProblem)
	}
	first := s.Listeners[0].Address
	visit(t, first)
	// At least one more try fails.
	number := func() uint64 {
		r.turn <- struct{}{}
		defer func() { <-r.turn }()
		return r.number
	}
	tried := number()
	r.await(t, "it is not tried again", func(status.Status) bool { return number() > tried })
	taken.Close()
	r.await(t, "the address is free, and not taken", func(s status.Status) bool {
		return s.Listeners[0].Address == taken.Addr().String() && s.Listeners[0].FileProblem == ""
	})
	visit(t, taken.Addr().String())
	if n := len(r.log.Matching("msg", "files have changed, and the block that reads them cannot use them: its old values stay in force")); n != 1 {
		t.Errorf("the log tells %d times", n)
	}
}

// TestWatchFollowsTheValuesOfAFailedTry: what mends a configuration that has been tried may
// be written to a file that its bodies read.
func TestWatchFollowsTheValuesOfAFailedTry(t *testing.T) {
	t.Parallel()
	r := start(t, nil, func(string) string { return watched("watch = true", "one") })
	target := filepath.Join(t.TempDir(), "target")
	r.write(t, strings.Replace(watched("watch = true", "two"), `"127.0.0.1:1"`, fmt.Sprintf("file(%q)", target), 1))
	r.await(t, "a change", reloads(0, 1))
	r.reloadChanged(t.Context())
	put(t, target, "127.0.0.1:2")
	s := r.await(t, "the file is there", reloads(1, 1))
	if s.Listeners[0].ID != "tcp.two" || s.Listeners[0].Target != "127.0.0.1:2" {
		t.Errorf("status %+v", s)
	}
	// From now on it is a value of the configuration in force.
	put(t, target, "127.0.0.1:3")
	s = r.await(t, "it is rotated", func(s status.Status) bool { return s.Listeners[0].Target == "127.0.0.1:3" })
	if s.Reloads != 2 {
		t.Errorf("%d reloads", s.Reloads)
	}
}
