package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/tunneld/tunneld/core/status"
)

// notifier tells the service manager how the daemon is, as sd_notify(3) has it.
// Where there is no service manager it does nothing. A manager that does not listen
// is no reason to fail.
type notifier struct {
	mu       sync.Mutex
	stopping bool
}

// send says one thing. After STOPPING=1 it says no more: a reload that ends
// meanwhile does not make the daemon ready again.
func (n *notifier) send(lines ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stopping {
		return
	}
	n.stopping = lines[0] == daemon.SdNotifyStopping
	_, _ = daemon.SdNotify(false, strings.Join(lines, "\n"))
}

// started says that the daemon serves.
func (n *notifier) started(listeners int, generation uint64) {
	n.send(daemon.SdNotifyReady, "STATUS="+serving(listeners, generation))
}

// event tells of reloads. Type=notify-reload waits for READY=1 with a MONOTONIC_USEC
// that is not before its signal, whatever the outcome; Type=notify shows that one is
// under way.
func (n *notifier) event(e status.Event) {
	switch now := serving(e.Listeners, e.Generation); {
	case e.Reload == nil:
		n.send(daemon.SdNotifyReloading, daemon.SdNotifyMonotonicUsec()+"STATUS="+now+", reloading")
	case e.Reload.Error != "":
		n.send(daemon.SdNotifyReady, "STATUS="+now+", the last reload failed: "+printable(e.Reload.Error))
	default:
		n.send(daemon.SdNotifyReady, "STATUS="+now)
	}
}

// stop says that the daemon drains and ends.
func (n *notifier) stop() { n.send(daemon.SdNotifyStopping, "STATUS=stopping") }

func serving(listeners int, generation uint64) string {
	return fmt.Sprintf("%s, generation %d", count(uint64(listeners), "listener"), generation)
}

// watch runs the watchdog until stop is called.
func (n *notifier) watch(answer func() status.Status) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		n.watchdog(ctx, answer)
	}()
	return func() {
		cancel()
		<-ended
	}
}

// watchdog tells the manager, if it wants to know, that the daemon lives, until
// ctx is done, also while it stops: twice in the time that the manager gives, and
// only as long as the daemon answers.
func (n *notifier) watchdog(ctx context.Context, answer func() status.Status) {
	within, err := daemon.SdWatchdogEnabled(false)
	if err != nil || within <= 0 {
		return
	}
	tick := time.NewTicker(within / 2)
	defer tick.Stop()
	for {
		_ = answer()
		_, _ = daemon.SdNotify(false, daemon.SdNotifyWatchdog)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
