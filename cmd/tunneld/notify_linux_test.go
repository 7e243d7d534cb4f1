package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/core/status"
)

// serviceManager is the far end of sd_notify.
type serviceManager struct{ messages chan string }

// startManager receives what programs that are started from now on say.
func startManager(t *testing.T) *serviceManager {
	t.Helper()
	dir, err := os.MkdirTemp("", "notify")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	m := &serviceManager{messages: make(chan string, 1000)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b := make([]byte, 4096)
		for {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			m.messages <- string(b[:n])
		}
	}()
	t.Cleanup(func() {
		conn.Close()
		<-ended
		os.RemoveAll(dir)
	})
	t.Setenv("NOTIFY_SOCKET", path)
	return m
}

// mark says something itself, behind what has been said so far.
func (m *serviceManager) mark(t *testing.T) {
	t.Helper()
	if _, err := daemon.SdNotify(false, "MARK=1"); err != nil {
		t.Fatal(err)
	}
}

// next returns the next message, its lines by name.
func (m *serviceManager) next(t *testing.T) map[string]string {
	t.Helper()
	select {
	case text := <-m.messages:
		lines := map[string]string{}
		for line := range strings.Lines(text) {
			name, value, _ := strings.Cut(strings.TrimRight(line, "\n"), "=")
			lines[name] = value
		}
		return lines
	case <-time.After(patience):
		t.Fatal("nothing is said")
		return nil
	}
}

// want expects one message: its first line, and a status that begins so.
func (m *serviceManager) want(t *testing.T, name, status string) map[string]string {
	t.Helper()
	got := m.next(t)
	if got[name] != "1" || !strings.HasPrefix(got["STATUS"], status) {
		t.Fatalf("said %q; want %s=1 and STATUS=%s…", got, name, status)
	}
	return got
}

// wantReload expects the messages around one reload that was asked for after
// since, a time of the monotonic clock.
func (m *serviceManager) wantReload(t *testing.T, since int64, before, after string) {
	t.Helper()
	begin := m.want(t, "RELOADING", before+", reloading")
	if at, err := strconv.ParseInt(begin["MONOTONIC_USEC"], 10, 64); err != nil || at < since || at > monotonic(t) {
		t.Errorf("reloading at %q, and it was asked for at %d", begin["MONOTONIC_USEC"], since)
	}
	m.want(t, "READY", after)
}

func (m *serviceManager) wantNothing(t *testing.T) {
	t.Helper()
	select {
	case text := <-m.messages:
		t.Errorf("said %q", text)
	default:
	}
}

// monotonic is the clock that systemd compares, in microseconds.
func monotonic(t *testing.T) int64 {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		t.Fatal(err)
	}
	return ts.Nano() / 1000
}

// direct is a configuration without a plugin: n listeners.
func direct(n int, extra string) string {
	config := "upstream \"direct\" \"local\" {}\n" + route("all", "", "upstream.direct.local") + extra
	for i := range n {
		config += listener("l"+strconv.Itoa(i), "127.0.0.1:0", "127.0.0.1:1", "")
	}
	return config
}

// TestManagerIsToldOfReloads: of each, by signal and by the control socket,
// whatever its outcome, and of the stop at last.
func TestManagerIsToldOfReloads(t *testing.T) {
	m := startManager(t)
	place, socket := runIn(t)
	p := runProgram(t, 2, direct(2, place))
	m.want(t, "READY", "2 listeners, generation 1")

	p.write(t, direct(1, place))
	since := monotonic(t)
	p.signal(t, syscall.SIGHUP)
	m.wantReload(t, since, "2 listeners, generation 1", "1 listener, generation 2")

	p.write(t, "nonsense {")
	since = monotonic(t)
	p.signal(t, syscall.SIGHUP)
	m.wantReload(t, since, "1 listener, generation 2", "1 listener, generation 2, the last reload failed: ")

	p.write(t, direct(1, place))
	since = monotonic(t)
	if r := reloadBy(t, socket); r.Error != "" {
		t.Errorf("%+v", r)
	}
	m.wantReload(t, since, "1 listener, generation 2", "1 listener, generation 4")

	p.signal(t, syscall.SIGTERM)
	m.want(t, "STOPPING", "stopping")
	if status := p.status(t); status != exitOK {
		t.Errorf("exit status %d", status)
	}
	m.wantNothing(t)
}

// TestManagerIsNotToldReady: a daemon that does not start is never ready.
func TestManagerIsNotToldReady(t *testing.T) {
	m := startManager(t)
	if status := runProgram(t, 0, "nonsense {}").status(t); status != exitInvalid {
		t.Errorf("exit status %d", status)
	}
	m.wantNothing(t)
}

// TestManagerThatIsGone: a socket that nobody reads does not hold the daemon up.
func TestManagerThatIsGone(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "gone"))
	p := runProgram(t, 1, direct(1, ""))
	p.signal(t, syscall.SIGTERM)
	if status := p.status(t); status != exitOK {
		t.Errorf("exit status %d", status)
	}
}

// TestWatchdogOfTheProgram: also while it drains.
func TestWatchdogOfTheProgram(t *testing.T) {
	m := startManager(t)
	t.Setenv("WATCHDOG_USEC", "20000")
	b := startBackend(t)
	p := runProgram(t, 1, "upstream \"direct\" \"local\" {}\n"+listener("db", "127.0.0.1:0", b.addr, "")+route("all", "", "upstream.direct.local"))
	c := dialTCP(t, p.address(t, "tcp.db"))
	server := b.next(t)
	send(t, server, "x")
	m.want(t, "READY", "1 listener, generation 1")
	for range 3 {
		m.want(t, "WATCHDOG", "")
	}
	p.signal(t, syscall.SIGTERM)
	for m.next(t)["STOPPING"] == "" {
	}
	for range 3 {
		m.want(t, "WATCHDOG", "")
	}
	breakConn(t, c)
	if status := p.status(t); status != exitOK {
		t.Errorf("exit status %d", status)
	}
}

// TestWatchdogNeedsAnAnswer: nothing is said for a daemon that hangs.
func TestWatchdogNeedsAnAnswer(t *testing.T) {
	m := startManager(t)
	t.Setenv("WATCHDOG_USEC", "2000")
	ctx, cancel := context.WithCancel(t.Context())
	asked, answer, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		new(notifier).watchdog(ctx, func() status.Status {
			asked <- struct{}{}
			<-answer
			return status.Status{}
		})
	}()
	for range 3 {
		<-asked
		m.wantNothing(t)
		answer <- struct{}{}
		m.want(t, "WATCHDOG", "")
	}
	cancel()
	select {
	case <-asked: // the tick came first
		close(answer)
	case <-ended:
	}
	<-ended
}

// TestReloadThatOutlivesTheStop: its end does not make the daemon ready again.
func TestReloadThatOutlivesTheStop(t *testing.T) {
	m := startManager(t)
	var n notifier
	n.event(status.Event{Generation: 3, Listeners: 1})
	m.want(t, "RELOADING", "1 listener, generation 3, reloading")
	n.stop()
	m.want(t, "STOPPING", "stopping")
	n.event(status.Event{Reload: &status.Reload{Error: "the daemon\nis stopping"}, Generation: 3, Listeners: 1})
	m.wantNothing(t)
}
