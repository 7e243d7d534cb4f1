package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/internal/logtest"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest/fixture"
)

// startPiped starts the program with a pipe for its standard error, and reads that
// until it serves n listeners. What is written after that is the test's to read.
func (p *program) startPiped(t *testing.T, n int) *os.File {
	t.Helper()
	stderr := pipeTo(t, func(w *os.File) { p.cmd.Stderr = w; p.start(t) })
	readUntil(t, stderr, p.log, func() bool { return len(p.log.Matching("msg", "listening")) >= n })
	return stderr
}

// pipeTo returns the reading end of a pipe whose writing end only what start
// starts keeps.
func pipeTo(t *testing.T, start func(w *os.File)) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	defer w.Close()
	start(w)
	return r
}

// readUntil copies what can be read until done says that it is enough.
func readUntil(t *testing.T, r *os.File, to io.Writer, done func() bool) {
	t.Helper()
	if err := r.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 64<<10)
	for !done() {
		n, err := r.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := to.Write(b[:n]); err != nil {
			t.Fatal(err)
		}
	}
}

// echoing is a configuration whose listener tcp.db leads to an echo service.
func echoing(t *testing.T) string {
	t.Helper()
	echo, err := startEcho()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { echo.Close() })
	return "upstream \"direct\" \"local\" {}\n" + listener("db", "127.0.0.1:0", echo.Addr(), "") + route("all", "", "upstream.direct.local")
}

// TestLogReaderThatGoesAway: tunnels live on, there are new ones, and the end is
// an ordinary one.
func TestLogReaderThatGoesAway(t *testing.T) {
	p := newProgram(t, echoing(t))
	stderr := p.startPiped(t, 1)
	address := p.address(t, "tcp.db")
	open := dialTCP(t, address)
	pingPong(t, open, "while somebody reads")
	if err := stderr.Close(); err != nil {
		t.Fatal(err)
	}
	for i := range 3 { // each end is a line
		c := dialTCP(t, address)
		pingPong(t, c, fmt.Sprint("nobody reads ", i))
		closeWrite(t, c)
		wantRest(t, c, "")
	}
	p.signal(t, syscall.SIGHUP)
	pingPong(t, open, "after all that")
	open.Close()
	p.signal(t, syscall.SIGTERM)
	if status := p.status(t); status != exitOK {
		t.Errorf("it ended with %s", p.cmd.ProcessState)
	} else if sys := p.cmd.ProcessState.Sys().(syscall.WaitStatus); sys.Signaled() {
		t.Errorf("it died of %s", sys.Signal())
	}
}

// TestPluginsDoNotIgnoreSIGPIPE, also where the daemon was started with the signal
// ignored, as systemd does: a plugin in another language would live on as a
// zombie that writes to nobody.
func TestPluginsDoNotIgnoreSIGPIPE(t *testing.T) {
	for name, ignored := range map[string]bool{"default": false, "ignored by the parent": true} {
		t.Run(name, func(t *testing.T) {
			exe, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			signals := filepath.Join(t.TempDir(), "signals")
			config := fmt.Sprintf("plugin %q {\n command = [\"/bin/sh\", \"-c\", \"PATH=/bin:/usr/bin grep SigIgn: /proc/self/status >%s; exec %s %s %s\"]\n}\nupstream %q \"x\" {}\n",
				fixture.DirectName, signals, exe, asThirdParty, fixture.DirectName, fixture.DirectName) +
				listener("db", "127.0.0.1:0", "127.0.0.1:1", "") + route("all", "", "upstream."+fixture.DirectName+".x")
			p := newProgram(t, config)
			if ignored {
				args := append([]string{"-c", `trap "" PIPE; exec "$@"`, "sh"}, p.cmd.Args...)
				p.cmd.Path, p.cmd.Args = "/bin/sh", append([]string{"/bin/sh"}, args...)
			}
			p.cmd.Stderr = p.log
			p.start(t)
			p.log.Await(t, 1, "msg", "listening")
			if mask := ignoredSignals(t, signals); mask&(1<<(syscall.SIGPIPE-1)) != 0 {
				t.Errorf("the plugin ignores %x", mask)
			}
		})
	}
}

// ignoredSignals reads a line SigIgn of /proc/PID/status from a file.
func ignoredSignals(t *testing.T, path string) uint64 {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	mask, err := strconv.ParseUint(strings.TrimSpace(strings.TrimPrefix(string(b), "SigIgn:")), 16, 64)
	if err != nil {
		t.Fatalf("%q: %v", b, err)
	}
	return mask
}

