package engine

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tunneld/tunneld/core/status"
)

// await waits until the status is as wanted.
func (r *rig) await(t *testing.T, what string, want func(status.Status) bool) status.Status {
	t.Helper()
	pause := time.NewTicker(5 * time.Millisecond)
	defer pause.Stop()
	for late := time.Now().Add(patience); ; <-pause.C {
		s := r.Status()
		if want(s) {
			return s
		}
		if time.Now().After(late) {
			t.Fatalf("%s: status %+v\nlog:\n%s", what, s, r.log)
		}
	}
}

// secretFolder is one as Kubernetes mounts it: what is in it is swapped by a symbolic
// link.
type secretFolder struct {
	t   *testing.T
	dir string
	n   int
}

func newSecretFolder(t *testing.T, content map[string]string) *secretFolder {
	t.Helper()
	s := &secretFolder{t: t, dir: t.TempDir()}
	s.swap(content)
	for name := range content {
		if err := os.Symlink("..data/"+name, s.path(name)); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s *secretFolder) path(name string) string { return filepath.Join(s.dir, name) }

func (s *secretFolder) swap(content map[string]string) {
	s.t.Helper()
	s.n++
	name := fmt.Sprintf("..%d", s.n)
	if err := os.Mkdir(s.path(name), 0o700); err != nil {
		s.t.Fatal(err)
	}
	for file, text := range content {
		if err := os.WriteFile(filepath.Join(s.path(name), file), []byte(text), 0o600); err != nil {
			s.t.Fatal(err)
		}
	}
	if err := os.Symlink(name, s.path("..new")); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(s.path("..new"), s.path("..data")); err != nil {
		s.t.Fatal(err)
	}
}

// starts counts how often upstreams with this remote have started.
func starts(t *testing.T) (remote string, count *atomic.Int32) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	count = new(atomic.Int32)
	done := make(chan struct{})
	var open []net.Conn
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return // closed
			}
			open = append(open, c)
			count.Add(1)
		}
	}()
	t.Cleanup(func() {
		ln.Close()
		<-done
		for _, c := range open {
			c.Close()
		}
	})
	return ln.Addr().String(), count
}

// echoes has text echoed on a connection that stays open.
func echoes(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, len(text))
	for n := 0; n < len(b); {
		m, err := c.Read(b[n:])
		if n += m; err != nil {
			t.Fatal(err)
		}
	}
	if string(b) != text {
		t.Errorf("echo %q of %q", b, text)
	}
}

// TestValueFilesAreFollowed: what file() reads in an upstream's body is read again when
// it has changed, and that upstream alone is another one from then on. What cannot be
// used is told of, and the old value stays. The configuration's own files do not matter.
func TestValueFilesAreFollowed(t *testing.T) {
	t.Parallel()
	secret := newSecretFolder(t, map[string]string{"password": "one"})
	remote, begun := starts(t)
	r := start(t, nil, func(echo string) string {
		return toyBlocks(t) + fmt.Sprintf(`
metrics { address = "127.0.0.1:0" }
upstream "toy" "rotates" {
  note = "user:${file(%q)}"
}
upstream "toy" "stays" {
  remote = %q
}
upstream "othertoy" "other" {
  note = "x"
}
listener "tcp" "l" {
  address = "127.0.0.1:0"
  target  = %q
}
route "r" {
  upstreams = [upstream.toy.rotates, upstream.toy.stays, upstream.othertoy.other]
}
`, secret.path("password"), remote, echo)
	})
	addresses, _ := r.at(t, "tcp.l")
	tunnel, err := net.DialTimeout("tcp", addresses[0], patience)
	if err != nil {
		t.Fatal(err)
	}
	defer tunnel.Close()
	echoes(t, tunnel, "before")
	first := r.current.Load()
	r.write(t, "half an edit {")

	secret.swap(map[string]string{"password": "two"})
	r.await(t, "the new password is not used", func(s status.Status) bool { return s.Generation > first.number })
	next := r.current.Load()
	for id, same := range map[string]bool{"toy.rotates": false, "toy.stays": true, "othertoy.other": true} {
		if (first.hashes[id] == next.hashes[id]) != same {
			t.Errorf("%s: the same: %v", id, !same)
		}
	}
	if next.plugins["toy"] != first.plugins["toy"] || begun.Load() != 1 {
		t.Errorf("the upstream that stays has started %d times", begun.Load())
	}
	visit(t, addresses[0])
	echoes(t, tunnel, "between")

	secret.swap(nil)
	problem := func(s status.Status) string { return s.Upstreams[0].FileProblem }
	s := r.await(t, "a lost file is not told of", func(s status.Status) bool { return problem(s) != "" })
	if !strings.Contains(problem(s), secret.path("password")) || !strings.Contains(problem(s), "there is no such file") || s.Generation != next.number || s.Upstreams[1].FileProblem != "" {
		t.Errorf("status %+v", s)
	}
	warning := []string{"level", "WARN", "msg", "files have changed, and the block that reads them cannot use them: its old values stay in force", "upstream", "toy.rotates", "files", secret.path("password")}
	if told := r.log.Await(t, 1, warning...); len(told) != 1 || told[0]["err"] == nil {
		t.Errorf("warnings: %v", told)
	}
	_, page := get(t, r.metricsSockets()[0].bound(), "/metrics")
	for _, want := range []string{`tunneld_upstream_file_problem{upstream="toy.rotates"} 1`, `tunneld_upstream_file_problem{upstream="toy.stays"} 0`} {
		if !strings.Contains(page, want) {
			t.Errorf("no %s", want)
		}
	}
	r.log.Await(t, 1, "msg", "files have changed, and the block that reads them uses the new values", "upstream", "toy.rotates", "files", secret.path("password"))
	visit(t, addresses[0])

	// The same as is in force, and then another.
	secret.swap(map[string]string{"password": "two"})
	if s := r.await(t, "a file that is back is not noticed", func(s status.Status) bool { return problem(s) == "" }); s.Generation != next.number {
		t.Errorf("generation %d", s.Generation)
	}
	secret.swap(map[string]string{"password": "three"})
	r.await(t, "the last password is not used", func(s status.Status) bool { return s.Generation > next.number })
	echoes(t, tunnel, "after")
	if s := r.Status(); s.Reloads != 0 || begun.Load() != 1 || problem(s) != "" {
		t.Errorf("%d reloads, %d starts, problem %q", s.Reloads, begun.Load(), problem(s))
	}
}

