// Package proctest is for tests against real programs: it finds those that are installed,
// builds tunneld, and runs servers until a test ends.
package proctest

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

const (
	// patience bounds what a server may take to begin and to end.
	patience = time.Minute
	// outputWait is how long the descendants of a server that has ended may hold its
	// output open.
	outputWait = 5 * time.Second
)

// Tool returns the path of an installed program. It looks in $PATH, in the folders for
// administrators, and at the patterns (filepath.Glob) of which the last match counts.
// Without the program it calls Missing.
func Tool(t testing.TB, name string, patterns ...string) string {
	t.Helper()
	for _, candidate := range []string{name, "/usr/sbin/" + name, "/usr/local/sbin/" + name} {
		if path, err := exec.LookPath(candidate); err == nil {
			return path
		}
	}
	for _, pattern := range patterns {
		if found, err := filepath.Glob(pattern); err == nil && len(found) > 0 {
			return found[len(found)-1]
		}
	}
	Missing(t, name)
	return ""
}

// Missing skips a test that needs something that is not installed. In the continuous
// integration (CI=true) it fails the test.
func Missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is not installed", what)
	}
	t.Skipf("%s is not installed", what)
}

var (
	building sync.Mutex
	built    string // the folder with tunneld
)

// Tunneld builds tunneld, once for the test binary, and returns its path. TestMain has to
// call Main.
func Tunneld(t testing.TB) string {
	t.Helper()
	building.Lock()
	defer building.Unlock()
	path := filepath.Join(built, "tunneld")
	if built != "" {
		return path
	}
	dir, err := os.MkdirTemp("", "tunneld-test-")
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "tunneld")
	if out, err := exec.Command("go", "build", "-o", path, "github.com/tunneld/tunneld/cmd/tunneld").CombinedOutput(); err != nil {
		_ = os.RemoveAll(dir)
		t.Fatalf("build tunneld: %v\n%s", err, out)
	}
	built = dir
	return path
}

// Main runs the tests, removes what Tunneld has built, and returns the exit status.
// Goroutines that outlive the tests are a failure.
func Main(m *testing.M) int {
	status := m.Run()
	if status == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = 1
		}
	}
	building.Lock()
	defer building.Unlock()
	if built == "" {
		return status
	}
	if err := os.RemoveAll(built); err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = max(status, 1)
	}
	built = ""
	return status
}

// Process is a program that runs.
type Process struct {
	cmd    *exec.Cmd
	output output
	ended  chan struct{}
	err    error // once ended is closed
}

// Start runs a program until the test ends. It is then sent SIGTERM, and is killed with
// its process group if it does not end. What it has printed is logged if the test has
// failed.
func Start(t testing.TB, cmd *exec.Cmd) *Process {
	t.Helper()
	p := &Process{cmd: cmd, ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.output, &p.output
	cmd.WaitDelay = outputWait
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // an error: it has ended
		select {
		case <-p.ended:
		case <-time.After(patience):
			t.Errorf("%s does not end", cmd.Path)
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			<-p.ended
		}
		if t.Failed() {
			t.Logf("%s:\n%s", cmd.Path, p.Output())
		}
	})
	return p
}

// Output returns what the program has printed so far.
func (p *Process) Output() string {
	text, _ := p.output.now()
	return string(text)
}

// Listens waits until the program accepts connections at all of these addresses.
func (p *Process) Listens(t testing.TB, addresses ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, address := range addresses {
		for {
			c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
			if err == nil {
				_ = c.Close()
				break
			}
			select {
			case <-time.After(20 * time.Millisecond): // no event says that it listens
			case <-p.ended:
				t.Fatalf("%s has ended: %v", p.cmd.Path, p.err)
			case <-ctx.Done():
				t.Fatalf("%s does not listen on %s: %v", p.cmd.Path, address, err)
			}
		}
	}
}

// Shows waits until what the program has printed matches an expression.
func (p *Process) Shows(t testing.TB, pattern string) {
	t.Helper()
	re := regexp.MustCompile(pattern)
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		text, more := p.output.now()
		if re.Match(text) {
			return
		}
		select {
		case <-more:
		case <-p.ended:
			if text, _ := p.output.now(); !re.Match(text) {
				t.Fatalf("%s has ended (%v), and has not printed %s", p.cmd.Path, p.err, pattern)
			}
			return
		case <-timer.C:
			t.Fatalf("%s has not printed %s", p.cmd.Path, pattern)
		}
	}
}

// output collects what a program prints.
type output struct {
	mu   sync.Mutex
	b    []byte
	more chan struct{} // closed by the next write; nil: nobody waits
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.b = append(o.b, b...)
	if o.more != nil {
		close(o.more)
		o.more = nil
	}
	return len(b), nil
}

// now returns what was printed, and what is closed when there is more.
func (o *output) now() (text []byte, more <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.more == nil {
		o.more = make(chan struct{})
	}
	return o.b[:len(o.b):len(o.b)], o.more
}
