package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// downError is why a plugin takes no calls now.
type downError struct {
	what  string
	hint  string        // empty: pluginHint
	again time.Duration // until the next start; 0: not known
}

func (e *downError) Error() string { return e.what }

// supervise keeps the plugin running until it is stopped, or ends while it
// drains.
func (p *Plugin) supervise(proc *Process) {
	defer close(p.finished)
	defer p.host.forget(p)
	defer p.force()
	defer p.past.Wait()
	const firstTry = 2 // of a delay that is one: see Backoff
	for tries := firstTry; proc != nil; {
		var again <-chan time.Time
		if p.refuses() {
			again = time.After(p.host.opts.Backoff.delay(tries))
		}
		select {
		case <-again:
			p.offerAgain(proc)
			tries++
		case <-proc.Exited():
			done := proc.done
			p.past.Go(func() { <-done })
			p.lost(proc)
			proc, tries = p.revive(proc), firstTry
		case <-p.stopping.Done():
			p.turn(StatusStopped, time.Time{})
			p.err = proc.Terminate(p.forced, p.host.opts.StopTimeout)
			p.lost(proc)
			p.log.Info("plugin stopped", "pid", proc.PID(), "exit", proc.exit())
			return
		}
	}
}

// revive starts processes until one runs, or none is wanted.
func (p *Plugin) revive(dead *Process) *Process {
	if time.Since(dead.started) >= p.host.opts.Backoff.Reset {
		p.failures = 0
	}
	for {
		p.failures++
		if p.unwanted() {
			return nil
		}
		wait := p.host.opts.Backoff.delay(p.failures)
		status := StatusBackoff
		if p.failures > loopAfter {
			status = StatusCrashLooping
			if p.failures == loopAfter+1 {
				p.log.Error("plugin keeps dying: its dials fail until it stays up", "times", loopAfter, "exit", p.State().LastExit)
			}
		}
		p.turn(status, time.Now().Add(wait))
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-p.stopping.Done():
		}
		t.Stop()
		if p.unwanted() {
			return nil
		}
		if status != StatusCrashLooping {
			p.turn(StatusStarting, time.Time{})
		}
		proc, err := p.restart()
		if err == nil {
			return proc
		}
		if p.stopping.Err() == nil {
			p.log.Error("plugin could not be restarted", "err", err)
		}
		p.failed(err)
	}
}

// unwanted says, and records, that there is to be no further process.
func (p *Plugin) unwanted() bool {
	if p.stopping.Err() == nil && p.State().Status != StatusDraining {
		return false
	}
	p.turn(StatusStopped, time.Time{})
	return true
}

// restart starts a process, configures it like the one before and puts it in
// its place.
func (p *Plugin) restart() (*Process, error) {
	proc, err := p.launch(p.stopping)
	if err != nil {
		return nil, err
	}
	if err := p.lock(p.stopping); err != nil {
		return nil, errors.Join(err, p.abandon(proc))
	}
	defer p.unlock()
	refused, err := p.restore(proc)
	if err != nil {
		err = errors.Join(err, p.abandon(proc))
		return nil, &StartError{Plugin: p.spec.Name, Err: err, Output: proc.child.out.last(), cause: proc.child.out.causeLine()}
	}
	p.mu.Lock()
	p.refused = refused
	p.restarts++
	p.mu.Unlock()
	p.publish(proc)
	return proc, nil
}

// abandon ends a process that is not put to use.
func (p *Plugin) abandon(proc *Process) error {
	proc.end("could not be configured")
	// It has no time to end by itself.
	now, cancel := context.WithCancel(p.forced)
	cancel()
	return proc.Terminate(now, p.host.opts.StopTimeout)
}

func (p *Plugin) launch(ctx context.Context) (*Process, error) {
	p.mu.Lock()
	epoch := p.epoch
	p.mu.Unlock()
	return p.host.Launch(ctx, Launch{
		Spec:    p.spec,
		Log:     p.log,
		Watcher: newLogged(p.log, func(u []*pluginv1.UpstreamStatus) { p.report(epoch, u) }),
		Calls:   Cleaned(),
	})
}

// publish puts a process in charge.
func (p *Plugin) publish(proc *Process) {
	p.mu.Lock()
	changed := p.schema != nil && !proto.Equal(p.schema, proc.Schema())
	p.proc, p.info, p.schema, p.identity = proc, proc.Info(), proc.Schema(), proc.identity
	p.mu.Unlock()
	p.turn(StatusRunning, time.Time{})
	p.log.Info("plugin started", "pid", proc.PID(), "version", proc.Info().GetVersion())
	if changed {
		p.log.Warn("restarted plugin has another schema: its program was replaced; reload the configuration to check it again")
	}
}

// lost takes a process that has ended out of charge.
func (p *Plugin) lost(proc *Process) {
	// What it printed last is often why it ended.
	proc.child.read(drainWait / 4)
	exit, output, cause := proc.exit(), proc.child.out.last(), proc.child.out.causeLine()
	p.forgetReports(func() {
		p.proc = nil
		clear(p.refused)
		p.lastExit, p.lastOutput, p.lastCause = exit, output, cause
	})
	if p.stopping.Err() == nil {
		p.log.Error("plugin died", "pid", proc.PID(), "exit", exit, "lived", time.Since(proc.started).Round(time.Millisecond))
	}
}

// failed records why a start did not succeed.
func (p *Plugin) failed(err error) {
	p.forgetReports(func() {
		var start *StartError
		if errors.As(err, &start) {
			p.lastExit, p.lastOutput, p.lastCause = start.Err.Error(), start.Output, start.cause
		} else {
			p.lastExit = err.Error()
		}
	})
}

// turn changes the status. Draining ends only by stopping.
func (p *Plugin) turn(s Status, next time.Time) {
	p.mu.Lock()
	if p.status == StatusStopped || p.status == StatusDraining && s != StatusStopped {
		p.mu.Unlock()
		return
	}
	p.status, p.since, p.next = s, time.Now(), next
	close(p.changed)
	p.changed = make(chan struct{})
	p.mu.Unlock()
	p.notify()
}

// Down says that the plugin has died, and takes calls neither now nor in a moment.
func (p *Plugin) Down() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status == StatusCrashLooping || p.status == StatusBackoff && time.Until(p.next) > imminent
}

// acquire returns the running process. It waits for one that is about to run.
func (p *Plugin) acquire(ctx context.Context) (*Process, error) {
	for {
		p.mu.Lock()
		proc, status, next, changed := p.proc, p.status, p.next, p.changed
		why := p.why()
		p.mu.Unlock()
		again := max(time.Until(next), 0)
		switch {
		case status == StatusRunning && proc != nil && !closed(proc.Exited()):
			return proc, nil
		case status == StatusStopped || status == StatusDraining:
			return nil, &downError{what: "it is " + string(status)}
		case status == StatusCrashLooping:
			return nil, &downError{what: "it keeps dying, " + why, again: again}
		case status == StatusBackoff && again > imminent:
			return nil, &downError{what: "it waits for its restart, " + why, again: again}
		}
		// A running process that has just ended is about to be noticed.
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, &downError{what: "it is being restarted, " + why}
		}
	}
}

// why says how the last process ended. It is called with mu held.
func (p *Plugin) why() string {
	if p.lastExit == "" {
		return "unknown reason"
	}
	s := "last end: " + p.lastExit
	if p.lastCause != "" {
		s += fmt.Sprintf(" (it printed %q)", p.lastCause)
	}
	return s
}

// lock takes config.
func (p *Plugin) lock(ctx context.Context) error {
	select {
	case p.config <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *Plugin) unlock() { <-p.config }
