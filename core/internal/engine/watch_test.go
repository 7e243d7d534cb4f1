package engine

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/core/status"
	"github.com/tunneld/tunneld/internal/follow"
	"github.com/tunneld/tunneld/internal/logtest"
	"github.com/tunneld/tunneld/internal/userfile"
)

// watched is a configuration with a listener, in which the daemon block has this body.
func watched(daemon, listener string) string {
	return fmt.Sprintf("daemon {\n %s\n}\nupstream \"direct\" \"d\" {}\nlistener \"tcp\" %q {\n address = \"127.0.0.1:0\"\n target = \"127.0.0.1:1\"\n}\nroute \"r\" {\n upstreams = [upstream.direct.d]\n}\n", daemon, listener)
}

func reloads(ok, failed uint64) func(status.Status) bool {
	return func(s status.Status) bool { return s.Reloads == ok+failed && s.FailedReloads == failed }
}

// follows says whether the engine has its configuration's files followed.
func (r *rig) follows() bool {
	r.turn <- struct{}{}
	defer func() { <-r.turn }()
	return r.followed.ownWatch != nil
}

// TestWatch: with daemon.watch the daemon reloads when its configuration changes; a
// broken one is tried once, and the old one stays.
func TestWatch(t *testing.T) {
	t.Parallel()
	r := start(t, nil, func(string) string { return watched("watch = true", "one") })
	if !r.Status().Watched {
		t.Error("the status does not say that it is watched")
	}
	r.write(t, watched("watch = true", "two"))
	s := r.await(t, "a change", reloads(1, 0))
	if s.Listeners[0].ID != "tcp.two" {
		t.Errorf("status %+v", s)
	}
	r.write(t, "nonsense")
	s = r.await(t, "a broken configuration", reloads(1, 1))
	if s.Listeners[0].ID != "tcp.two" || !s.Reload.Invalid {
		t.Errorf("status %+v", s)
	}
	r.write(t, "nonsense") // the same content is not tried again
	if err := os.Remove(r.path); err != nil {
		t.Fatal(err)
	}
	s = r.await(t, "a lost configuration", reloads(1, 2))
	if !s.Watched {
		t.Error("it is not watched any more")
	}
	r.write(t, watched("watch = false", "three"))
	s = r.await(t, "it is back", reloads(2, 2))
	if s.Listeners[0].ID != "tcp.three" || s.Watched || r.follows() {
		t.Errorf("status %+v", s)
	}
	if n := strings.Count(r.log.String(), "the configuration has changed on disk"); n != 4 {
		t.Errorf("%d changes", n)
	}
}

// TestWatchFolder: files come and go, and others than *.hcl do not matter; one that is
// broken is followed as well, though it has never been in force.
func TestWatchFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("a.hcl", watched("watch = true", "one"))
	r := &rig{log: logtest.New(patience)}
	var diags error
	var err error
	r.Engine, diags, err = Start(t.Context(), Options{ConfigPath: dir, Log: slog.New(slog.NewJSONHandler(r.log, nil))})
	if err != nil {
		t.Fatal(err, diags)
	}
	t.Cleanup(func() {
		if err := r.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	})
	second := "listener \"tcp\" \"two\" {\n address = \"127.0.0.1:0\"\n target = \"127.0.0.1:1\"\n}\n"
	write("b.hcl", "listener {")
	r.await(t, "a broken file comes", reloads(0, 1))
	write(".b.hcl.swp", "of an editor")
	write("b.hcl", second)
	if s := r.await(t, "it is mended", reloads(1, 1)); len(s.Listeners) != 2 {
		t.Errorf("status %+v", s)
	}
	if err := os.Remove(filepath.Join(dir, "b.hcl")); err != nil {
		t.Fatal(err)
	}
	if s := r.await(t, "it goes", reloads(2, 1)); len(s.Listeners) != 1 {
		t.Errorf("status %+v", s)
	}
}

// TestReloadChanged does nothing where the folder has changed, and no file that is the
// configuration's.
func TestReloadChanged(t *testing.T) {
	t.Parallel()
	r := start(t, nil, func(string) string { return watched("watch = true", "one") })
	r.reloadChanged(t.Context())
	if s := r.Status(); s.Reloads != 0 {
		t.Errorf("%d reloads", s.Reloads)
	}
	r.write(t, watched("watch = true", "two"))
	r.reloadChanged(t.Context())
	r.reloadChanged(t.Context())
	if s := r.Status(); s.Reloads != 1 {
		t.Errorf("%d reloads", s.Reloads)
	}
}

// TestNothingIsWatchedByDefault.
func TestNothingIsWatchedByDefault(t *testing.T) {
	r := start(t, nil, func(string) string { return watched("", "one") })
	if r.Status().Watched || r.follows() {
		t.Error("the configuration is watched")
	}
}

// TestTooManyValueFiles is warned of, and nothing else.
func TestTooManyValueFiles(t *testing.T) {
	r := start(t, nil, func(string) string { return watched("", "one") })
	// What is followed counts for all together.
	full := make([]follow.File, 4096)
	for i := range full {
		full[i] = follow.File{Path: r.path, Sum: userfile.Sum{}}
	}
	w, err := r.followed.follower.Follow(full, func() {})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	file := filepath.Join(t.TempDir(), "target")
	if err := os.WriteFile(file, []byte("127.0.0.1:1"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.reload(t, strings.Replace(watched("watch = true", "one"), `"127.0.0.1:1"`, fmt.Sprintf("file(%q)", file), 1))
	for _, want := range []string{"the files of a block are not followed", "the configuration is not followed"} {
		if !strings.Contains(r.log.String(), want) {
			t.Errorf("no warning that %s", want)
		}
	}
}
