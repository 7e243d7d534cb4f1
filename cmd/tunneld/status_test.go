package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/core/status"
)

// daemonStatus is a daemon with something of everything.
func daemonStatus(now time.Time) status.Status {
	s := status.Status{
		Version: "0.3.0", PID: 812, Started: now.Add(-75*time.Hour - 12*time.Minute), Config: "/etc/tunneld", Generation: 4,
		Reloads: 7, FailedReloads: 2,
		Reload: &status.Reload{
			At: now.Add(-14 * time.Minute), Duration: 120 * time.Millisecond, Generation: 5, Error: "reload: the configuration is not valid", Invalid: true,
			Diagnostics: "Error: Unknown attribute \"adress\"\n  on /etc/tunneld/a.hcl line 3, in listener \"tcp\" \"orders\":\n   3:   adress =\n\n  Did you mean \"address\"?\n\n",
		},
		Listeners: []status.Listener{
			{ID: "tcp.orders", Address: "127.0.0.1:5432", Addresses: []string{"127.0.0.1:5432"}, Target: "orders-db.corp:5432", Connections: 13, Tunnels: map[string]int{"relay": 2, "direct": 10}},
			{ID: "socks5.apps", Address: "127.0.0.1:1080", Addresses: []string{"127.0.0.1:1080", "[::1]:1080"}, Certificates: []status.Certificate{
				{File: "/etc/a.pem", NotAfter: now.Add(42 * time.Minute)}, {File: "/etc/b.pem", NotAfter: now.Add(-5 * time.Second)}}},
		},
		Upstreams: []status.Upstream{
			{ID: "sapsocks.onprem", Health: "ok", CredentialExpires: now.Add(42 * time.Minute), CredentialRenewed: now.Add(-18 * time.Minute)},
			{ID: "soht.legacy", Health: "ok", Connections: 100, MaxConnections: 100, Waiting: 7, Unreleased: 2},
			{ID: "websocks.web", Health: "failing", Connections: 12, Message: "the gateway refuses\x1b[31m the token", CredentialExpires: now.Add(-5 * time.Second)},
			{ID: "direct.local", Health: "ok", FileProblem: "tls: ca_file: no certificate in /etc/ca\x1b.pem", Certificates: []status.Certificate{
				{File: "/etc/a.pem", NotAfter: now.Add(-5 * time.Second)}, {File: "/etc/b.pem", NotAfter: now.Add(42 * time.Minute)}}},
		},
		Plugins: []status.Plugin{
			{Name: "sapsocks", Version: "0.3.0", Source: "bundled", Status: "running", Since: now.Add(-3 * time.Hour), PID: 813, Restarts: 1, Open: 12, LastExit: "signal: killed"},
			{Name: "acme", Version: "1.0", Source: "/usr/lib/acme", Status: "crash_looping", Since: now.Add(-time.Minute), Restarts: 5, NextStart: now.Add(8 * time.Second),
				LastExit: "exit status 3", LastOutput: "no license\r\nbye\x07\n"},
			{Name: "websocks", Version: "0.2.0", Source: "bundled", Status: "draining", Since: now.Add(-time.Second), PID: 700, Open: 2, Retired: true},
		},
	}
	s.LogDropped = 21
	s.Pump.Tunnels, s.Pump.Workers, s.Pump.PipesInUse, s.Pump.PipesIdle, s.Pump.PipesMade, s.Pump.BuffersMade = 12, 2, 1, 3, 40, 2
	s.Pump.Paused = 5
	return s
}

