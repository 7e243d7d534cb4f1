//go:build interop

// Package direct runs upstream "direct" with tls against servers that were not written
// here: stunnel, HAProxy and the one of OpenSSL.
package direct

import (
	"crypto/tls"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/emu"
	"github.com/tunneld/tunneld/internal/logtest"
	"github.com/tunneld/tunneld/internal/proctest"
)

// patience bounds whatever a test waits for.
const patience = time.Minute

func TestMain(m *testing.M) { os.Exit(proctest.Main(m)) }

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

// daemon runs tunneld with a configuration until the test ends.
func daemon(t *testing.T, config string) *logtest.Log {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tunneld.hcl")
	write(t, path, config+"log { format = \"json\" }\n")
	log := logtest.New(patience)
	cmd := exec.Command(proctest.Tunneld(t), "run", "--config", path)
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
