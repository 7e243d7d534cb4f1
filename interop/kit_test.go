//go:build interop

// Package interop runs the conformance kit: against the bundled plugins with
// their emulated far ends, and against the example of a plugin's author with a
// proxy that was not written here.
package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/proctest"
	"github.com/tunneld/tunneld/plugins/azrelay/azrelayemu"
	"github.com/tunneld/tunneld/plugins/sapsocks/sapsocksemu"
	"github.com/tunneld/tunneld/plugins/soht/sohtemu"
	"github.com/tunneld/tunneld/plugins/websocks/websocksemu"
)

// patience bounds one run of the kit.
const patience = 5 * time.Minute

// The targets as the far ends know them. Where they lead is theirs to know.
const (
	target  = "echo.corp:7000"
	refused = "nobody.corp:7001"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "forward" {
		os.Exit(forward(os.Args[2], os.Args[3]))
	}
	os.Exit(proctest.Main(m))
}

// report is what the tests read of the kit's.
type report struct {
	OK     bool
	Plugin struct{ Name, Path string }
	Checks []struct{ ID, Result, Detail string }
}

// kit runs the kit and wants it to pass. It returns the report.
func kit(t *testing.T, config string, args ...string) report {
	t.Helper()
	file := filepath.Join(t.TempDir(), "kit.hcl")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, proctest.Tunneld(t), append([]string{"plugin", "test", "--json", "--config", file}, args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !(errors.As(err, &exit) && exit.ExitCode() == 1) {
		t.Fatalf("%v\n%s%s", err, out, stderr.String())
	}
	var r report
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v\n%s%s", err, out, stderr.String())
	}
	for _, c := range r.Checks {
		t.Logf("%-8s %-18s %s", c.Result, c.ID, c.Detail)
		if c.Result == "fail" {
			t.Errorf("%s fails: %s", c.ID, c.Detail)
		}
	}
	if r.OK != (err == nil) {
		t.Errorf("ok is %t, and the program ended with %v", r.OK, err)
	}
	return r
}

// wantResults wants exactly these checks not to have passed.
func wantResults(t *testing.T, r report, path string, want map[string]string) {
	t.Helper()
	if r.Plugin.Path != path {
		t.Errorf("the path is %s, not %s", r.Plugin.Path, path)
	}
	for _, c := range r.Checks {
		expected, other := want[c.ID]
		if !other {
			expected = "pass"
		}
		if c.Result != expected {
			t.Errorf("%s is %s, not %s: %s", c.ID, c.Result, expected, c.Detail)
		}
	}
}

// freePort returns a loopback address where nobody listens until the test has
// somebody do: of its own, so that no other run of the tests has it either.
func freePort() string {
	return fmt.Sprintf("127.%d.%d.%d:7007", 1+rand.IntN(250), rand.IntN(256), 1+rand.IntN(250))
}

// closedPort returns a loopback address where nothing will listen.
func closedPort(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	bound, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", bound.(*syscall.SockaddrInet4).Port)
}

// behind returns an address that leads to a far end of the test's own process,
// and the command that leads there, for the kit to end: it cuts the sessions.
func behind(t *testing.T, farEnd string) (address string, command []string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	address = freePort()
	return address, []string{"--", exe, "forward", address, farEnd}
}

// forward leads connections on, and their ends: each in its own way.
func forward(from, to string) int {
	ln, err := net.Listen("tcp", from)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	for {
		in, err := ln.Accept()
		if err != nil {
			return 1
		}
		go lead(in.(*net.TCPConn), to)
	}
}

func lead(in *net.TCPConn, to string) {
	defer in.Close()
	conn, err := net.Dial("tcp", to)
	if err != nil {
		_ = in.SetLinger(0)
		return
	}
	out := conn.(*net.TCPConn)
	defer out.Close()
	var both sync.WaitGroup
	pass := func(to, from *net.TCPConn) {
		_, err := io.Copy(to, from)
		if err == nil {
			err = to.CloseWrite()
		}
		if err != nil {
			_, _ = in.SetLinger(0), out.SetLinger(0)
			_, _ = in.Close(), out.Close()
		}
	}
	both.Go(func() { pass(out, in) })
	both.Go(func() { pass(in, out) })
	both.Wait()
}

// certify runs the kit against a bundled plugin.
func certify(t *testing.T, plugin, echo, body string, more ...string) report {
	t.Helper()
	return kit(t, fmt.Sprintf("upstream %q \"kit\" {\n%s\n}\n", plugin, body),
		append([]string{"--upstream", plugin + ".kit", "--target", target, "--serve", echo}, more...)...)
}

