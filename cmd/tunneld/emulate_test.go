package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/core"
)

// emulated is a run of "tunneld emulate".
type emulated struct {
	out    string // what is to be pasted
	cancel context.CancelFunc
	log    bytes.Buffer
	done   chan int
}

// emulate runs an emulator on free ports until the test ends.
func emulate(t *testing.T, protocol string, args ...string) *emulated {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	e := &emulated{cancel: cancel, done: make(chan int, 1)}
	out, w := io.Pipe()
	go func() {
		e.done <- run(ctx, append([]string{"emulate", protocol, "--address", "127.0.0.1:0"}, args...), strings.NewReader(""), w, &e.log)
		close(e.done)
		_ = w.Close()
	}()
	t.Cleanup(func() { e.stop(t) })
	b := make([]byte, 64<<10) // it is one write
	n, err := out.Read(b)
	if err != nil {
		t.Fatalf("%v: %s", err, e.stop(t))
	}
	e.out = string(b[:n])
	return e
}

// stop ends the run and returns what it logged. It may be called again.
func (e *emulated) stop(t *testing.T) string {
	t.Helper()
	e.cancel()
	if status := <-e.done; status != exitOK {
		t.Errorf("exit status %d", status)
	}
	return e.log.String()
}

// secretFile writes one as an editor does, with a line's end.
func secretFile(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestEmulate runs each emulated far end as its own command, and a daemon with the block
// that is pasted from it.
func TestEmulate(t *testing.T) {
	echo := runEcho(t).Addr()
	key, password := secretFile(t, "key", "a-key="), secretFile(t, "password", "open-sesame")
	ca := filepath.Join(t.TempDir(), "ca.pem")
	mapping := "db.corp:5432=" + echo
	anywhere := []string{"--token-address", "127.0.0.1:0"}
	for _, tt := range []struct {
		protocol string
		args     []string
		path     string // the data path
		log      string // in the emulator's
	}{
		{"sapsocks", append(anywhere, "--map", mapping, "--print", "upstream"), "direct", "target=db.corp:5432"},
		{"sapsocks", append(anywhere, "--map", "berlin/"+mapping, "--print", "upstream", "--tls-ca-file", ca), "direct", "location=berlin"},
		{"sapsocks", append(anywhere, "--map", mapping, "--print", "upstream", "--grant", "x509", "--tls-ca-file", ca), "direct", "by=certificate"},
		{"sapsocks", append(anywhere, "--map", mapping, "--print", "upstream", "--grant", "ias"), "direct", "token granted"},
		{"sapsocks", append(anywhere, "--map", mapping, "--trusted"), "direct", "target=db.corp:5432"},
		{"websocks", []string{"--map", mapping}, "direct", "target=db.corp:5432"},
		{"websocks", []string{"--map", mapping, "--user", "alice=" + password, "--tls-ca-file", ca}, "relay", "target=db.corp:5432"},
		{"soht", []string{"--map", mapping}, "relay", "target=db.corp:5432"},
		{"soht", []string{"--map", mapping, "--user", "alice=" + password, "--tls-ca-file", ca}, "relay", "target=db.corp:5432"},
		{"azrelay", []string{"--anonymous", "--forward", echo}, "relay", "action=connect path=demo"},
		{"azrelay", []string{"--key-file", key, "--tls-ca-file", ca, "--bridge", "5432=" + echo}, "relay", "action=connect path=demo"},
	} {
		t.Run(tt.protocol+" "+strings.Join(tt.args, " "), func(t *testing.T) {
			e := emulate(t, tt.protocol, tt.args...)
			if text, err := core.Format([]byte(e.out), "pasted"); err != nil || string(text) != e.out {
				t.Errorf("not in the canonical layout: %v\n%s", err, e.out)
			}
			d := startDaemon(t, e.out+listener("db", "127.0.0.1:0", "db.corp:5432", "")+route("all", "", "upstream."+tt.protocol+".emulated"))
			c := d.dial(t, "tcp.db")
			pingPong(t, c, "through the emulator")
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			d.log.Await(t, 1, "msg", "connection", "path", tt.path)
			log := e.stop(t)
			if !strings.Contains(log, tt.log) || strings.Contains(log, "sesame") || strings.Contains(log, "a-key") || strings.Contains(log, "sig") {
				t.Errorf("logged %s", log)
			}
		})
	}
}

// TestEmulatedBinding: an application's binding, as a shell takes it, as a file of Cloud
// Foundry's or of a project, and as a folder.
func TestEmulatedBinding(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "binding")
	e := emulate(t, "sapsocks", "--token-address", "127.0.0.1:0", "--map", "db.corp:5432="+runEcho(t).Addr(),
		"--client-secret-file", secretFile(t, "secret", `it's "$HOME" \n`), "--service-binding", folder)
	out, err := exec.CommandContext(t.Context(), "sh", "-c", e.out+`printf %s "$VCAP_SERVICES"`).Output()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("VCAP_SERVICES", string(out))
	t.Setenv("VCAP_SERVICES_FILE_PATH", secretFile(t, "vcap_services", string(out)))
	for name, body := range map[string]string{
		"variable": `vcap_services = env("VCAP_SERVICES")`,
		"file":     `vcap_services = file(env("VCAP_SERVICES_FILE_PATH"))`,
		"project":  fmt.Sprintf("vcap_services = file(%q)", secretFile(t, "default-env.json", `{"VCAP_SERVICES": `+string(out)+`}`)),
		"folder":   fmt.Sprintf("service_binding = %q", folder),
	} {
		t.Run(name, func(t *testing.T) {
			d := startDaemon(t, fmt.Sprintf("upstream \"sapsocks\" \"onprem\" {\n  %s\n}\n", body)+
				listener("db", "127.0.0.1:0", "db.corp:5432", "")+route("all", "", "upstream.sapsocks.onprem"))
			pingPong(t, d.dial(t, "tcp.db"), "through the emulator")
		})
	}
}