const wantStatus = `tunneld 0.3.0, process 812, up 3d3h, since 2026-03-01 08:47:30
configuration /etc/tunneld, generation 4 in force
last reload FAILED at 11:45:30 (14m ago) in 120ms; 7 reloads since the start, 2 failed
  reload: the configuration is not valid
  Error: Unknown attribute "adress"
    on /etc/tunneld/a.hcl line 3, in listener "tcp" "orders":
     3:   adress =
    Did you mean "address"?
NOT READY: plugin acme keeps dying: exit status 3
LOG: 21 lines dropped since the start: they could not be written

LISTENER     ADDRESS                     TARGET               CONNECTIONS  TUNNELS             CERTIFICATE
tcp.orders   127.0.0.1:5432              orders-db.corp:5432  13           direct 10, relay 2  -
socks5.apps  127.0.0.1:1080, [::1]:1080  -                    0            -                   ENDED 11:59:25 (5s ago), the first of 2

UPSTREAM         HEALTH   CONNECTIONS                                           CREDENTIAL                                                               MESSAGE
sapsocks.onprem  ok       0                                                     ends 12:41:30 (in 42m), renewed 11:41:30 (18m ago)                       -
soht.legacy      ok       100 of 100, 7 waiting, 2 not released by the far end  -                                                                        -
websocks.web     failing  12                                                    ENDED 11:59:25 (5s ago)                                                  the gateway refuses�[31m the token
direct.local     ok       0                                                     certificate ENDED 11:59:25 (5s ago), certificate ends 12:41:30 (in 42m)  -
upstream direct.local, FILE NOT USABLE, its old content stays in use: tls: ca_file: no certificate in /etc/ca�.pem

PLUGIN    VERSION  STATUS                                               PROCESS  RESTARTS  OPEN  SOURCE
sapsocks  0.3.0    running for 3h0m                                     813      1         12    bundled
acme      1.0      crash_looping for 1m0s, next start 11:59:38 (in 8s)  -        5         0     /usr/lib/acme
websocks  0.2.0    draining for 1s, retired                             700      0         2     bundled
plugin sapsocks, last exit: signal: killed
plugin acme, last exit: exit status 3
  | no license
  | bye�

pump: 12 tunnels, 2 workers
  pipes: 1 in use, 3 idle, 40 made, 0 refused, 0 small
  waiting for bandwidth: 5 directions
  buffers: 0 in use, 2 made
`

func TestStatusText(t *testing.T) {
	now := time.Date(2026, 3, 4, 11, 59, 30, 0, time.UTC)
	var b bytes.Buffer
	if err := writeStatus(&b, daemonStatus(now), now); err != nil {
		t.Fatal(err)
	}
	if b.String() != wantStatus {
		t.Errorf("got\n%s\nwant\n%s", b.String(), wantStatus)
	}
}

const wantLittle = `tunneld (devel), process 1, up 7ms, since 11:59:29
configuration tunneld.hcl, generation 1 in force
no reload since the start
NOT READY: the daemon is stopping

LISTENER  ADDRESS  TARGET  CONNECTIONS  TUNNELS  CERTIFICATE

UPSTREAM  HEALTH  CONNECTIONS  CREDENTIAL  MESSAGE

pump: 1 tunnel, through buffers: this system has no kernel pump
  buffers: 2 in use, 2 made
`

// TestStatusTextOfLittle: a daemon that has hardly anything.
func TestStatusTextOfLittle(t *testing.T) {
	now := time.Date(2026, 3, 4, 11, 59, 30, 0, time.UTC)
	s := status.Status{Version: "(devel)", PID: 1, Started: now.Add(-7 * time.Millisecond), Config: "tunneld.hcl", Generation: 1, State: "draining"}
	s.Pump.Tunnels, s.Pump.BuffersInUse, s.Pump.BuffersMade = 1, 2, 2
	var b bytes.Buffer
	if err := writeStatus(&b, s, now); err != nil {
		t.Fatal(err)
	}
	if b.String() != wantLittle {
		t.Errorf("got\n%s\nwant\n%s", b.String(), wantLittle)
	}
	now = now.In(time.FixedZone("", 2*3600))
	s = status.Status{Reload: &status.Reload{At: now, Generation: 2}, Reloads: 1}
	b.Reset()
	writeLastReload(&b, s, now)
	if want := "last reload succeeded at 13:59:30 (0s ago) in 0s; 1 reload since the start, 0 failed\n"; b.String() != want {
		t.Errorf("got %s", b.String())
	}
}

