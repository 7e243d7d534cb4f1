package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/pluginwire"
	"github.com/tunneld/tunneld/internal/schema"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// killWait bounds the wait for a process that was sent SIGKILL. One that stays
// longer hangs in the kernel, and nothing ends it.
const killWait = 5 * time.Second

// noticeWait bounds the wait for the end of a process whose connection broke:
// the kernel closes the one before it reports the other.
const noticeWait = 250 * time.Millisecond

// waits are the bounds on what a plugin does on the descriptor channel.
type waits struct {
	// handoff: from the first of descriptor and answer to the second.
	handoff time.Duration
	// confirm: from a relay's end of file to the word on it.
	confirm time.Duration
	// send: for a record to be taken.
	send time.Duration
}

// Process is one process of a plugin, from its start to its end.
type Process struct {
	spec    Spec
	log     *slog.Logger
	waits   waits
	child   *child
	client  *goplugin.Client
	channel *pluginwire.Channel
	watcher Watcher
	tokens  *tokens
	service pluginv1.PluginServiceClient
	tunnels pluginv1.TunnelServiceClient
	info    *pluginv1.GetInfoResponse
	schema  *pluginv1.Block
	started time.Time
	// identity is that of the files as they were before they were started.
	identity string
	dir      string

	// cancel ends the goroutines' calls; group is all of them but the last,
	// which closes done once nothing of the process is left.
	cancel context.CancelFunc
	group  sync.WaitGroup
	done   chan struct{}

	// ending is closed when the process has been asked to end.
	ending  chan struct{}
	endOnce sync.Once

	mu     sync.Mutex
	reason string // why the host ended it
}

// Watcher takes what a process says, as it says it. Its methods are called by the
// process's goroutines and must not block.
type Watcher interface {
	// Printed takes a line of its output; several may come at once. Silent says
	// that one of its streams has ended.
	Printed(Line)
	Silent()
	// Sent takes a record of the descriptor channel, in their order, and what is
	// wrong with one that cannot be used.
	Sent(pluginwire.Record, error)
	// Reported takes what the plugin says of its upstreams.
	Reported([]*pluginv1.UpstreamStatus)
}

// Launch is a process to be started.
type Launch struct {
	Spec    Spec
	Log     *slog.Logger
	Watcher Watcher
	// Calls are how the plugin is called, besides what go-plugin needs: see Cleaned.
	Calls []grpc.DialOption
}

// Launch starts a process that nobody supervises, and asks it who it is. On an error,
// a *StartError, nothing is left of it; otherwise the caller ends it by Terminate.
func (h *Host) Launch(ctx context.Context, l Launch) (*Process, error) {
	spec := l.Spec
	ctx, stop := context.WithTimeoutCause(ctx, h.opts.StartTimeout, fmt.Errorf("not ready after %s", h.opts.StartTimeout))
	defer stop()
	run, err := h.runPath()
	if err != nil {
		return nil, &StartError{Plugin: spec.Name, Err: err}
	}
	identity := Identity(ctx, spec)
	program, err := openProgram(ctx, spec, h.opts.Self, h.selfName)
	if err != nil {
		return nil, &StartError{Plugin: spec.Name, Err: err}
	}
	channel, far, err := pluginwire.Pair()
	if err != nil {
		program.close()
		return nil, &StartError{Plugin: spec.Name, Err: err}
	}
	p := &Process{
		spec:     spec,
		identity: identity,
		log:      l.Log,
		waits:    h.waits,
		child:    newChild(program, far, newOutput(l.Log, l.Watcher)),
		watcher:  l.Watcher,
		channel:  channel,
		tokens:   newTokens(),
		done:     make(chan struct{}),
		ending:   make(chan struct{}),
	}
	defer p.child.release()
	p.dir = filepath.Join(run, strconv.FormatUint(h.starts.Add(1)%100000, 10))
	p.client = goplugin.NewClient(clientConfig(p.child, clientOptions{run, l.Log, l.Calls, p.prepare}))
	p.started = time.Now()
	conn, err := p.connect(ctx)
	if err == nil {
		p.service, p.tunnels = pluginv1.NewPluginServiceClient(conn), pluginv1.NewTunnelServiceClient(conn)
		err = p.introduce(ctx, h.opts.CoreVersion)
	}
	if err != nil {
		err = p.startError(ctx, err)
		p.discard()
		return nil, err
	}
	life, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	p.group.Go(p.receive)
	p.group.Go(func() { p.watch(life) })
	p.group.Go(func() { p.ping(life, h.opts.PingInterval, h.opts.CallTimeout, h.opts.CoreVersion) })
	go p.finish()
	return p, nil
}

