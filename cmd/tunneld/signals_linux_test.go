package main

import (
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/tunneld/tunneld/plugins/sapsocks/sapsocksemu"
)

func TestHUPReloads(t *testing.T) {
	s := startSapsocks(t, sapsocksemu.Options{})
	p := runProgram(t, 1, s.onprem(""))
	write := func(config string) {
		if err := os.WriteFile(p.path, []byte(jsonLog+config), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	address := p.address(t, "tcp.db")
	conn := dialTCP(t, address)
	pingPong(t, conn, "before")
	write("nonsense {")
	p.signal(t, syscall.SIGHUP)
	p.log.Await(t, 1, "msg", "reload failed, the old configuration stays in force")
	pingPong(t, conn, "after a bad one")
	pingPong(t, dialTCP(t, address), "new after a bad one")
	write(s.onprem("limits {\n max_connections = 9\n }"))
	p.signal(t, syscall.SIGHUP)
	p.log.Await(t, 1, "msg", "reloaded")
	pingPong(t, conn, "after a good one")
}

// TestReloadsAreLogged, and the warnings of the start: whoever asked, each problem
// is a record of the log, and nothing else is printed into it.
func TestReloadsAreLogged(t *testing.T) {
	place, socket := runIn(t)
	const insecure = "upstream \"websocks\" \"web\" {\n url = \"wss://gateway.example\"\n tls {\n  insecure_skip_verify = true\n }\n}\n"
	config := insecure + place + direct(1, "")
	p := runProgram(t, 1, config)
	await := func(n int, level, line, summary string) {
		t.Helper()
		got := p.log.Await(t, n, "msg", "configuration problem", "level", level, "file", p.path, "line", line)
		if s, _ := got[n-1]["summary"].(string); !strings.Contains(s, summary) || got[n-1]["detail"] == "" {
			t.Errorf("%v; want %q", got[n-1], summary)
		}
	}
	await(1, "WARN", "8", "not checked")
	p.signal(t, syscall.SIGHUP)
	p.log.Await(t, 1, "msg", "reloaded")
	await(2, "WARN", "8", "not checked")
	p.write(t, "nonsense {}\n"+config)
	p.signal(t, syscall.SIGHUP)
	p.log.Await(t, 1, "msg", "reload failed, the old configuration stays in force")
	await(1, "ERROR", "5", "nonsense")
	if r := reloadBy(t, socket); !r.Invalid || !strings.Contains(r.Diagnostics, "nonsense") {
		t.Errorf("%+v", r)
	}
	await(2, "ERROR", "5", "nonsense")
	p.signal(t, syscall.SIGTERM)
	if status := p.status(t); status != exitOK {
		t.Errorf("exit status %d", status)
	}
	for line := range strings.Lines(p.log.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("no record: %q", line)
		}
	}
}

// TestTERMDrainsAndASecondEnds: the first waits for the tunnel, the second does
// not.
func TestTERMDrainsAndASecondEnds(t *testing.T) {
	s := startSapsocks(t, sapsocksemu.Options{})
	p := runProgram(t, 1, s.onprem(""))
	conn := dialTCP(t, p.address(t, "tcp.db"))
	pingPong(t, conn, "before")
	p.signal(t, syscall.SIGTERM)
	p.log.Await(t, 1, "msg", "stopping")
	pingPong(t, conn, "while it drains")
	p.signal(t, syscall.SIGTERM)
	if status := p.status(t); status != exitOK {
		t.Errorf("exit status %d", status)
	}
	wantReset(t, conn)
	p.log.Await(t, 1, "msg", "connection", "reason", "killed")
	p.log.Await(t, 1, "msg", "tunnels are broken off", "err", "told to end at once")
}

// TestKilledDaemonLeavesNoPlugin: the end of the descriptor channel ends them.
func TestKilledDaemonLeavesNoPlugin(t *testing.T) {
	s := startSapsocks(t, sapsocksemu.Options{})
	p := runProgram(t, 1, s.onprem(""))
	pids := pluginPIDs(t, p.cmd.Process.Pid, "sapsocks")
	if len(pids) != 1 {
		t.Fatalf("plugins: %v", pids)
	}
	await := watchProcess(t, pids[0])
	p.signal(t, syscall.SIGKILL)
	await()
}

func TestRunSaysWhyItDoesNotStart(t *testing.T) {
	p := runProgram(t, 0, "listener \"tcp\" \"db\" {\n address = \"127.0.0.1:0\"\n}\n")
	if status := p.status(t); status != exitInvalid {
		t.Errorf("exit status %d", status)
	}
	if log := p.log.String(); !strings.Contains(log, "tunneld.hcl line 5") {
		t.Errorf("log: %s", log)
	}
}
