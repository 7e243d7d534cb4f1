//go:build interop

// Package direct runs upstream "direct" with tls against servers that were not written
// here: stunnel, HAProxy and the one of OpenSSL.
package direct

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tunneld/tunneld/internal/emu"
	"github.com/tunneld/tunneld/internal/freeport"
	"github.com/tunneld/tunneld/internal/logtest"
)

// patience bounds whatever a test waits for; building has its own.
const (
	patience  = time.Minute
	buildTime = 5 * time.Minute
)

// program is the daemon, built once.
var program string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "tunneld-direct-")
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), buildTime)
		program = filepath.Join(dir, "tunneld")
		var out []byte
		if out, err = exec.CommandContext(ctx, "go", "build", "-o", program, "../../cmd/tunneld").CombinedOutput(); err != nil {
			err = fmt.Errorf("go build: %w\n%s", err, out)
		}
		cancel()
	}
	code := 1
	if err == nil {
		code = m.Run()
	} else {
		fmt.Println("prepare:", err)
	}
	if err := errors.Join(os.RemoveAll(dir), goleak.Find()); err != nil && code == 0 {
		fmt.Println(err)
		code = 1
	}
	os.Exit(code)
}

// tool returns the path of a program, and skips the test where it is missing, except in
// the continuous integration.
func tool(t *testing.T, name string) string {
	t.Helper()
	for _, candidate := range []string{name, "/usr/sbin/" + name} {
		if path, err := exec.LookPath(candidate); err == nil {
			return path
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is missing", name)
	}
	t.Skipf("%s is missing", name)
	return ""
}

var ports freeport.Ports

// freeAddress is one that nobody takes meanwhile.
func freeAddress(t *testing.T) string {
	t.Helper()
	address, err := ports.Address()
	if err != nil {
		t.Fatal(err)
	}
	return address
}

func port(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// server runs a server until the test ends. It is up once it accepts connections to all
// addresses.
func server(t *testing.T, cmd *exec.Cmd, addresses ...string) {
	t.Helper()
	log := logtest.New(patience)
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
		if t.Failed() {
			t.Logf("%s:\n%s", cmd.Path, log)
		}
	})
	deadline, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for _, address := range addresses {
		for !accepts(address) {
			select {
			case <-tick.C:
			case <-deadline.Done():
				t.Fatalf("nothing listens on %s", address)
			}
		}
	}
}

func accepts(address string) bool {
	c, err := net.DialTimeout("tcp", address, time.Second)
	if err == nil {
		_ = c.Close()
	}
	return err == nil
}

// daemon runs tunneld with a configuration until the test ends.
func daemon(t *testing.T, config string) *logtest.Log {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tunneld.hcl")
	write(t, path, config+"log { format = \"json\" }\n")
	log := logtest.New(patience)
	cmd := exec.Command(program, "run", "--config", path)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.Copy(log, stderr)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		<-read
		if err := cmd.Wait(); err != nil {
			t.Errorf("tunneld: %v", err)
		}
		kill.Stop()
		if t.Failed() {
			t.Logf("tunneld:\n%s", log)
		}
	})
	log.Await(t, strings.Count(config, "listener "), "msg", "listening")
	return log
}

// files are certificates and their keys, by the name of their owner, as PEM files.
type files struct{ dir string }

func (f files) cert(of string) string { return filepath.Join(f.dir, of+".pem") }
func (f files) key(of string) string  { return filepath.Join(f.dir, of+".key") }

// both is the file with certificate and key, as HAProxy reads them.
func (f files) both(of string) string { return filepath.Join(f.dir, of+".both.pem") }

// certificates makes those of the authorities "ca" and "other", of "server" and "client",
// whose authority is ca, and of "stranger", whose authority is other.
func certificates(t *testing.T) files {
	t.Helper()
	f := files{t.TempDir()}
	for name, owners := range map[string][]string{"ca": {"server", "client"}, "other": {"stranger"}} {
		a, err := emu.NewAuthority()
		if err != nil {
			t.Fatal(err)
		}
		write(t, f.cert(name), string(a.PEM()))
		for _, owner := range owners {
			issue := a.Client
			if owner == "server" {
				issue = func(string) (tls.Certificate, error) { return a.Server() }
			}
			c, err := issue(owner)
			if err != nil {
				t.Fatal(err)
			}
			cert, key, err := emu.PEM(c)
			if err != nil {
				t.Fatal(err)
			}
			write(t, f.cert(owner), string(cert))
			write(t, f.key(owner), string(key))
			write(t, f.both(owner), string(cert)+string(key))
		}
	}
	return f
}
