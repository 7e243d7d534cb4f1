package main

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
)

// underOpenFiles makes p start with a limit on open files.
func (p *program) underOpenFiles(limit int) {
	args := append([]string{"-c", fmt.Sprintf(`ulimit -n %d; exec "$@"`, limit), "sh"}, p.cmd.Args...)
	p.cmd.Path, p.cmd.Args = "/bin/sh", append([]string{"/bin/sh"}, args...)
}

// TestFewOpenFiles: a low limit on them is told at the start, and it is named
// where it is in the way, rather than a limit that nobody has set.
func TestFewOpenFiles(t *testing.T) {
	p := newProgram(t, echoing(t)+withMetrics)
	p.underOpenFiles(256)
	p.cmd.Stderr = p.log
	p.start(t)
	serving, _ := p.log.Await(t, 1, "msg", "serving metrics")[0]["address"].(string)
	p.log.Await(t, 1, "msg", "the limit on open files leaves room for few connections", "level", "WARN", "open_files", "256", "connections", "1")
	address := p.address(t, "tcp.db")
	c := dialTCP(t, address)
	pingPong(t, c, "the only one")
	wantRefusal(t, "127.0.0.1", address)
	line := p.log.Await(t, 1, "msg", "connection failed")[0]
	for key, want := range map[string]string{"err": "RLIMIT_NOFILE: 1 connections are open, and the limit on open files, 256,", "hint": "ulimit -n"} {
		if got := fmt.Sprint(line[key]); !strings.Contains(got, want) || strings.Contains(got, "max_connections") {
			t.Errorf("%s=%q", key, got)
		}
	}
	const series = `tunneld_connections_refused_total{limit="RLIMIT_NOFILE",listener="tcp.db"} 1`
	if _, text := get(t, serving, "/metrics"); !strings.Contains(text, "\n"+series+"\n") {
		t.Errorf("%s is missing", series)
	}
	// What is configured is warned of where there is no room for it, by a reload
	// as well, and named.
	p.write(t, echoing(t)+"daemon {\n max_connections = 5\n}\n")
	p.signal(t, syscall.SIGHUP)
	p.log.Await(t, 1, "msg", "the limit on open files leaves room for less than daemon.max_connections", "open_files", "256", "connections", "1", "max_connections", "5")
}
