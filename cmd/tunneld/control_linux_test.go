package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/core"
	"github.com/tunneld/tunneld/core/status"
)

// runIn is a configuration whose daemon has its run directory, and so its
// control socket, in a new folder.
func runIn(t *testing.T) (config, socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "run")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return "daemon {\n  run_dir = \"" + dir + "\"\n}\n", filepath.Join(dir, "control.sock")
}

func statusOf(t *testing.T, socket string) status.Status {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := core.AskStatus(ctx, socket)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func reloadBy(t *testing.T, socket string) status.Reload {
	t.Helper()
	// With the race detector and little of the machine a huge configuration takes its time.
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	r, err := core.AskReload(ctx, socket)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (p *program) write(t *testing.T, config string) {
	t.Helper()
	if err := os.WriteFile(p.path, []byte(jsonLog+config), 0o600); err != nil {
		t.Fatal(err)
	}
}

// eventually polls what cannot be waited for.
func eventually(t *testing.T, otherwise string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(otherwise)
		}
	}
}

func gone(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is there (%v)", path, err)
	}
}

// TestStatusOfARunningDaemon: what it says is what is.
func TestStatusOfARunningDaemon(t *testing.T) {
	b := startBackend(t)
	place, socket := runIn(t)
	p := runProgram(t, 1, place+"upstream \"direct\" \"local\" {}\n"+listener("db", "127.0.0.1:0", b.addr, "")+route("all", "", "upstream.direct.local"))
	c := dialTCP(t, p.address(t, "tcp.db"))
	send(t, b.next(t), "x")
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	s := statusOf(t, socket)
	if s.PID != p.cmd.Process.Pid || s.Config != p.path || s.Generation != 1 || s.Reload != nil || s.State != "serving" || time.Since(s.Started) > patience {
		t.Errorf("%+v", s)
	}
	if len(s.Listeners) != 1 || len(s.Upstreams) != 1 || len(s.Plugins) != 0 {
		t.Fatalf("%+v", s)
	}
	if l := s.Listeners[0]; l.ID != "tcp.db" || l.Address != p.address(t, "tcp.db") || l.Target != b.addr || l.Connections != 1 || l.Tunnels["direct"] != 1 {
		t.Errorf("%+v", l)
	}
	if u := s.Upstreams[0]; u.ID != "direct.local" || u.Health != "ok" {
		t.Errorf("%+v", u)
	}

	// Also while it drains, and the socket goes with the daemon.
	p.signal(t, syscall.SIGTERM)
	p.log.Await(t, 1, "msg", "stopping")
	if s := statusOf(t, socket); s.State != "draining" || len(s.NotReady()) != 1 || s.Pump.Tunnels != 1 {
		t.Errorf("while it drains: %+v", s)
	}
	if r := reloadBy(t, socket); r.Error != "the daemon is stopping" {
		t.Errorf("a reload while it drains: %+v", r)
	}
	breakConn(t, c)
	if status := p.status(t); status != exitOK {
		t.Errorf("exit status %d", status)
	}
	gone(t, socket)
}

// TestReloadsAtOnce: each has an outcome and a generation of its own.
func TestReloadsAtOnce(t *testing.T) {
	place, socket := runIn(t)
	p := runProgram(t, 1, place+direct(1, ""))
	var (
		mu   sync.Mutex
		seen = map[uint64]bool{}
		wg   sync.WaitGroup
	)
	for range 4 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			r, err := core.AskReload(ctx, socket)
			if err != nil || r.Error != "" {
				t.Errorf("%+v, %v", r, err)
			}
			mu.Lock()
			defer mu.Unlock()
			seen[r.Generation] = true
		})
		p.signal(t, syscall.SIGHUP)
	}
	wg.Wait()
	if len(seen) != 4 {
		t.Errorf("generations %v", seen)
	}
}

// mutePlugin is a plugin that says nothing, so that its start takes its whole
// time, and an upstream of it. started waits until it runs and returns its process.
func mutePlugin(t *testing.T) (config string, started func() int) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "started")
	script := fmt.Sprintf("echo $$ >%s.part; mv %[1]s.part %[1]s; exec sleep 3600", file)
	config = fmt.Sprintf("plugin \"mute\" {\n  command = [\"/bin/sh\", \"-c\", %q]\n}\nupstream \"mute\" \"x\" {}\n", script)
	return config, func() (pid int) {
		t.Helper()
		eventually(t, "the plugin is not started", func() bool {
			text, _ := os.ReadFile(file) // not there yet
			_, err := fmt.Sscan(string(text), &pid)
			return err == nil
		})
		return pid
	}
}

// TestReloadThatWaitsIsBrokenOff: a caller that no longer waits for its turn is
// answered before the reload under way has ended.
func TestReloadThatWaitsIsBrokenOff(t *testing.T) {
	mute, started := mutePlugin(t)
	d := startDaemon(t, direct(1, ""))
	d.write(t, direct(1, mute))
	ctx, cancel := context.WithCancel(t.Context())
	first, second := make(chan status.Reload, 1), make(chan status.Reload, 1)
	go func() { first <- d.Reload(ctx) }()
	started()
	short, giveUp := context.WithCancel(t.Context())
	go func() { second <- d.Reload(short) }()
	giveUp()
	select {
	case out := <-second:
		if out.Error != context.Canceled.Error() {
			t.Errorf("the second: %+v", out)
		}
	case out := <-first:
		t.Errorf("the first has ended before the second: %+v", out)
	}
	cancel()
	d.log.Await(t, 1, "msg", "reload failed, the old configuration stays in force")
}

