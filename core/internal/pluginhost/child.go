package pluginhost

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// channelFD is the number under which a plugin inherits its end of the
// descriptor channel: the first of exec.Cmd's ExtraFiles.
const channelFD = "3"

const (
	// maxHandshake bounds the first line on a plugin's stdout.
	maxHandshake = 4 << 10
	// drainWait is how long the pipes and the channel of a process that has
	// ended are read on: whoever still holds their other ends was started by it
	// and left its group.
	drainWait = time.Second
)

// child is one process, and go-plugin's runner for it. It differs from
// go-plugin's own in that it is always killable, that the end of the process is
// its end, whatever its offspring does, and that go-plugin sees one line of its
// stdout and nothing of its stderr, whose content can make it panic.
//
// It does not set Pdeathsig: that is sent when the thread that forked ends, not
// the daemon, and would take the time from a relay plugin to abort its tunnels.
// A plugin ends when its end of the descriptor channel reads the end of file,
// which the kernel brings about however the daemon ends.
type child struct {
	cmd     *exec.Cmd
	program program
	inherit *os.File // the plugin's end of the channel
	out     *output

	mu    sync.Mutex // guards the process against a signal after its end
	alive bool
	shot  bool // it was sent SIGKILL while it was alive
	spare bool // its group is left alone at its end
	pid   int

	// exited is closed once the process has been reaped; state is valid then.
	// drained is closed once its output has been read as well.
	exited, drained chan struct{}
	state           *os.ProcessState

	handshake *io.PipeReader
	firstMu   sync.Mutex
	first     []byte // the first line of its stdout
}

func newChild(p program, inherit *os.File, out *output) *child {
	return &child{
		program: p,
		inherit: inherit,
		out:     out,
		exited:  make(chan struct{}),
		drained: make(chan struct{}),
	}
}

// release closes what only the start needs.
func (c *child) release() {
	c.program.close()
	_ = c.inherit.Close()
}

// Start starts the process. It is called once.
func (c *child) Start(context.Context) (err error) {
	outR, outW, err := os.Pipe()
	if err != nil {
		return err
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		return errors.Join(err, outR.Close(), outW.Close())
	}
	// Stdin stays nil, which is /dev/null: a plugin that reads a terminal would
	// be stopped. Both outputs are files, so that Wait waits for the process
	// and not for whoever else holds them.
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = nil, outW, errW
	c.cmd.ExtraFiles = []*os.File{c.inherit}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err = c.cmd.Start()
	_, _ = outW.Close(), errW.Close()
	if err != nil {
		return errors.Join(c.program.explain(err), outR.Close(), errR.Close())
	}
	c.mu.Lock()
	c.pid, c.alive = c.cmd.Process.Pid, true
	c.mu.Unlock()

	var handW *io.PipeWriter
	c.handshake, handW = io.Pipe()
	var readers sync.WaitGroup
	readers.Go(func() { c.readStdout(outR, handW) })
	readers.Go(func() { c.out.copy(errR, "stderr") })
	go func() {
		c.reap()
		c.state = c.cmd.ProcessState
		close(c.exited)
		deadline := time.Now().Add(drainWait)
		_, _ = outR.SetReadDeadline(deadline), errR.SetReadDeadline(deadline)
		readers.Wait()
		_, _ = outR.Close(), errR.Close()
		close(c.drained)
	}()
	return nil
}

// readStdout passes the first line on to go-plugin. What comes later bypassed
// the SDK, which redirects stdout.
func (c *child) readStdout(r io.Reader, hand *io.PipeWriter) {
	b := bufio.NewReaderSize(r, maxHandshake)
	line, err := b.ReadSlice('\n')
	c.firstMu.Lock()
	c.first = bytes.Clone(line)
	c.firstMu.Unlock()
	if len(line) > 0 {
		_, _ = hand.Write(line)
	} else {
		// Who ends closes its stdout first, and go-plugin kills it for that: how it
		// ended would then be a matter of luck.
		c.wait(noticeWait)
	}
	_ = hand.Close()
	if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
		return
	}
	c.out.copy(b, "stdout")
}

// signal sends sig to the process and its group. It does nothing once the
// process has ended.
func (c *child) signal(sig syscall.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.alive {
		c.shot = c.shot || sig == syscall.SIGKILL
		_ = syscall.Kill(-c.pid, sig)
	}
}

// spareGroup leaves what the process started alive when the process ends.
func (c *child) spareGroup() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spare = true
}

// byItself waits for the end of the process, for d at most, and says whether it
// ended without the host's SIGKILL.
func (c *child) byItself(d time.Duration) bool {
	if !c.wait(d) {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	ws, ok := c.state.Sys().(syscall.WaitStatus)
	return !c.shot || !ok || !ws.Signaled() || ws.Signal() != syscall.SIGKILL
}

// wait waits for the process to be reaped, and says whether it was within d.
func (c *child) wait(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-c.exited:
		return true
	case <-t.C:
		return false
	}
}

// read waits for the output of an ended process, for d at most: its offspring
// may hold the pipes.
func (c *child) read(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-c.drained:
	case <-t.C:
	}
}

// how says how the process ended: "exit status 1", "signal: killed".
func (c *child) how() string {
	select {
	case <-c.exited:
		return c.state.String()
	default:
		return "it is still running"
	}
}

// firstLine returns the first line of its stdout, or what there is of it.
func (c *child) firstLine() string {
	c.firstMu.Lock()
	defer c.firstMu.Unlock()
	return strings.TrimSpace(string(c.first))
}

// Wait waits for the end of the process.
func (c *child) Wait(ctx context.Context) error {
	select {
	case <-c.exited:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Kill kills the process and its group, stopped ones too.
func (c *child) Kill(context.Context) error {
	c.signal(syscall.SIGKILL)
	return nil
}

// Stdout returns the first line of the process's stdout.
func (c *child) Stdout() io.ReadCloser { return c.handshake }

// Stderr returns nothing: the process's stderr is read by Start.
func (c *child) Stderr() io.ReadCloser { return io.NopCloser(bytes.NewReader(nil)) }

// Name returns the program's name.
func (c *child) Name() string { return c.program.argv[0] }

// ID returns the process's number, or nothing before its start.
func (c *child) ID() string {
	if n := c.number(); n != 0 {
		return strconv.Itoa(n)
	}
	return ""
}

// number returns the process's number, or 0 before its start.
func (c *child) number() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pid
}

// Diagnose returns nothing: the host says it better.
func (c *child) Diagnose(context.Context) string { return "" }

// PluginToHost refuses every address but a unix socket: TCP would be open to
// every user of the machine.
func (c *child) PluginToHost(network, address string) (string, string, error) {
	if network != "unix" {
		return "", "", fmt.Errorf("it listens on %s %s, and only a unix socket is allowed", network, address)
	}
	return network, address, nil
}

// HostToPlugin is for go-plugin's broker, which is not used.
func (c *child) HostToPlugin(network, address string) (string, string, error) {
	return network, address, nil
}