func TestSapsocks(t *testing.T) {
	echo := freePort()
	emu, err := sapsocksemu.Start(sapsocksemu.Options{
		Connectors: map[string]map[string]string{"berlin": {target: echo, refused: closedPort(t)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer emu.Close()
	vcap := filepath.Join(t.TempDir(), "vcap.json")
	if err := os.WriteFile(vcap, []byte(emu.VCAPServices()), 0o600); err != nil {
		t.Fatal(err)
	}
	r := certify(t, "sapsocks", echo, fmt.Sprintf("vcap_services = file(%q)\nlocation_id = \"berlin\"", vcap), "--refused", refused)
	// The far end is no command of the kit's: its address is in the binding.
	wantResults(t, r, "direct", map[string]string{"far-end-death": "skipped"})
}

func TestWebsocks(t *testing.T) {
	for _, tc := range []struct {
		name, path string
		tls        bool
	}{{"ws", "direct", false}, {"wss", "relay", true}} {
		t.Run(tc.name, func(t *testing.T) {
			echo := freePort()
			emu, err := websocksemu.Start(websocksemu.Options{
				TLS:     tc.tls,
				Users:   map[string]string{"alice": "open-sesame"},
				Targets: map[string]string{target: echo, refused: closedPort(t)},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer emu.Close()
			address, command := behind(t, emu.Address())
			body := fmt.Sprintf("url = %q\nusername = \"alice\"\npassword = \"open-sesame\"", tc.name+"://"+address)
			// Its server sends no close_notify: a cut session looks like an end.
			want := map[string]string{"greeting": "declared", "refused": "declared"}
			if tc.tls {
				body += fmt.Sprintf("\ntls {\n ca_file = %q\n server_name = \"localhost\"\n}", emu.CAFile())
				want["far-end-death"] = "declared"
			}
			// The server connects to the target after the client's first byte.
			wantResults(t, certify(t, "websocks", echo, body, append([]string{"--refused", refused}, command...)...), tc.path, want)
		})
	}
}

// TestSOHT: the protocol cannot end one direction alone, nor any way but one,
// which the plugin declares.
func TestSOHT(t *testing.T) {
	for _, mode := range []string{"stateful", "stateless"} {
		t.Run(mode, func(t *testing.T) {
			echo := freePort()
			emu, err := sohtemu.Start(sohtemu.Options{
				Hosts: map[string]string{target: echo, refused: closedPort(t)},
				Users: map[string]string{"alice": "open-sesame"},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer emu.Close()
			u, err := url.Parse(emu.URL())
			if err != nil {
				t.Fatal(err)
			}
			address, command := behind(t, u.Host)
			u.Host = address
			body := fmt.Sprintf("url = %q\nmode = %q\nusername = \"alice\"\npassword = \"open-sesame\"", u, mode)
			wantResults(t, certify(t, "soht", echo, body, append([]string{"--refused", refused}, command...)...), "relay", map[string]string{
				"half-close-client": "declared", "half-close-target": "declared",
				"abort": "declared", "kill-target": "declared",
			})
		})
	}
}

func TestAzrelay(t *testing.T) {
	for _, framing := range []string{azrelayemu.FramingRaw, azrelayemu.FramingAzbridge} {
		t.Run(framing, func(t *testing.T) {
			echo := freePort()
			forward := azrelayemu.Forward{HybridConnection: "kit", Framing: framing}
			args, want := []string{"--refused", refused}, map[string]string{"refused": "declared"}
			if framing == azrelayemu.FramingRaw {
				// The listener's target is the only one.
				forward.Target = echo
				args, want = []string{"--no-refused"}, map[string]string{"refused": "skipped"}
			} else {
				forward.Ports = map[string]string{"7000": echo, "7001": closedPort(t)}
			}
			emu, err := azrelayemu.Start(azrelayemu.Options{
				Keys:    map[string]azrelayemu.Key{"send": {Value: "key-of-the-kit", Rights: azrelayemu.Send}},
				Forward: []azrelayemu.Forward{forward},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer emu.Close()
			address, command := behind(t, emu.Addr())
			body := fmt.Sprintf("namespace = \"kit.servicebus.windows.net\"\nendpoint = %q\nhybrid_connection = \"kit\"\nkey_name = \"send\"\nkey = \"key-of-the-kit\"\nframing = %q",
				"ws://"+address, framing)
			wantResults(t, certify(t, "azrelay", echo, body, append(args, command...)...), "relay", want)
		})
	}
}
