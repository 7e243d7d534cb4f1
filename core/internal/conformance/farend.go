package conformance

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// farEnd is the command that was given for the far end, in a process group of
// its own.
type farEnd struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed at its end; err is valid then
	err    error
	output tail
	killed bool // by the kit
}

func startFarEnd(_ context.Context, command []string) (*farEnd, error) {
	f := &farEnd{cmd: exec.Command(command[0], command[1:]...), exited: make(chan struct{})}
	f.cmd.Stdout, f.cmd.Stderr = &f.output, &f.output
	f.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// What it leaves behind may hold the pipe of its output.
	f.cmd.WaitDelay = time.Second
	if err := f.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the far end: %w", err)
	}
	go func() {
		f.err = f.cmd.Wait()
		close(f.exited)
	}()
	return f, nil
}

// farEndFix is what to do about a far end that ended: what answers then is
// another one, or nothing.
const farEndFix = "keep the far end's command running, in the foreground, and its address free for it"

// ended says how the far end has ended of itself, and what it printed last; ""
// while it runs, or where there is none.
func (f *farEnd) ended() string {
	if f == nil || f.killed {
		return ""
	}
	select {
	case <-f.exited:
	default:
		return ""
	}
	how := "exit status 0"
	if f.err != nil && !errors.Is(f.err, exec.ErrWaitDelay) {
		how = f.err.Error()
	}
	text := "the far end has ended: " + how
	if out := f.output.String(); out != "" {
		text += "\n" + out
	}
	return text
}

// signal sends a signal to the whole group; there may be no far end.
func (f *farEnd) signal(s syscall.Signal) {
	if f != nil {
		_ = syscall.Kill(-f.cmd.Process.Pid, s)
	}
}

// pause has the far end stand still until resume.
func (f *farEnd) pause() { f.signal(syscall.SIGSTOP) }

func (f *farEnd) resume() { f.signal(syscall.SIGCONT) }

// kill ends the far end in the midst of what it does.
func (f *farEnd) kill() {
	f.killed = true
	f.signal(syscall.SIGKILL)
	<-f.exited
}

// close ends the group.
func (f *farEnd) close() {
	group := -f.cmd.Process.Pid
	_ = syscall.Kill(group, syscall.SIGTERM)
	t := time.NewTimer(5 * time.Second)
	defer t.Stop()
	select {
	case <-f.exited:
	case <-t.C:
	}
	// Also after the leader's end: the group has its number until the last of it
	// is gone.
	_ = syscall.Kill(group, syscall.SIGKILL)
	<-f.exited
	poll(context.Background(), time.Second, func() bool { return syscall.Kill(group, 0) != nil })
}

// tail keeps the end of what is written.
type tail struct {
	mu sync.Mutex
	b  []byte
}

const maxTail = 2 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, b...)
	if n := len(t.b) - maxTail; n > 0 {
		t.b = append(t.b[:0], t.b[n:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.b))
}
