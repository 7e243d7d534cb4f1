package main

import (
	"net/http"
	"strings"
	"syscall"
	"testing"
)

// ready runs "tunneld status --ready" and returns the exit status and what it
// printed.
func ready(t *testing.T, p *program, args ...string) (int, string) {
	t.Helper()
	var out strings.Builder
	status := run(t.Context(), append([]string{"status", "--ready", "--config", p.path}, args...), strings.NewReader(""), &out, &out)
	return status, out.String()
}

// delayed is a configuration with a run directory whose delay no test waits for.
func delayed(t *testing.T) (config, socket string) {
	t.Helper()
	place, socket := runIn(t)
	return echoing(t) + withMetrics + strings.Replace(place, "}", "  shutdown_delay = \"10m\"\n}", 1), socket
}

// TestShutdownDelay: after the first signal the daemon is not ready, still
// accepts, and does not reload; the second begins the drain, the third ends it.
func TestShutdownDelay(t *testing.T) {
	config, socket := delayed(t)
	p := runProgram(t, 1, config)
	address := p.address(t, "tcp.db")
	serving, _ := p.log.Await(t, 1, "msg", "serving metrics")[0]["address"].(string)
	before := dialTCP(t, address)
	pingPong(t, before, "before")
	if status, text := ready(t, p); status != exitOK || text != "ready\n" {
		t.Errorf("exit status %d, %q", status, text)
	}

	p.signal(t, syscall.SIGTERM)
	p.log.Await(t, 1, "msg", "not ready, and still accepting until the stop", "shutdown_delay", "10m0s")
	if code, text := get(t, serving, "/readyz"); code != http.StatusServiceUnavailable || text != "the daemon is stopping\n" {
		t.Errorf("/readyz: %d %q", code, text)
	}
	if code, _ := get(t, serving, "/healthz"); code != http.StatusOK {
		t.Errorf("/healthz: %d", code)
	}
	if status, text := ready(t, p); status != exitFailed || text != "NOT READY: the daemon is stopping\n" {
		t.Errorf("exit status %d, %q", status, text)
	}
	if status, text := ready(t, p, "--json"); status != exitFailed || !strings.Contains(text, `"state": "leaving"`) {
		t.Errorf("exit status %d, %q", status, text)
	}
	pingPong(t, dialTCP(t, address), "new, while it is not ready")
	if r := reloadBy(t, socket); !strings.Contains(r.Error, "stopping") {
		t.Errorf("a reload: %+v", r)
	}
	if n := len(p.log.Matching("msg", "stopping")); n > 0 {
		t.Error("it stops before its time")
	}

	p.signal(t, syscall.SIGTERM)
	p.log.Await(t, 1, "msg", "stopping")
	pingPong(t, before, "while it drains")
	p.signal(t, syscall.SIGTERM)
	if status := p.status(t); status != exitOK {
		t.Errorf("exit status %d", status)
	}
	wantReset(t, before)
	p.log.Await(t, 1, "msg", "tunnels are broken off", "err", "told to end at once")
	if status, _ := ready(t, p); status != exitFailed {
		t.Errorf("of a daemon that is gone: exit status %d", status)
	}
}

// TestShutdownDelayEnds: by itself, and the drain follows.
func TestShutdownDelayEnds(t *testing.T) {
	config, _ := delayed(t)
	p := runProgram(t, 1, strings.Replace(config, "10m", "10ms", 1))
	p.signal(t, syscall.SIGTERM)
	if status := p.status(t); status != exitOK {
		t.Errorf("exit status %d", status)
	}
	p.log.Await(t, 1, "msg", "not ready, and still accepting until the stop", "shutdown_delay", "10ms")
	p.log.Await(t, 1, "msg", "stopping")
}
