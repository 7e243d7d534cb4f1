package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tunneld/tunneld/core"
	"github.com/tunneld/tunneld/core/status"
	"github.com/tunneld/tunneld/internal/freeport"
	"github.com/tunneld/tunneld/internal/nodump"
)

// paths are the listeners under load, each with its way to the far end.
var paths = []string{"local", "sapsocks", "relay"}

// configuration is what events change.
type configuration struct {
	note      int    // of the relay's upstream
	env       int    // of the relay's plugin block
	limit     int    // of connections of a listener
	idle      int    // seconds, of a listener
	level     string // of the log
	spare     int    // port of a listener that nobody uses; 0: there is none
	extra     int    // routes in front that match nothing
	connect   int    // seconds, a timeout of the sapsocks upstream
	drainTime string
	broken    string // appended
}

// daemon is the real program, and what it is configured with.
type daemon struct {
	program, self, dir string
	far                *far
	addresses          map[string]string // of the listeners, by path
	metrics            string
	control            string
	conf               configuration
	log                *os.File

	cmd    *exec.Cmd
	exited chan error
}

func newDaemon(ctx context.Context, s settings, dir string, far *far) (*daemon, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	d := &daemon{program: s.tunneld, self: self, dir: dir, far: far, addresses: map[string]string{}, control: "unix://" + filepath.Join(dir, "control.sock")}
	d.conf = configuration{level: "info", connect: 10, drainTime: "2s"}
	for _, p := range paths {
		if d.addresses[p], err = free.Address(); err != nil {
			return nil, err
		}
	}
	if d.metrics, err = free.Address(); err != nil {
		return nil, err
	}
	if d.log, err = os.Create(filepath.Join(dir, "tunneld.log")); err != nil {
		return nil, err
	}
	if d.program == "" {
		d.program = filepath.Join(dir, "tunneld")
		out, err := exec.CommandContext(ctx, "go", "build", "-o", d.program, "github.com/tunneld/tunneld/cmd/tunneld").CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("build tunneld: %w\n%s", err, out)
		}
	}
	return d, nil
}

var free freeport.Ports

func (d *daemon) write() error {
	var b strings.Builder
	c := d.conf
	fmt.Fprintf(&b, "log {\n level = %q\n format = \"json\"\n}\n", c.level)
	fmt.Fprintf(&b, "control { address = %q }\nmetrics { address = %q }\n", d.control, d.metrics)
	fmt.Fprintf(&b, "daemon {\n shutdown_timeout = \"60s\"\n drain_timeout = %q\n}\n", c.drainTime)
	fmt.Fprintf(&b, "plugin %q {\n command = [%q, \"plugin\"]\n env = { CHAOS = \"%d\" }\n}\n", relayName, d.self, c.env)
	fmt.Fprintf(&b, "upstream \"direct\" \"local\" {}\nupstream %q \"relay\" { note = \"%d\" }\n", relayName, c.note)
	emu := d.far.emu
	fmt.Fprintf(&b, "upstream \"sapsocks\" \"sapsocks\" {\n proxy = %q\n oauth {\n  token_url = %q\n  client_id = %q\n  client_secret = %q\n }\n timeouts { connect = \"%ds\" }\n}\n",
		emu.Proxy(), emu.TokenService()+"/oauth/token", emu.ClientID(), emu.ClientSecret(), c.connect)
	ids := map[string]string{"local": "direct.local", "sapsocks": "sapsocks.sapsocks", "relay": relayName + ".relay"}
	for _, p := range paths {
		target := d.far.ln.Addr().String()
		if p == "sapsocks" {
			target = farName
		}
		fmt.Fprintf(&b, "listener \"tcp\" %q {\n address = %q\n target = %q\n limits { max_connections = %d }\n timeouts { idle = \"%ds\" }\n}\n", p, d.addresses[p], target, c.limit, c.idle)
	}
	for i := range c.extra {
		fmt.Fprintf(&b, "route \"extra%d\" {\n match { hosts = [\"nobody%d.invalid\"] }\n upstreams = [upstream.direct.local]\n}\n", i, i)
	}
	for _, p := range paths {
		fmt.Fprintf(&b, "route %q {\n match { listeners = [listener.tcp.%s] }\n upstreams = [upstream.%s]\n}\n", p, p, ids[p])
	}
	if c.spare > 0 {
		fmt.Fprintf(&b, "listener \"socks5\" \"spare\" { address = \"127.0.0.1:%d\" }\nroute \"spare\" { upstreams = [upstream.direct.local] }\n", c.spare)
	}
	b.WriteString(c.broken)
	return os.WriteFile(d.path(), []byte(b.String()), 0o600)
}

func (d *daemon) path() string { return filepath.Join(d.dir, "tunneld.hcl") }

