package main

import (
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestSocketOfSystemd: "tunneld run" takes over the sockets that systemd passes.
func TestSocketOfSystemd(t *testing.T) {
	var plain net.ListenConfig
	plain.SetMultipathTCP(false) // as systemd binds it
	ln, err := plain.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	socket, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	address := ln.Addr().String()
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	// It waits in the queue until there is a daemon.
	early := dialTCP(t, address)

	p := newProgram(t, strings.Replace(echoing(t), `"127.0.0.1:0"`, `"fd://db"`, 1))
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	// The shell knows the process's number, which stays over exec.
	p.cmd.Args = append([]string{"sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, p.cmd.Path}, p.cmd.Args[1:]...)
	p.cmd.Path = sh
	if p.cmd.Env == nil {
		p.cmd.Env = os.Environ()
	}
	p.cmd.Env = append(p.cmd.Env, "LISTEN_FDS=1", "LISTEN_FDNAMES=db")
	p.cmd.ExtraFiles = []*os.File{socket}
	p.cmd.Stderr = p.log
	p.start(t)
	if at := p.address(t, "tcp.db"); at != address {
		t.Errorf("it listens on %s, and not on %s", at, address)
	}
	pingPong(t, early, "early")
	pingPong(t, dialTCP(t, address), "late")
}
