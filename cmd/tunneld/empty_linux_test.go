package main

import (
	"io"
	"strings"
	"syscall"
	"testing"

	"github.com/tunneld/tunneld/plugins/sapsocks/sapsocksemu"
)

// TestNoListenerIsNoAccident: a file that was cut short leaves the daemon as it was;
// who means it says so.
func TestNoListenerIsNoAccident(t *testing.T) {
	s := startSapsocks(t, sapsocksemu.Options{})
	place, socket := runIn(t)
	p := runProgram(t, 1, place+s.onprem(""))
	serves := func() {
		t.Helper()
		conn := dialTCP(t, p.address(t, "tcp.db"))
		pingPong(t, conn, "it serves")
		conn.Close()
	}
	command := func(args ...string) (int, string) {
		var all strings.Builder
		status := run(t.Context(), append([]string{"reload", "--control", socket}, args...), strings.NewReader(""), io.Discard, &all)
		return status, all.String()
	}
	p.write(t, place)
	p.signal(t, syscall.SIGHUP)
	p.log.Await(t, 1, "msg", "configuration problem", "level", "ERROR", "summary", "No listener", "file", p.path)
	serves()
	if status, said := command(); status != exitInvalid || !strings.Contains(said, "tunneld reload --allow-empty") {
		t.Errorf("status %d: %s", status, said)
	}
	serves()
	// What is wrong stays wrong.
	p.write(t, place+"nonsense {}\n")
	if status, said := command("--allow-empty"); status != exitInvalid || strings.Contains(said, "No listener") {
		t.Errorf("status %d: %s", status, said)
	}
	serves()
	p.write(t, place)
	if status, said := command("--allow-empty"); status != exitOK {
		t.Errorf("status %d: %s", status, said)
	}
	if now := statusOf(t, socket); len(now.Listeners) != 0 {
		t.Errorf("%+v", now.Listeners)
	}
	// There is nothing left to lose.
	if r := reloadBy(t, socket); r.Error != "" {
		t.Errorf("%+v", r)
	}
	p.write(t, place+s.onprem(""))
	if r := reloadBy(t, socket); r.Error != "" {
		t.Errorf("%+v", r)
	}
}

func TestNoListenerIsNoStart(t *testing.T) {
	p := runProgram(t, 0, "upstream \"direct\" \"local\" {}\n")
	if status := p.status(t); status != exitInvalid || !strings.Contains(p.log.String(), "Error: No listener") {
		t.Errorf("exit status %d", status)
	}
	var errs strings.Builder
	if status := run(t.Context(), []string{"validate", p.path}, strings.NewReader(""), io.Discard, &errs); status != exitInvalid || !strings.Contains(errs.String(), "Error: No listener") {
		t.Errorf("validate: exit status %d: %s", status, errs.String())
	}
}