func (d *daemon) start(ctx context.Context) error {
	if err := d.write(); err != nil {
		return err
	}
	d.cmd = exec.Command(d.program, "run", "--config", d.path())
	d.cmd.Stderr = d.log
	// What it holds is read from /proc.
	d.cmd.Env = append(os.Environ(), nodump.Env+"=1")
	if err := d.cmd.Start(); err != nil {
		return err
	}
	d.exited = make(chan error, 1)
	go func(cmd *exec.Cmd) { d.exited <- cmd.Wait() }(d.cmd)
	return until(ctx, 20*time.Second, "the start", func() (bool, error) {
		_, err := d.status(ctx)
		return true, err
	})
}

func (d *daemon) status(ctx context.Context) (status.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return core.AskStatus(ctx, d.control)
}

func (d *daemon) signal(s syscall.Signal) error { return d.cmd.Process.Signal(s) }

// ended waits for the daemon's end, which has to be a good one.
func (d *daemon) ended(limit time.Duration) error {
	select {
	case err := <-d.exited:
		d.cmd = nil
		if err != nil {
			return fmt.Errorf("the daemon: %w", err)
		}
		return nil
	case <-time.After(limit):
		return fmt.Errorf("the stop: %w", errLate)
	}
}

// kill ends what is left after an error.
func (d *daemon) kill() {
	if d.cmd != nil {
		_ = d.cmd.Process.Kill()
		<-d.exited
	}
	_ = d.log.Close()
}

// plugin returns the process of a plugin that takes dials, or 0.
func (d *daemon) plugin(ctx context.Context, name string) (int, error) {
	s, err := d.status(ctx)
	if err != nil {
		return 0, err
	}
	for _, p := range s.Plugins {
		if p.Name == name && !p.Retired && p.Status == "running" {
			return p.PID, nil
		}
	}
	return 0, nil
}

// processes are those of plugins that this daemon or another of this run started.
func (d *daemon) processes() []int {
	var pids []int
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() || d.cmd != nil && pid == d.cmd.Process.Pid {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil || len(line) == 0 {
			continue // gone, or of the kernel
		}
		args := strings.Split(string(line), "\x00")
		mine := args[0] == d.self && len(args) > 1 && args[1] == "plugin"
		env, err := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		if err == nil && strings.Contains(string(env), "TUNNELD_") && strings.Contains(string(line), "plugin\x00serve") {
			exe, _ := os.Readlink(filepath.Join("/proc", e.Name(), "exe"))
			mine = mine || exe == d.program
		}
		if mine {
			pids = append(pids, pid)
		}
	}
	return pids
}

// usage is what the daemon holds.
type usage struct {
	descriptors, goroutines, processes int
	memory                             int64 // resident, in bytes
}

func (d *daemon) usage(ctx context.Context) (u usage, err error) {
	s, err := d.status(ctx)
	if err != nil {
		return u, err
	}
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.cmd.Process.Pid))
	if err != nil {
		return u, err
	}
	// Pipes that are kept for the next tunnel are bounded, and no leak.
	u.descriptors = len(entries) - 2*(s.Pump.PipesIdle+s.Pump.PipesInUse)
	u.processes = len(d.processes())
	text, err := d.scrape(ctx)
	if err != nil {
		return u, err
	}
	u.goroutines = int(text["go_goroutines"])
	u.memory = int64(text["process_resident_memory_bytes"])
	return u, nil
}

func (d *daemon) scrape(ctx context.Context) (map[string]float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+d.metrics+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	req.Close = true // it would be a descriptor of the daemon
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	values := map[string]float64{}
	lines := bufio.NewScanner(io.LimitReader(r.Body, 8<<20))
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), " ")
		if v, err := strconv.ParseFloat(value, 64); ok && err == nil {
			values[name] = v
		}
	}
	return values, lines.Err()
}

// What a runtime may keep beyond what it held before.
const (
	spareDescriptors = 4
	spareGoroutines  = 12
	spareMemory      = 48 << 20
)

// returned waits until the daemon holds no more than it did before.
func (d *daemon) returned(ctx context.Context, before usage, r *report) error {
	var now usage
	err := until(ctx, 30*time.Second, "the return to where it began", func() (bool, error) {
		var err error
		now, err = d.usage(ctx)
		return now.descriptors <= before.descriptors+spareDescriptors &&
			now.goroutines <= before.goroutines+spareGoroutines &&
			now.processes == before.processes &&
			now.memory <= before.memory+spareMemory, err
	})
	r.usages = append(r.usages, [2]usage{before, now})
	if err != nil {
		return fmt.Errorf("%w: %+v, %+v before", err, now, before)
	}
	return nil
}