// TestEmulatorOutlivesItsLogReader: it serves on.
func TestEmulatorOutlivesItsLogReader(t *testing.T) {
	cmd := programCommand(t, "emulate", "azrelay", "--anonymous", "--address", "127.0.0.1:0", "--forward", "127.0.0.1:1")
	var said strings.Builder
	var stdout *os.File
	stderr := pipeTo(t, func(err *os.File) {
		stdout = pipeTo(t, func(out *os.File) {
			cmd.Stdout, cmd.Stderr = out, err
			startCommand(t, cmd)
		})
	})
	readUntil(t, stdout, &said, func() bool { return strings.Contains(said.String(), "}\n") })
	if err := stderr.Close(); err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(said.String(), `"ws://`)
	address, _, ok := strings.Cut(rest, `"`)
	if !ok {
		t.Fatalf("no endpoint in %s", said.String())
	}
	for range 3 { // each is logged
		c := dialTCP(t, address)
		send(t, c, "GET /$hc/nobody?sb-hc-action=connect HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
		if _, err := io.ReadFull(c, make([]byte, len("HTTP/1.1"))); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
}

// TestDemoWithoutAReader ends, and leaves nothing behind.
func TestDemoWithoutAReader(t *testing.T) {
	dir := t.TempDir()
	cmd := programCommand(t, "demo")
	cmd.Env = append(cmd.Env, "TMPDIR="+dir)
	stdout := pipeTo(t, func(w *os.File) {
		cmd.Stdout = w
		startCommand(t, cmd)
	})
	if err := stdout.Close(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != exitFailed {
		t.Errorf("it ended with %s", cmd.ProcessState)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("it left %v, %v", left, err)
	}
}

// programCommand is the program with arguments.
func programCommand(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	return cmd
}

// startCommand starts a command, which is killed when the test ends.
func startCommand(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
}

// TestLogReaderThatStalls: whatever ends meanwhile costs no goroutine, a reload
// has its outcome, one signal stops the daemon, and new connections are taken as
// ever.
func TestLogReaderThatStalls(t *testing.T) {
	place, socket := runIn(t)
	p := newProgram(t, echoing(t)+place+withMetrics)
	stderr := p.startPiped(t, 1)
	readUntil(t, stderr, p.log, func() bool { return len(p.log.Matching("msg", "serving metrics")) > 0 })
	serving, _ := p.log.Matching("msg", "serving metrics")[0]["address"].(string)
	address := p.address(t, "tcp.db")
	goroutines := func() (n int) {
		_, text := get(t, serving, "/metrics")
		_, rest, _ := strings.Cut(text, "\ngo_goroutines ")
		if _, err := fmt.Sscan(rest, &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := goroutines()
	const each, clients = 500, 6
	var ended sync.WaitGroup
	for range clients {
		ended.Go(func() {
			for range each {
				if err := exchangeOnce(address); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	ended.Wait()
	// Their lines are far more than the pipe takes.
	eventually(t, "goroutines wait for the log", func() bool { return goroutines() < before+100 })
	if r := reloadBy(t, socket); r.Error != "" {
		t.Errorf("reload: %s", r.Error)
	}
	p.signal(t, syscall.SIGHUP)
	if err := exchangeOnce(address); err != nil {
		t.Errorf("after the reloads: %v", err)
	}
	p.signal(t, syscall.SIGTERM)
	if status := p.status(t); status != exitOK {
		t.Errorf("exit status %d", status)
	}
}

// TestFailedStopWithAStalledReader: a stop that cannot remove the run directory says
// so to nobody, and ends.
func TestFailedStopWithAStalledReader(t *testing.T) {
	dir, run := sharedDir(t), sharedDir(t)
	config := filepath.Join(dir, "tunneld.hcl")
	text := jsonLog + echoing(t) + fmt.Sprintf("daemon {\n run_dir = %q\n}\n", run)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	p := &program{log: logtest.New(patience), path: config, exited: make(chan struct{})}
	p.cmd = unprivileged(exec.Command(buildProgram(t, dir), "run", "--config", config))
	stderr := p.startPiped(t, 1)
	if _, err := unix.FcntlInt(stderr.Fd(), unix.F_SETPIPE_SZ, 4096); err != nil {
		t.Fatal(err)
	}
	for range 50 { // more lines than the pipe takes
		if err := exchangeOnce(p.address(t, "tcp.db")); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(run, 0o555); err != nil {
		t.Fatal(err)
	}
	p.signal(t, syscall.SIGTERM)
	if status := p.status(t); status != exitFailed {
		t.Errorf("exit status %d", status)
	}
	if err := os.Chmod(run, 0o755); err != nil { // for who removes it
		t.Fatal(err)
	}
}

// exchangeOnce is a connection that ends cleanly after some bytes.
func exchangeOnce(address string) error {
	c, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	if b, err := io.ReadAll(c); err != nil || string(b) != "x" {
		return fmt.Errorf("read %q, %v", b, err)
	}
	return nil
}

// TestFailedStartWithoutAReader: what is wrong is told to nobody, and a signal
// still ends the program.
func TestFailedStartWithoutAReader(t *testing.T) {
	var config strings.Builder
	for i := range 3000 { // more than a pipe takes
		fmt.Fprintf(&config, "nonsense%d {}\n", i)
	}
	p := newProgram(t, config.String())
	stderr := pipeTo(t, func(w *os.File) { p.cmd.Stderr = w; p.start(t) })
	if _, err := stderr.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	p.signal(t, syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(patience):
		t.Fatal("the program does not end")
	}
}
