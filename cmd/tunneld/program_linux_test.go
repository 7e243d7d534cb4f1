package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/internal/logtest"
)

// program is "tunneld run" in a process of its own.
type program struct {
	cmd    *exec.Cmd
	log    *logtest.Log // all of its standard error
	path   string
	exited chan struct{}
	err    error // valid once exited is closed
}

// runProgram runs the daemon with a configuration and waits until it serves n
// listeners.
func runProgram(t *testing.T, n int, config string) *program {
	t.Helper()
	p := newProgram(t, config)
	p.cmd.Stderr = p.log
	p.start(t)
	p.log.Await(t, n, "msg", "listening")
	return p
}

// newProgram is "tunneld run" with a configuration, which start starts.
func newProgram(t *testing.T, config string) *program {
	t.Helper()
	p := &program{
		log:    logtest.New(patience),
		path:   filepath.Join(t.TempDir(), "tunneld.hcl"),
		exited: make(chan struct{}),
	}
	if err := os.WriteFile(p.path, []byte(jsonLog+config), 0o600); err != nil {
		t.Fatal(err)
	}
	p.cmd = programCommand(t, "run", "--config", p.path)
	return p
}

// start starts the program. It is killed when the test ends.
func (p *program) start(t *testing.T) {
	t.Helper()
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it may have ended
		<-p.exited
		if t.Failed() {
			t.Logf("standard error of the program:\n%s", p.log)
		}
	})
}

func (p *program) address(t *testing.T, id string) string {
	t.Helper()
	line := p.log.Await(t, 1, "msg", "listening", "listener", id)[0]
	address, _ := line["address"].(string)
	return address
}

func (p *program) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// status waits for the end and returns the exit status.
func (p *program) status(t *testing.T) int {
	t.Helper()
	select {
	case <-p.exited:
	case <-time.After(patience):
		t.Fatal("the program does not end")
	}
	var exit *exec.ExitError
	if p.err != nil && !errors.As(p.err, &exit) {
		t.Fatal(p.err)
	}
	return p.cmd.ProcessState.ExitCode()
}

// watchProcess returns a function that waits for the end of a process that need
// not be a child.
func watchProcess(t *testing.T, pid int) (await func()) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatalf("pidfd of process %d: %v", pid, err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return func() {
		t.Helper()
		deadline := time.Now().Add(patience)
		for {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(time.Until(deadline).Milliseconds()))
			switch {
			case err == nil && n == 1:
				return
			case errors.Is(err, unix.EINTR):
			default:
				t.Fatalf("process %d lives on (%v)", pid, err)
			}
		}
	}
}
