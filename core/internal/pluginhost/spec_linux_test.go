package pluginhost

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/core/internal/plugintest"
)

func TestFind(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/true\n"), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	acme := write("tunneld-plugin-acme", 0o755)
	both := write("tunneld-plugin-sapsocks", 0o755)
	plain := write("tunneld-plugin-plain", 0o644)
	elsewhere := write("elsewhere", 0o755)
	if err := os.Mkdir(filepath.Join(dir, "tunneld-plugin-folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	sum := strings.Repeat("0", 64)
	// What stands along $PATH and in the current folder must not be found.
	t.Setenv("PATH", dir)
	t.Chdir(dir)
	write("tunneld-plugin-inpath", 0o755)
	empty := t.TempDir()
	bundled := []string{"websocks", "sapsocks"}
	for _, tt := range []struct {
		what, name, dir string
		block           *Block
		command         string // "": bundled
		err             string
	}{
		{what: "command", name: "acme", block: &Block{Command: []string{elsewhere, "-v"}}, dir: dir, command: elsewhere},
		{what: "folder", name: "acme", dir: dir, command: acme},
		{what: "folder before bundled", name: "sapsocks", dir: dir, command: both},
		{what: "folder with a block", name: "acme", block: &Block{SHA256: sum, Env: map[string]string{"A": "b"}}, dir: dir, command: acme},
		{what: "relative folder", name: "acme", dir: ".", command: acme},
		{what: "bundled", name: "websocks", dir: dir},
		{what: "bundled with env", name: "websocks", block: &Block{Env: map[string]string{"A": "b"}}},
		{what: "none", name: "inpath", dir: empty, err: `plugin "inpath" not found: looked for a command in its plugin block (none), ` + empty + `/tunneld-plugin-inpath (no such file), a bundled plugin (sapsocks, websocks); check the name`},
		{what: "none, no folder", name: "inpath", err: "daemon.plugin_dir (not set)"},
		{what: "relative command", name: "acme", block: &Block{Command: []string{"tunneld-plugin-acme"}}, dir: dir, err: "is not an absolute path"},
		{what: "missing command", name: "acme", block: &Block{Command: []string{"/nonexistent/x"}}, dir: dir, err: "no such file"},
		{what: "not executable", name: "plain", dir: dir, err: plain + " is not executable: chmod +x it"},
		{what: "a folder", name: "folder", dir: dir, err: "is not a file"},
		{what: "bundled with a hash", name: "websocks", block: &Block{SHA256: sum}, err: "part of tunneld"},
		{what: "bad hash", name: "acme", block: &Block{Command: []string{elsewhere}, SHA256: "abc"}, err: "64 hexadecimal digits"},
		{what: "bad hash of a file", name: "acme", block: &Block{Command: []string{elsewhere}, Files: map[string]string{"/x": "abc"}}, err: "64 hexadecimal digits"},
		{what: "relative file", name: "acme", block: &Block{Command: []string{elsewhere}, Files: map[string]string{"x": sum}}, err: "not an absolute path"},
		{what: "bad variable", name: "acme", block: &Block{Command: []string{elsewhere}, Env: map[string]string{"A=B": "c"}}, err: "environment variable"},
		{what: "built in", name: "direct", err: "taken by the built-in upstream"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			s, err := Find(tt.name, tt.block, tt.dir, bundled)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if s.Name != tt.name || s.Bundled != (tt.command == "") || tt.command != "" && s.Command[0] != tt.command {
				t.Errorf("found %+v", s)
			}
			if b := tt.block; b != nil && (s.SHA256 != b.SHA256 || len(s.Env) != len(b.Env) || len(b.Command) > 0 && len(s.Command) != len(b.Command)) {
				t.Errorf("found %+v for %+v", s, b)
			}
		})
	}
	for _, name := range []string{"", "../acme", "acme/../x", "Acme", "1acme", "acme-x", "acme\x00", "a b", "acmé", strings.Repeat("a", 33), "-rf"} {
		if s, err := Find(name, nil, dir, []string{name}); err == nil {
			t.Errorf("the name %q leads to %+v", name, s)
		}
	}
	var e *NotFoundError
	if _, err := Find("nosuch", nil, "", nil); !errors.As(err, &e) || e.Name != "nosuch" || !strings.Contains(err.Error(), "(none)") {
		t.Errorf("error %v", err)
	}
}

func TestKey(t *testing.T) {
	base := func() Spec {
		return Spec{Name: "a", Command: []string{"/x", "y"}, SHA256: "0", Files: map[string]string{"/f": "1"}, Env: map[string]string{"A": "1", "B": "2"}}
	}
	key := base().Key()
	if again := base().Key(); again != key {
		t.Errorf("equal specs with the keys %s and %s", key, again)
	}
	seen := map[string]string{key: "base"}
	for what, change := range map[string]func(*Spec){
		"name":      func(s *Spec) { s.Name = "b" },
		"arguments": func(s *Spec) { s.Command = []string{"/x y"} },
		"hash":      func(s *Spec) { s.SHA256 = "1" },
		"files":     func(s *Spec) { s.Files = map[string]string{"/f": "2"} },
		"env":       func(s *Spec) { s.Env["A"] = "2" },
		"less env":  func(s *Spec) { delete(s.Env, "A") },
		"bundled":   func(s *Spec) { s.Bundled = true },
	} {
		s := base()
		change(&s)
		if other := seen[s.Key()]; other != "" {
			t.Errorf("%s has the key of %s", what, other)
		}
		seen[s.Key()] = what
	}
}

// TestSpecHidesEnv prints a spec in every way.
func TestSpecHidesEnv(t *testing.T) {
	var b bytes.Buffer
	for _, s := range []Spec{
		{Name: "acme", Command: []string{"/x"}, Env: map[string]string{"TOKEN": "s3cret"}},
		{Name: "acme", Bundled: true, Env: map[string]string{"TOKEN": "s3cret"}},
	} {
		fmt.Fprintf(&b, "%v %+v %#v %s %v\n", s, s, s, s, &s)
		slog.New(slog.NewJSONHandler(&b, nil)).Info("m", "spec", s)
		slog.New(slog.NewTextHandler(&b, nil)).Info("m", "spec", s)
	}
	if got := b.String(); strings.Contains(got, "s3cret") || !strings.Contains(got, "acme") {
		t.Errorf("printed %s", got)
	}
}

// copySelf puts a copy of the test binary at path, and returns its hash.
func copySelf(t *testing.T, path string) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// TestSHA256 starts a plugin whose hash is right, and refuses those whose are
// not, before anything of them runs.
func TestSHA256(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "tunneld-plugin-"+rawName)
	sum := copySelf(t, path)
	file := filepath.Join(dir, "library")
	if err := os.WriteFile(file, []byte("library"), 0o644); err != nil {
		t.Fatal(err)
	}
	fileSum := sha256.Sum256([]byte("library"))
	files := func(sum string) map[string]string { return map[string]string{file: sum} }
	wrong := strings.Repeat("0", 64)
	h := newHost(t, nil)
	for _, tt := range []struct {
		what string
		spec Spec
		want string
	}{
		{what: "right", spec: Spec{SHA256: strings.ToUpper(sum), Files: files(hex.EncodeToString(fileSum[:]))}},
		{"wrong", Spec{SHA256: wrong}, path + " has the sha256 " + sum + ", not " + wrong},
		{"wrong file", Spec{SHA256: sum, Files: files(wrong)}, file + " has the sha256"},
		{"missing file", Spec{Files: map[string]string{dir + "/missing": wrong}}, "no such file"},
		{"a folder", Spec{Files: map[string]string{dir: wrong}}, "it is a folder, not a file"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			s := tt.spec
			s.Name, s.Command = rawName, []string{path, "argument"}
			s.Env = map[string]string{"RAW_MODE": ""}
			if tt.want != "" {
				err := h.startFails(t, s)
				if !strings.Contains(err.Error(), tt.want) || err.Output != "" {
					t.Errorf("error %q, want %q", err, tt.want)
				}
				return
			}
			p := h.start(t, s)
			cmdline, err := os.ReadFile("/proc/" + strconv.Itoa(p.State().PID) + "/cmdline")
			if err != nil || string(cmdline) != path+"\x00argument\x00" {
				t.Errorf("command line %q, %v", cmdline, err)
			}
			// Each start opens and hashes the file anew.
			if err := syscall.Kill(p.State().PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			h.await(t, "a restart", func(s State) bool { return s.Restarts == 1 && s.Status == StatusRunning })
			if err := p.Stop(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	// A FIFO would wait for its writer.
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o755); err != nil {
		t.Fatal(err)
	}
	h.startFails(t, Spec{Name: rawName, Command: []string{fifo}, SHA256: wrong})
}

// TestHashedFileIsExecuted replaces a program between its hashing and its
// start: what was hashed is what runs.
func TestHashedFileIsExecuted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tunneld-plugin-"+rawName)
	sum := copySelf(t, path)
	p, err := openProgram(context.Background(), Spec{Name: rawName, Command: []string{path}, SHA256: sum}, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("#!/bin/false\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	attr := &os.ProcAttr{Env: []string{"RAW_MODE=exit"}}
	proc, err := os.StartProcess(p.path, p.argv, attr)
	if err != nil {
		t.Fatal(err)
	}
	state, err := proc.Wait()
	if err != nil || state.Sys().(syscall.WaitStatus).ExitStatus() != 7 {
		t.Errorf("it ended with %v, %v", state, err)
	}
}

// TestHashedScript runs a script, whose descriptor cannot be executed.
func TestHashedScript(t *testing.T) {
	dir := t.TempDir()
	link, err := plugintest.Link(dir, rawName)
	if err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(dir, "script")
	text := "#!/bin/sh\nexec " + link + "\n"
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(text))
	h := newHost(t, nil)
	h.start(t, Spec{Name: rawName, Command: []string{script}, SHA256: hex.EncodeToString(sum[:])})
}

// TestReplacedProgram restarts a plugin whose program was changed: it is
// refused, again and again.
func TestReplacedProgram(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tunneld-plugin-"+rawName)
	sum := copySelf(t, path)
	h := newHost(t, nil)
	p := h.start(t, Spec{Name: rawName, Command: []string{path}, SHA256: sum})
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("another"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(p.State().PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	h.await(t, "a refused start", func(s State) bool {
		return s.Status == StatusCrashLooping && strings.Contains(s.LastExit, "it was changed or replaced")
	})
}