func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 1234 * time.Microsecond: "1ms", 999 * time.Millisecond: "999ms", 59999 * time.Millisecond: "59s",
		time.Minute: "1m0s", 9*time.Minute + 59*time.Second: "9m59s", 42*time.Minute + 10*time.Second: "42m",
		time.Hour: "1h0m", 23*time.Hour + 59*time.Minute: "23h59m", 49 * time.Hour: "2d1h",
	} {
		if got := short(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

// fakeDaemon answers at a control socket until the test ends.
func fakeDaemon(t *testing.T, handler http.HandlerFunc) (path string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "ctl")
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "control.sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: handler}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ln) }()
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return path
}

func answerJSON(t *testing.T, w http.ResponseWriter, code int, v any) {
	w.WriteHeader(code)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		t.Error(err)
	}
}

// tunneld runs a command line in this process.
func tunneld(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	status = run(t.Context(), args, strings.NewReader(""), &out, &err)
	return status, out.String(), err.String()
}

func TestStatusCommand(t *testing.T) {
	want := daemonStatus(time.Now().UTC().Round(0))
	path := fakeDaemon(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method+r.URL.Path != "GET/v1/status" {
			t.Errorf("asked for %s %s", r.Method, r.URL)
		}
		answerJSON(t, w, http.StatusOK, want)
	})
	config := filepath.Join(t.TempDir(), "tunneld.hcl")
	if err := os.WriteFile(config, []byte("control {\n  address = \"unix://"+path+"\"\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"--control", path}, {"--control", "unix://" + path}, {"--config", config}, {"-c", config}} {
		status, stdout, stderr := tunneld(t, append([]string{"status"}, args...)...)
		if status != exitOK || !strings.HasPrefix(stdout, "tunneld 0.3.0, process 812, up 3d3h") || stderr != "" {
			t.Errorf("%q: %d, %s%s", args, status, stdout, stderr)
		}
	}
	code, stdout, stderr := tunneld(t, "status", "--json", "--control", path)
	var got status.Status
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || code != exitOK || stderr != "" || !reflect.DeepEqual(got, want) {
		t.Errorf("%d, %v, %s%s", code, err, stdout, stderr)
	}
}

func TestReloadCommand(t *testing.T) {
	tests := []struct {
		name           string
		outcome        status.Reload
		status         int
		stdout, stderr string
	}{
		{"changes", status.Reload{Generation: 5, Duration: 12 * time.Millisecond, Changes: []string{"listener tcp.a: removed", "route x:\x1b new"}},
			exitOK, "reloaded in 12ms: generation 5 is in force\n  listener tcp.a: removed\n  route x:� new\n", ""},
		{"none, and a warning", status.Reload{Generation: 6, Diagnostics: "Warning: w\n  on a\n\n"},
			exitOK, "reloaded in 0s: generation 6 is in force\n  nothing changed\n", "Warning: w\n  on a\n\n"},
		{"not valid", status.Reload{Generation: 7, Error: "reload: the configuration is not valid", Invalid: true, Diagnostics: "Error: e\n\n"},
			exitInvalid, "", "Error: e\n\ntunneld: the reload failed, the old configuration stays in force: reload: the configuration is not valid\n"},
		{"not possible", status.Reload{Generation: 7, Error: "reload: the daemon is stopping"},
			exitFailed, "", "tunneld: the reload failed, the old configuration stays in force: reload: the daemon is stopping\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := fakeDaemon(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Method+r.URL.Path != "POST/v1/reload" {
					t.Errorf("asked for %s %s", r.Method, r.URL)
				}
				code := http.StatusOK
				if tt.outcome.Error != "" {
					code = http.StatusUnprocessableEntity
				}
				answerJSON(t, w, code, tt.outcome)
			})
			if status, stdout, stderr := tunneld(t, "reload", "--control", path); status != tt.status || stdout != tt.stdout || stderr != tt.stderr {
				t.Errorf("%d\n%s\n%s", status, stdout, stderr)
			}
			code, stdout, stderr := tunneld(t, "reload", "--json", "--control", path)
			var got status.Reload
			if err := json.Unmarshal([]byte(stdout), &got); err != nil || code != tt.status || stderr != "" || !reflect.DeepEqual(got, tt.outcome) {
				t.Errorf("JSON: %d, %v, %s%s", code, err, stdout, stderr)
			}
		})
	}
}