// TestReloadIsBrokenOff: whoever does not wait for it ends it, and the daemon
// answers meanwhile.
func TestReloadIsBrokenOff(t *testing.T) {
	place, socket := runIn(t)
	p := runProgram(t, 1, place+direct(1, ""))
	mute, started := mutePlugin(t)
	p.write(t, place+direct(1, mute))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := core.AskReload(ctx, socket)
		ended <- err
	}()
	sleeping := watchProcess(t, started())
	if s := statusOf(t, socket); s.Generation != 1 || s.Reload != nil {
		t.Errorf("during the reload: %+v", s)
	}
	cancel()
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "was interrupted") {
		t.Errorf("reload: %v", err)
	}
	sleeping()
	var after status.Status
	eventually(t, "its outcome is not told", func() bool {
		after = statusOf(t, socket)
		return after.Reload != nil
	})
	if after.Generation != 1 || after.Reload.Error == "" || after.FailedReloads != 1 {
		t.Errorf("after it: %+v", after)
	}
}

// TestSocketsOfTwoDaemons: the one in a default place is the first daemon's, and
// the second runs without; one that is named is wanted for certain.
func TestSocketsOfTwoDaemons(t *testing.T) {
	place, socket := runIn(t)
	first := runProgram(t, 1, place+direct(1, ""))
	second := runProgram(t, 1, place+direct(1, ""))
	warnings := second.log.Await(t, 1, "level", "WARN")
	if len(warnings) != 1 || !strings.Contains(fmt.Sprint(warnings[0]), fmt.Sprintf("process %d", first.cmd.Process.Pid)) {
		t.Errorf("the second says %v", warnings)
	}
	third := runProgram(t, 0, "control {\n  address = \"unix://"+socket+"\"\n}\n"+direct(1, ""))
	if status := third.status(t); status != exitFailed {
		t.Errorf("the third: exit status %d", status)
	}
	second.signal(t, syscall.SIGTERM)
	second.status(t)
	if pid := statusOf(t, socket).PID; pid != first.cmd.Process.Pid {
		t.Errorf("process %d answers", pid)
	}

	// What a killed one leaves is replaced.
	first.signal(t, syscall.SIGKILL)
	first.status(t)
	if _, err := core.AskStatus(t.Context(), socket); err == nil || !strings.Contains(err.Error(), "nobody serves the control socket") {
		t.Errorf("after the kill: %v", err)
	}
	fourth := runProgram(t, 1, place+direct(1, ""))
	if pid := statusOf(t, socket).PID; pid != fourth.cmd.Process.Pid {
		t.Errorf("process %d answers", pid)
	}
}

// TestControlSocketMoves: a reload that changes its address moves it, and one
// that cannot leaves it where it is.
func TestControlSocketMoves(t *testing.T) {
	place, old := runIn(t)
	_, other := runIn(t)
	p := runProgram(t, 1, place+direct(1, ""))
	at := func(path string) string { return "control {\n  address = \"unix://" + path + "\"\n}\n" }

	p.write(t, place+at(p.path)+direct(1, "")) // no socket but a file
	if r := reloadBy(t, old); r.Error == "" || r.Invalid || !strings.Contains(r.Diagnostics, "not a socket") {
		t.Errorf("onto a file: %+v", r)
	}
	if s := statusOf(t, old); s.Generation != 1 {
		t.Errorf("generation %d", s.Generation)
	}

	p.write(t, place+at(other)+direct(1, ""))
	if r := reloadBy(t, old); r.Error != "" {
		t.Errorf("to another place: %+v", r)
	}
	if s := statusOf(t, other); s.Generation != 3 {
		t.Errorf("generation %d", s.Generation)
	}
	// The old one goes once its last answer is given.
	eventually(t, "the old socket stays", func() bool {
		_, err := os.Lstat(old)
		return errors.Is(err, fs.ErrNotExist)
	})

	// An error elsewhere leaves it as well, and nothing of the new one.
	p.write(t, place+direct(1, "listener {"))
	if r := reloadBy(t, other); !r.Invalid {
		t.Errorf("broken: %+v", r)
	}
	gone(t, old)
	if s := statusOf(t, other); s.Generation != 3 {
		t.Errorf("generation %d", s.Generation)
	}
}

// TestNoPlaceForAControlSocket: the daemon runs, and says how to get one.
func TestNoPlaceForAControlSocket(t *testing.T) {
	t.Setenv("RUNTIME_DIRECTORY", "")
	t.Setenv("XDG_RUNTIME_DIR", "")
	p := runProgram(t, 1, direct(1, ""))
	p.signal(t, syscall.SIGHUP)
	p.log.Await(t, 1, "msg", "reloaded")
}

// TestDefaultPlaces: a daemon is found where its environment puts its socket.
func TestDefaultPlaces(t *testing.T) {
	for _, name := range []string{"RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("RUNTIME_DIRECTORY", "")
			t.Setenv("XDG_RUNTIME_DIR", "")
			_, socket := runIn(t)
			t.Setenv(name, filepath.Dir(socket))
			p := runProgram(t, 1, direct(1, ""))
			code, stdout, stderr := tunneld(t, "status", "--json", "--config", p.path)
			var s status.Status
			if err := json.Unmarshal([]byte(stdout), &s); err != nil || code != exitOK || s.PID != p.cmd.Process.Pid {
				t.Errorf("%d, %v, %s%s", code, err, stdout, stderr)
			}
		})
	}
}
