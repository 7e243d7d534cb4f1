package pluginhost

import (
	"context"
	"fmt"
	"syscall"

	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// Probe is one process of a plugin for a test of it: beneath what Plugin keeps
// from it. It is safe for concurrent use.
type Probe struct{ p *process }

// Probe returns the process that runs now.
func (p *Plugin) Probe(ctx context.Context) (*Probe, error) {
	proc, err := p.acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("plugin %q: %w", p.spec.Name, err)
	}
	return &Probe{proc}, nil
}

// PID returns the process's number, which is its group's as well.
func (r *Probe) PID() int { return r.p.child.number() }

// Service calls the process as it is.
func (r *Probe) Service() pluginv1.PluginServiceClient { return r.p.plugin }

// Dial sends a request as it is, but for its token, and takes nothing that is
// handed over for it: it is for dials that have to fail.
func (r *Probe) Dial(ctx context.Context, req *pluginv1.DialRequest) (*pluginv1.DialResponse, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	k := r.p.tokens.issue(r.p.waits.handoff, cancel)
	defer func() {
		d := r.p.tokens.drop(k) // k.path is settled from here on
		r.p.reject(k.token, k.path, d, "nobody wants this tunnel")
	}()
	req.Token = k.token
	return r.p.tunnel.Dial(ctx, req)
}

// Kill kills the process and its group.
func (r *Probe) Kill() { r.p.child.signal(syscall.SIGKILL) }

// HangUp closes the descriptor channel, as the daemon's death would. From then
// on nothing is sent to the process or its group until the plugin is stopped:
// what the process leaves behind is the caller's to end.
func (r *Probe) HangUp() {
	r.p.tellOnce.Do(func() { close(r.p.told) })
	r.p.child.spareGroup()
	_ = r.p.channel.Close()
}

// Exited is closed once the process has ended.
func (r *Probe) Exited() <-chan struct{} { return r.p.child.exited }