// prepare makes go-plugin's half-made command ours. Its socket directory gets a
// shorter name, since the whole path has to fit into a socket's address.
func (p *Process) prepare(cmd *exec.Cmd, socketDir string) error {
	if err := os.Rename(socketDir, p.dir); err != nil {
		return errors.Join(err, os.RemoveAll(socketDir))
	}
	handshake := append(cmd.Env, goplugin.EnvUnixSocketDir+"="+p.dir)
	cmd.Path, cmd.Args = p.child.program.path, p.child.program.argv
	// exec.Command("") has looked its empty name up along $PATH.
	cmd.Err = nil
	cmd.Env = environ(p.spec, handshake)
	p.child.cmd = cmd
	return nil
}

// connect starts the process, within ctx: what hangs is killed.
func (p *Process) connect(ctx context.Context) (*grpc.ClientConn, error) {
	type result struct {
		conn *grpc.ClientConn
		err  error
	}
	ready := make(chan result, 1)
	go func() {
		conn, err := connect(p.client)
		ready <- result{conn, err}
	}()
	select {
	case r := <-ready:
		return r.conn, r.err
	case <-ctx.Done():
	}
	p.child.signal(syscall.SIGKILL)
	t := time.NewTimer(killWait)
	defer t.Stop()
	select {
	case <-ready:
	case <-t.C:
	}
	return nil, context.Cause(ctx)
}

// introduce asks who the plugin is and what it takes.
func (p *Process) introduce(ctx context.Context, version string) error {
	info, err := p.service.GetInfo(ctx, &pluginv1.GetInfoRequest{CoreVersion: version, CommonNames: schema.CommonTable()})
	if err != nil {
		return fmt.Errorf("ask for its info: %w", callError(err))
	}
	if info.GetName() != p.spec.Name {
		return fmt.Errorf("%w %q: the plugin block, the upstreams or the file's name must have the same", errOtherName, info.GetName())
	}
	if err := takes(info.GetDataPaths()); err != nil {
		return err
	}
	schema, err := p.service.GetSchema(ctx, &pluginv1.GetSchemaRequest{})
	if err != nil {
		return fmt.Errorf("ask for its schema: %w", callError(err))
	}
	p.info, p.schema = info, schema.GetUpstream()
	if p.schema == nil {
		p.schema = &pluginv1.Block{}
	}
	return nil
}

// takes says whether one of a plugin's data paths is one that the daemon takes:
// otherwise each dial would fail. A plugin that names none is left to its dials.
func takes(paths []pluginv1.DataPath) error {
	if len(paths) == 0 || slices.ContainsFunc(paths, func(d pluginv1.DataPath) bool { return slices.Contains(accepted, d) }) {
		return nil
	}
	var names []string
	for _, d := range paths {
		names = append(names, d.Text())
	}
	return fmt.Errorf("%w (%s), and this tunneld supports direct and relay: use a newer tunneld, or a plugin that passes descriptors", errDataPaths, strings.Join(names, ", "))
}

// discard ends a process that never came to work. It returns once nothing is
// left of it.
func (p *Process) discard() {
	p.child.signal(syscall.SIGKILL)
	p.dispose()
}

// dispose frees what a process holds, once it has been told to end.
func (p *Process) dispose() {
	if p.child.ID() != "" && !p.child.wait(killWait) {
		p.log.Error("plugin process cannot be killed: it hangs in the kernel", "pid", p.child.ID())
		_ = p.channel.Close()
		return
	}
	_ = p.channel.Close()
	p.client.Kill()
	if p.child.ID() != "" {
		<-p.child.drained
	}
	if err := os.RemoveAll(p.dir); err != nil {
		p.log.Debug("remove the plugin's socket directory", "err", err)
	}
}

// finish waits for the end of the process and clears up behind it.
func (p *Process) finish() {
	defer close(p.done)
	<-p.child.exited
	// What it sent before its end counts; what somebody else could still send
	// through its end of the channel does not.
	t := time.NewTimer(drainWait)
	select {
	case <-p.tokens.gone:
	case <-t.C:
	}
	t.Stop()
	p.cancel()
	p.dispose()
	p.group.Wait()
}

