//go:build interop

package interop

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// accepting serves each connection with f until the test ends, and waits for
// all of them.
func accepting(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		conns []net.Conn
	)
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				f(c)
			})
		}
	})
	t.Cleanup(func() {
		if err := ln.Close(); err != nil {
			t.Error(err)
		}
		mu.Lock()
		for _, c := range conns {
			_ = c.Close() // most are closed already
		}
		mu.Unlock()
		wg.Wait()
	})
	return ln.Addr().String()
}

// greeting serves a line that says which host it is.
func greeting(t *testing.T, line string) string {
	t.Helper()
	return accepting(t, func(c net.Conn) { _, _ = io.WriteString(c, line+"\n") })
}

// website answers every request with text.
func website(t *testing.T, text string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s%s\n", text, r.URL.Path)
		}),
		ReadHeaderTimeout: patience,
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(ln) }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

// freeAddress returns an address on loopback that nobody listens on. Somebody
// may take it before the server for which it is meant does; then that one says
// so.
func freeAddress(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// server runs a server until the test ends; it is up once it accepts
// connections. What it prints is in the file that is returned.
func server(t *testing.T, address string, cmd *exec.Cmd) (logFile string) {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), "server.log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Error(err)
		}
		select {
		case <-ended:
		case <-time.After(patience):
			t.Errorf("%s does not end", cmd.Path)
			_ = cmd.Process.Kill()
			<-ended
		}
		if b, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("%s:\n%s", cmd.Path, b)
		}
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
	deadline, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if c, err := net.DialTimeout("tcp", address, time.Second); err == nil {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			return log.Name()
		}
		select {
		case <-tick.C: // there is nothing to wait for but that it answers
		case err := <-ended:
			ended <- err
			t.Fatalf("%s has ended: %v", cmd.Path, err)
		case <-deadline.Done():
			t.Fatalf("%s does not accept connections", cmd.Path)
		}
	}
}

// firstLine reads the first line that address says.
func firstLine(t *testing.T, address string) (string, error) {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return bufio.NewReader(c).ReadString('\n')
}
