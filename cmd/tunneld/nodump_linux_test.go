package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/tunneld/tunneld/internal/logtest"
	"github.com/tunneld/tunneld/internal/nodump"
	"github.com/tunneld/tunneld/plugins/websocks/websocksemu"
)

// nobody is the user and group 65534, which has no rights to anything.
const nobody = 65534

// unprivileged makes a command one of a user without rights: nobody where the tests
// run as root, and otherwise who runs them.
func unprivileged(cmd *exec.Cmd) *exec.Cmd {
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	return cmd
}

// sharedDir is a folder of that user's.
func sharedDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "nd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(dir, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// buildProgram makes the program as it is installed: a test binary protects nothing.
func buildProgram(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "tunneld")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

// TestProcessesAreNotDumpable runs the installed program as a user without rights: the
// plugins start, bundled and by their hash, and no process of that user reads the
// memory, the environment or the descriptors of another, until it is told to let it.
func TestProcessesAreNotDumpable(t *testing.T) {
	exe := buildProgram(t, sharedDir(t))
	for _, lifted := range []bool{false, true} {
		t.Run(fmt.Sprintf("lifted is %t", lifted), func(t *testing.T) {
			dir := sharedDir(t)
			config := filepath.Join(dir, "tunneld.hcl")
			text := jsonLog + fmt.Sprintf("daemon {\n run_dir = %q\n}\n", filepath.Join(dir, "run")) +
				fmt.Sprintf("plugin \"soht\" {\n command = [%q, \"plugin\", \"serve\", \"soht\"]\n sha256 = %q\n}\n", exe, fileSHA256(t, exe)) +
				"upstream \"soht\" \"x\" { url = \"http://127.0.0.1:1/\" }\nupstream \"websocks\" \"x\" { url = \"ws://127.0.0.1:1/\" }\n" +
				listener("db", "127.0.0.1:0", "127.0.0.1:1", "") + route("all", "", "upstream.soht.x", "upstream.websocks.x")
			if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			p := &program{log: logtest.New(patience), path: config, exited: make(chan struct{})}
			p.cmd = unprivileged(exec.Command(exe, "run", "--config", config))
			p.cmd.Stderr = p.log
			p.cmd.Env = []string{"SECRET=s3cret"}
			if lifted {
				p.cmd.Env = append(p.cmd.Env, nodump.Env+"=1")
			}
			p.start(t)
			p.log.Await(t, 1, "msg", "listening")
			pids := []int{p.cmd.Process.Pid}
			for _, line := range p.log.Await(t, 2, "msg", "plugin started") {
				pids = append(pids, int(line["pid"].(float64)))
			}
			for _, pid := range pids {
				limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
				if err != nil {
					t.Fatal(err)
				}
				core := strings.Fields(string(limits[bytes.Index(limits, []byte("Max core file size")):]))[4:6]
				if !lifted && !slices.Equal(core, []string{"0", "0"}) {
					t.Errorf("process %d may leave a core file of %v bytes", pid, core)
				}
				for _, look := range [][]string{{"cat", "environ"}, {"cat", "maps"}, {"ls", "fd"}, {"head", "-c0", "mem"}} {
					look[len(look)-1] = fmt.Sprintf("/proc/%d/%s", pid, look[len(look)-1])
					out, err := unprivileged(exec.Command(look[0], look[1:]...)).CombinedOutput()
					if lifted && (err != nil && !strings.HasSuffix(look[len(look)-1], "/mem")) || !lifted && err == nil {
						t.Errorf("%q: %v, %s", look, err, out)
					}
				}
			}
			warnings := 0
			if lifted {
				warnings = len(pids)
			}
			if n := len(p.log.Await(t, warnings, "level", "WARN", "msg", nodump.Warning)); n != warnings {
				t.Errorf("%d warnings in\n%s", n, p.log)
			}
			p.signal(t, syscall.SIGTERM)
			if status := p.status(t); status != exitOK {
				t.Errorf("exit status %d", status)
			}
		})
	}
}

// TestKitOfAnUnprivilegedUser: an unprivileged user certifies a plugin as root does,
// with a look at its descriptors.
func TestKitOfAnUnprivilegedUser(t *testing.T) {
	dir := sharedDir(t)
	exe := buildProgram(t, dir)
	emu, err := websocksemu.Start(websocksemu.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = emu.Close() })
	config := filepath.Join(dir, "kit.hcl")
	if err := os.WriteFile(config, []byte("upstream \"websocks\" \"kit\" {\n url = \""+emu.URL()+"\"\n}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	// The kernel gives none of these to a connection.
	target := fmt.Sprintf("127.0.0.1:%d", 15000+rand.IntN(15000))
	cmd := unprivileged(exec.CommandContext(t.Context(), exe, "plugin", "test", "--config", config, "--upstream", "websocks.kit", "--target", target))
	cmd.Env = []string{"TMPDIR=" + dir, "PATH=" + os.Getenv("PATH")}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "websocks conforms") || !strings.Contains(string(out), "pass      descriptors") {
		t.Errorf("%v\n%s", err, out)
	}
}