// end ends the process for a reason, which its exit is then explained with.
func (p *Process) end(reason string) {
	p.mu.Lock()
	if p.reason == "" && !closed(p.child.exited) {
		p.reason = reason
	}
	p.mu.Unlock()
	p.child.signal(syscall.SIGKILL)
}

// exit says how the process ended.
func (p *Process) exit() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reason != "" {
		return "it " + p.reason + " and was killed"
	}
	return p.child.how()
}

// died returns the error of what was under way when the process ended. Its end
// is often noticed a moment before its cause.
func (p *Process) died() error {
	p.child.wait(drainWait)
	return fmt.Errorf("%w: %s", tunnel.ErrPluginDied, p.exit())
}

// PID returns the process's number, which is its group's as well.
func (p *Process) PID() int { return p.child.number() }

// Info returns what the plugin says of itself, and Schema what an upstream's body may
// hold. Both are shared and not to be changed.
func (p *Process) Info() *pluginv1.GetInfoResponse { return p.info }

// Schema: see Info.
func (p *Process) Schema() *pluginv1.Block { return p.schema }

// Service and Tunnels call the process as it is.
func (p *Process) Service() pluginv1.PluginServiceClient { return p.service }

// Tunnels: see Service.
func (p *Process) Tunnels() pluginv1.TunnelServiceClient { return p.tunnels }

// Exited is closed once the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.child.exited }

// Signal sends a signal to the process and its group, if it has not ended.
func (p *Process) Signal(s syscall.Signal) { p.child.signal(s) }

// Abandon closes the descriptor channel, as the daemon's death does, and leaves the
// process and its group to themselves: what outlives the process is the caller's to
// end.
func (p *Process) Abandon() {
	p.endOnce.Do(func() { close(p.ending) })
	p.child.spareGroup()
	_ = p.channel.Close()
}

// Terminate ends the process: SIGTERM to its group, and SIGKILL once it has not
// ended for a while or ctx is done. It returns once nothing is left of it.
func (p *Process) Terminate(ctx context.Context, patience time.Duration) error {
	p.endOnce.Do(func() { close(p.ending) })
	p.child.signal(syscall.SIGTERM)
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-p.done:
		return nil
	case <-t.C:
		p.log.Warn("plugin did not end on SIGTERM and is killed", "after", patience)
	case <-ctx.Done():
	case <-p.child.exited:
	}
	p.child.signal(syscall.SIGKILL)
	bound := time.NewTimer(killWait + 2*drainWait)
	defer bound.Stop()
	select {
	case <-p.done:
		return nil
	case <-bound.C:
		return fmt.Errorf("stop plugin %q: process %s cannot be killed", p.spec.Name, p.child.ID())
	}
}

// ping ends the process once it no longer answers: stopped, deadlocked, or
// without its server.
func (p *Process) ping(life context.Context, every, patience time.Duration, version string) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	failed := 0
	for {
		select {
		case <-life.Done():
			return
		case <-tick.C:
		}
		ctx, cancel := context.WithTimeout(life, patience)
		_, err := p.service.GetInfo(ctx, &pluginv1.GetInfoRequest{CoreVersion: version, CommonNames: schema.CommonTable()})
		cancel()
		switch {
		case err == nil:
			failed = 0
			continue
		case life.Err() != nil:
			return
		}
		failed++
		if status.Code(err) == codes.DeadlineExceeded || failed == 3 {
			p.log.Error("plugin does not answer and is replaced", "pid", p.child.ID(), "err", err)
			p.end("stopped answering")
			return
		}
	}
}

// watch follows what the plugin reports of its upstreams.
func (p *Process) watch(life context.Context) {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 10*time.Second) {
		stream, err := p.service.WatchStatus(life, &pluginv1.WatchStatusRequest{})
		for err == nil {
			var r *pluginv1.WatchStatusResponse
			if r, err = stream.Recv(); err == nil {
				p.watcher.Reported(r.GetUpstreams())
			}
		}
		if life.Err() != nil || status.Code(err) == codes.Unimplemented {
			return
		}
		t := time.NewTimer(pause)
		select {
		case <-life.Done():
		case <-t.C:
		}
		t.Stop()
	}
}
