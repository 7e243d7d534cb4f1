//go:build interop

package interop

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/logtest"
	"github.com/tunneld/tunneld/internal/proctest"
	"github.com/tunneld/tunneld/plugins/sapsocks/sapsocksemu"
)

// connectivity starts the emulated service with one Cloud Connector, without a
// location id.
func connectivity(t *testing.T, mappings map[string]string) *sapsocksemu.Server {
	t.Helper()
	return connectivityAt(t, map[string]map[string]string{"": mappings})
}

func connectivityAt(t *testing.T, connectors map[string]map[string]string) *sapsocksemu.Server {
	t.Helper()
	emu, err := sapsocksemu.Start(sapsocksemu.Options{Connectors: connectors})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := emu.Close(); err != nil {
			t.Error(err)
		}
	})
	return emu
}

// asked returns the targets that the proxy was asked for, sorted, each once.
func asked(emu *sapsocksemu.Server) []string {
	var out []string
	for _, c := range emu.Conversations() {
		if c.Target != "" {
			out = append(out, c.Target)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// daemon is a running tunneld.
type daemon struct {
	t         *testing.T
	config    string
	delayed   bool              // it has a shutdown_delay
	addresses map[string]string // of the listeners, by ID
	log       *logtest.Log
}

// ports is what an address of an example ends with.
var ports = regexp.MustCompile(`(address\s*=\s*"127\.0\.0\.1):\d+"`)

// startExample runs the configuration of an example as it is, except that
// 127.0.0.1's ports, which may be taken here, are free ones, and that further
// texts are replaced: pairs of old and new. emu may be nil.
func startExample(t *testing.T, name string, emu *sapsocksemu.Server, replace ...string) *daemon {
	t.Helper()
	src, err := os.ReadFile(filepath.Join(examples, name, "tunneld.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	config := ports.ReplaceAllString(string(src), `$1:0"`)
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(config, replace[i]) {
			t.Fatalf("%s does not have %q", name, replace[i])
		}
		config = strings.ReplaceAll(config, replace[i], replace[i+1])
	}
	config += "\nlog {\n  level  = \"debug\"\n  format = \"json\"\n}\n"
	path := filepath.Join(t.TempDir(), "tunneld.hcl")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(proctest.Tunneld(t), "run", "--config", path)
	if emu != nil {
		cmd.Env = append(os.Environ(), "VCAP_SERVICES="+emu.VCAPServices())
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d := &daemon{t: t, config: path, delayed: strings.Contains(config, "shutdown_delay"), addresses: map[string]string{}, log: logtest.New(patience)}
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.Copy(d.log, stderr)
	}()
	t.Cleanup(func() { d.stop(cmd, read) })
	for range strings.Count(config, "\nlistener ") {
		line := d.await(len(d.addresses)+1, "msg", "listening")[len(d.addresses)]
		d.addresses[fmt.Sprint(line["listener"])] = fmt.Sprint(line["address"])
	}
	return d
}

// probe runs tunneld with an example's arguments, in which config is the path of the
// daemon's configuration, and expects success.
func (d *daemon) probe(args []string, config string) {
	d.t.Helper()
	i := slices.Index(args, config)
	if i < 0 {
		d.t.Fatalf("%q does not name %s", args, config)
	}
	args = slices.Clone(args)
	args[i] = d.config
	if out, err := exec.CommandContext(d.t.Context(), proctest.Tunneld(d.t), args...).CombinedOutput(); err != nil || string(out) != "ready\n" {
		d.t.Errorf("%q: %v: %s", args, err, out)
	}
}

// stop ends the daemon as an operator does. Neither its shutdown_delay nor a client
// that is still connected is waited for.
func (d *daemon) stop(cmd *exec.Cmd, read <-chan struct{}) {
	term := func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			d.t.Errorf("SIGTERM: %v", err)
		}
	}
	term()
	if d.delayed {
		d.await(1, "msg", "not ready, and still accepting until the stop")
		term()
	}
	d.await(1, "msg", "stopping")
	term()
	kill := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	<-read
	if err := cmd.Wait(); err != nil {
		d.t.Errorf("tunneld: %v", err)
	}
	kill.Stop()
	if d.t.Failed() {
		d.t.Logf("log:\n%s", d.log)
	}
}

// await waits until n lines match.
func (d *daemon) await(n int, pairs ...string) []map[string]any {
	d.t.Helper()
	return d.log.Await(d.t, n, pairs...)
}