// TestReloadNotesAnotherConfiguration: who names one configuration and reaches
// the daemon of another is told so.
func TestReloadNotesAnotherConfiguration(t *testing.T) {
	path := fakeDaemon(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			answerJSON(t, w, http.StatusOK, status.Status{Config: "/etc/other"})
			return
		}
		answerJSON(t, w, http.StatusOK, status.Reload{Generation: 2})
	})
	config := filepath.Join(t.TempDir(), "tunneld.hcl")
	if err := os.WriteFile(config, []byte("daemon {\n  run_dir = \""+filepath.Dir(path)+"\"\n}\nbroken {"), 0o600); err != nil {
		t.Fatal(err)
	}
	status, _, stderr := tunneld(t, "reload", "--config", config)
	if want := "tunneld: note: the configuration of the daemon at unix://" + path + " is /etc/other\n"; status != exitOK || stderr != want {
		t.Errorf("%d, %s", status, stderr)
	}
}

// TestDaemonThatCannotBeAsked: each is exit status 1 and says what to do.
func TestDaemonThatCannotBeAsked(t *testing.T) {
	t.Setenv("RUNTIME_DIRECTORY", "")
	t.Setenv("XDG_RUNTIME_DIR", "/nonexistent/runtime")
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	silent := fakeDaemon(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	named := file("a.hcl", "control {\n  address = \"unix:///nonexistent/c\"\n}\n")
	run := file("b.hcl", "daemon {\n  run_dir = \"/nonexistent/d\"\n}\n")
	tests := []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"--control", "/nonexistent/x"}, exitFailed, "tunneld: there is no control socket at /nonexistent/x: is tunneld running?\n"},
		{[]string{"--config", named}, exitFailed, "tunneld: there is nothing at /nonexistent/c: is tunneld running? its control socket should be there, by control.address of " + named + "; if that was just changed, name the old socket with --control, or send SIGHUP\n"},
		{[]string{"--config", run}, exitFailed, "tunneld: there is nothing at /nonexistent/d/control.sock: is tunneld running? its control socket should be there, by daemon.run_dir of " + run + "\n"},
		{[]string{"--control", silent, "--timeout", "10ms"}, exitFailed, "tunneld: the daemon at " + silent + " did not answer in time: --timeout is 10ms\n"},
		{[]string{"--control", "tcp://x"}, exitFailed, "write unix:// and an absolute path"},
		{[]string{"--control", "/x", "--config", "/y"}, exitUsage, "--config and --control exclude each other"},
		{[]string{"--control", "/x", "--timeout", "0s"}, exitUsage, "--timeout must be longer than 0s"},
		{[]string{"extra"}, exitUsage, "unexpected argument"},
	}
	for _, command := range []string{"status", "reload"} {
		for _, tt := range tests {
			status, stdout, stderr := tunneld(t, append([]string{command}, tt.args...)...)
			if status != tt.status || stdout != "" || !strings.Contains(stderr, tt.want) {
				t.Errorf("%s %q: %d, %s%s\n want %s", command, tt.args, status, stdout, stderr, tt.want)
			}
		}
	}
}

// TestStatusTextOfUnusable: why an upstream is passed over, and until when.
func TestStatusTextOfUnusable(t *testing.T) {
	now := time.Date(2026, 3, 4, 11, 59, 30, 0, time.UTC)
	for text, want := range map[string]string{
		`{"unusable": {"reason": "retry_after", "until": "2026-03-04T12:00:30Z", "message": "busy\u001b"}}`: "u  ok, passed over: retry_after, until 12:00:30 (in 1m0s) 0 - busy\ufffd\n",
		`{"unusable": {"reason": "drained"}, "message": "fine"}`:                                            "u  ok, passed over: drained 0 - fine\n",
	} {
		u := status.Upstream{ID: "u", Health: "ok"}
		if err := json.Unmarshal([]byte(text), &u); err != nil {
			t.Fatal(err)
		}
		s := status.Status{Upstreams: []status.Upstream{u}}
		var b bytes.Buffer
		if err := writeStatus(&b, s, now); err != nil {
			t.Fatal(err)
		}
		got := b.String()
		squeeze := func(s string) string { return strings.Join(strings.Fields(s), " ") }
		if !strings.Contains(squeeze(got), squeeze(want)) {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
}