// TestDocumentedEmulators: every command line of the pages, and of the help, is one.
func TestDocumentedEmulators(t *testing.T) {
	code := regexp.MustCompile("(?s)```.*?```|`[^`]+`")
	line := regexp.MustCompile(`tunneld emulate ([a-z]+)([^>#\n]*)`)
	seen := map[string]int{}
	check := func(t *testing.T, text string) {
		for _, m := range line.FindAllStringSubmatch(text, -1) {
			seen[m[1]]++
			cmd, rest, err := newRoot(nil, io.Discard, io.Discard).Find([]string{"emulate", m[1]})
			if err == nil && len(rest) > 0 {
				err = fmt.Errorf("there is no %q", rest)
			}
			if err == nil {
				err = cmd.ParseFlags(strings.Fields(m[2]))
			}
			if err != nil {
				t.Errorf("%s: %v", m[0], err)
			}
			if left := cmd.Flags().Args(); len(left) > 0 {
				t.Errorf("%s: %q is left", m[0], left)
			}
		}
	}
	for _, pattern := range []string{"README.md", "docs/*.md", "plugins/*/README.md"} {
		pages, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, page := range pages {
			text, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			t.Run(filepath.ToSlash(page), func(t *testing.T) {
				for _, span := range code.FindAllString(string(text), -1) {
					if !strings.HasPrefix(span, "```") {
						span = strings.ReplaceAll(strings.Trim(span, "`"), "\n", " ")
					}
					check(t, span)
				}
			})
		}
	}
	examples, err := filepath.Glob(filepath.Join(root, "examples/*/*.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range examples {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		check(t, string(text))
	}
	for _, cmd := range emulateCommand().Commands() {
		check(t, cmd.Example)
	}
	for _, protocol := range []string{"sapsocks", "websocks", "soht", "azrelay"} {
		if seen[protocol] < 4 {
			t.Errorf("only %d command lines of %s were seen", seen[protocol], protocol)
		}
	}
}

// TestEmulateAzrelayAnonymous has a listener of its own, which needs a token, and
// a sender without one.
func TestEmulateAzrelayAnonymous(t *testing.T) {
	key := secretFile(t, "key", "a-key=")
	e := emulate(t, "azrelay", "--anonymous", "--key-file", key)
	address := regexp.MustCompile(`ws://[0-9.:]+`).FindString(e.out)
	var token strings.Builder
	if status := run(t.Context(), []string{"azrelay", "token", "--namespace", "127.0.0.1", "--hybrid-connection", "demo",
		"--key-name", "RootManageSharedAccessKey", "--key-file", key}, strings.NewReader(""), &token, io.Discard); status != exitOK {
		t.Fatalf("exit status %d", status)
	}
	ask := func(query string) *bufio.Reader {
		t.Helper()
		c, err := net.Dial("tcp", strings.TrimPrefix(address, "ws://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(patience))
		fmt.Fprintf(c, "GET /$hc/demo?%s HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", query)
		return bufio.NewReader(c)
	}
	listener := ask("sb-hc-action=listen&sb-hc-token=" + url.QueryEscape(strings.TrimSpace(token.String())))
	if resp, err := http.ReadResponse(listener, nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("a listener with a token: %v, %v", resp, err)
	}
	ask("sb-hc-action=connect")
	if offer, err := listener.ReadString('}'); err != nil || !strings.Contains(offer, `"accept"`) {
		t.Errorf("the listener read %q, %v", offer, err)
	}
	if log := e.stop(t); !strings.Contains(log, "action=listen path=demo") || strings.Contains(log, "sig") {
		t.Errorf("logged %s", log)
	}
}

// TestAzrelayUsage: a command of a plugin ends with the statuses of the others.
func TestAzrelayUsage(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	token := []string{"azrelay", "token", "--namespace", "n", "--hybrid-connection", "h", "--key-name", "k", "--key-file"}
	for name, tc := range map[string]struct {
		args []string
		want int
		says string
	}{
		"an empty key":     {append(token, empty), exitUsage, "contains no key"},
		"no key":           {append(token, empty+".none"), exitFailed, "read key"},
		"two framings":     {[]string{"emulate", "azrelay", "--forward", "a:1", "--bridge", "x=a:1"}, exitUsage, "--forward or --bridge"},
		"nobody can come":  {[]string{"emulate", "azrelay"}, exitUsage, "--key-file"},
		"an argument more": {[]string{"emulate", "azrelay", "x"}, exitUsage, "--help"},
	} {
		t.Run(name, func(t *testing.T) {
			var stderr bytes.Buffer
			if got := run(t.Context(), tc.args, strings.NewReader(""), io.Discard, &stderr); got != tc.want || !strings.Contains(stderr.String(), tc.says) {
				t.Errorf("exit status %d, %s", got, stderr.String())
			}
		})
	}
}