// TestEachBodyForItself: one that cannot use its files does not keep another from its
// new values, and a reload forgets what was wrong.
func TestEachBodyForItself(t *testing.T) {
	t.Parallel()
	secret := newSecretFolder(t, map[string]string{"fail": "", "note": "one", "limit": "3", "target": "127.0.0.1:1"})
	config := func(echo string) string {
		return toyBlocks(t) + fmt.Sprintf(`
upstream "toy" "bad" {
  fail_start = file(%q)
}
upstream "toy" "good" {
  note = file(%q)
}
upstream "toy" "limited" {
  max_connections = file(%q)
}
upstream "direct" "d" {}
listener "tcp" "l" {
  address = "127.0.0.1:0"
  target  = trimspace(file(%q))
}
route "r" {
  upstreams = [upstream.direct.d, upstream.toy.bad, upstream.toy.good, upstream.toy.limited]
}
`, secret.path("fail"), secret.path("note"), secret.path("limit"), secret.path("target"))
	}
	r := start(t, nil, config)
	first := r.current.Load()
	swapped := map[string]string{"fail": "no license", "note": "two", "limit": "7", "target": r.echo + "\n"}
	secret.swap(swapped)
	s := r.await(t, "one of them is not told of", func(s status.Status) bool { return s.Upstreams[0].FileProblem != "" })
	if !strings.Contains(s.Upstreams[0].FileProblem, "no license") {
		t.Errorf("problem %q", s.Upstreams[0].FileProblem)
	}
	s = r.await(t, "the listener does not have its new target", func(s status.Status) bool { return s.Listeners[0].Target == r.echo })
	// The hash of its values is the same.
	r.await(t, "the limit is not the new one", func(s status.Status) bool { return s.Upstreams[2].MaxConnections == 7 })
	s = r.await(t, "the upstream does not have its new values", func(s status.Status) bool { return r.current.Load().hashes["toy.good"] != first.hashes["toy.good"] })
	if now := r.current.Load(); now.hashes["toy.bad"] != first.hashes["toy.bad"] || s.Upstreams[0].FileProblem == "" {
		t.Errorf("status %+v", s)
	}
	addresses, _ := r.at(t, "tcp.l")
	visit(t, addresses[0])

	swapped["target"] = "nonsense:"
	secret.swap(swapped)
	s = r.await(t, "the listener's file is not told of", func(s status.Status) bool { return s.Listeners[0].FileProblem != "" })
	if !strings.Contains(s.Listeners[0].FileProblem, secret.path("target")) || s.Listeners[0].Target != r.echo {
		t.Errorf("status %+v", s)
	}
	swapped["fail"], swapped["target"] = "", r.echo
	secret.swap(swapped)
	r.reload(t, config(r.echo))
	if s := r.Status(); s.Listeners[0].FileProblem+s.Upstreams[0].FileProblem != "" {
		t.Errorf("after a reload: %+v", s)
	}
}
