package farend

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/tunneld/tunneld/core/conformance/internal/poll"
)

// Command is the command that runs the far end, in a process group of
// its own.
type Command struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed at its end; err is valid then
	err    error
	output tail
	killed bool // by the kit
}

// Start runs a command with its arguments.
func Start(command []string) (*Command, error) {
	f := &Command{cmd: exec.Command(command[0], command[1:]...), exited: make(chan struct{})}
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

// Ended says how the far end has ended of itself, and what it printed last; ""
// while it runs, or where there is none.
func (f *Command) Ended() string {
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
func (f *Command) signal(s syscall.Signal) {
	if f != nil {
		_ = syscall.Kill(-f.cmd.Process.Pid, s)
	}
}

// Pause has the far end stand still until Resume.
func (f *Command) Pause() { f.signal(syscall.SIGSTOP) }

// Resume has it go on.
func (f *Command) Resume() { f.signal(syscall.SIGCONT) }

// Kill ends the far end in the midst of what it does.
func (f *Command) Kill() {
	f.killed = true
	f.signal(syscall.SIGKILL)
	<-f.exited
}

// Close ends the group.
func (f *Command) Close() {
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
	poll.Until(context.Background(), time.Second, func() bool { return syscall.Kill(group, 0) != nil })
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
