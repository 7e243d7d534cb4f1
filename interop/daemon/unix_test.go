//go:build interop

package daemon

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/proctest"
)

// atPaths starts the daemon with a listener of each kind at its path in dir, whose target, if it
// has one, is at address.
func atPaths(t *testing.T, dir, address, more string) (*door, *exec.Cmd) {
	t.Helper()
	config := "upstream \"direct\" \"x\" {}\nroute \"all\" {\n upstreams = [upstream.direct.x]\n}\n" +
		fmt.Sprintf("listener \"tcp\" \"l\" {\n address = \"unix://%s/.s.PGSQL.5432\"\n target = %q\n%s}\n", dir, address, more)
	for _, kind := range []string{"socks5", "mixed"} {
		config += fmt.Sprintf("listener %q \"l\" {\n address = \"unix://%s/%s\"\n%s}\n", kind, dir, kind, nettest.OpenTargets)
	}
	file := filepath.Join(t.TempDir(), "tunneld.hcl")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(proctest.Tunneld(t), "run", "-c", file)
	d := &door{daemon: proctest.Start(t, cmd)}
	d.logs(t, "listener=mixed.l")
	return d, cmd
}

// TestUnixPostgreSQL: psql finds the socket by its folder, as that of a server.
func TestUnixPostgreSQL(t *testing.T) {
	psql := proctest.Tool(t, "psql")
	dir := nettest.SocketDir(t)
	d, _ := atPaths(t, dir, postgres(t), "")
	args := []string{"-X", "-q", "-A", "-t", "-h", dir, "-U", "postgres", "-d", "postgres"}
	if out := run(t, nil, "", psql, append(args, "-c", "select 6*7")...); out != "42\n" {
		t.Errorf("select: %q", out)
	}
	if out := run(t, nil, "", psql, append(args, "-c", "select repeat('x', 5000000)")...); len(out) != 5000001 {
		t.Errorf("a large result has %d bytes", len(out))
	}
	d.logs(t, fmt.Sprintf("client=\"unix:uid=%d,pid=", os.Geteuid()))
}

// TestUnixCurl: curl comes by a socket to a server, and to SOCKS listeners.
func TestUnixCurl(t *testing.T) {
	curl := proctest.Tool(t, "curl")
	dir := nettest.SocketDir(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Host, r.URL) }))
	t.Cleanup(server.Close)
	at := strings.TrimPrefix(server.URL, "http://")
	atPaths(t, dir, at, "")
	if out := run(t, nil, "", curl, "-sS", "--unix-socket", filepath.Join(dir, ".s.PGSQL.5432"), "http://server.example/page"); out != "server.example/page" {
		t.Errorf("to a server: %q", out)
	}
	for _, kind := range []string{"socks5", "mixed"} {
		if out := run(t, nil, "", curl, "-sS", "-x", "socks5h://localhost"+filepath.Join(dir, kind), server.URL+"/page"); out != at+"/page" {
			t.Errorf("by %s: %q", kind, out)
		}
	}
}

// TestUnixSocat: socat ends its direction, and gets the answer. The daemon that was killed has
// left a dead socket, which the next one replaces; ss knows it by its path.
func TestUnixSocat(t *testing.T) {
	socat, ss := proctest.Tool(t, "socat"), proctest.Tool(t, "ss")
	dir := nettest.SocketDir(t)
	path := filepath.Join(dir, ".s.PGSQL.5432")
	address := nettest.Serve(t, nettest.Echo)
	for range 2 {
		_, daemon := atPaths(t, dir, address, "")
		if out := run(t, nil, "to and fro", socat, "-t", "30", "-", "UNIX-CONNECT:"+path); out != "to and fro" {
			t.Errorf("socat: %q", out)
		}
		if out := run(t, nil, "", ss, "-xlH", "src", path); !strings.Contains(out, path) {
			t.Errorf("ss does not find it: %q", out)
		}
		if err := daemon.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the daemon leaves a dead socket", func() error {
			c, err := net.Dial("unix", path)
			if err == nil {
				return errors.Join(errors.New("it is served"), c.Close())
			}
			if !errors.Is(err, syscall.ECONNREFUSED) {
				return err
			}
			return nil
		})
	}
}

// TestUnixPermissions: other users connect as far as the mode and the group let them.
func TestUnixPermissions(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("to be other users takes root")
	}
	setpriv, socat := proctest.Tool(t, "setpriv"), proctest.Tool(t, "socat")
	address := nettest.Serve(t, nettest.Echo)
	for _, c := range []struct {
		lines                string
		member, other, owner bool
	}{
		{"", false, false, false},
		{" mode = \"0660\"\n group = \"23456\"\n", true, false, false},
		{" mode = \"0600\"\n owner = \"12345\"\n", false, false, true},
		{" mode = \"0666\"\n", true, true, true},
	} {
		dir := nettest.SocketDir(t)
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		atPaths(t, dir, address, c.lines)
		for who, want := range map[string]bool{"65534:23456": c.member, "65534:65534": c.other, "12345:65534": c.owner} {
			uid, gid, _ := strings.Cut(who, ":")
			cmd := exec.CommandContext(t.Context(), setpriv, "--reuid", uid, "--regid", gid, "--clear-groups", socat, "-t", "30", "-", "UNIX-CONNECT:"+filepath.Join(dir, ".s.PGSQL.5432"))
			cmd.Stdin = strings.NewReader("hello")
			if out, err := cmd.CombinedOutput(); (string(out) == "hello") != want || want && err != nil {
				t.Errorf("%s, with %q: %q, %v, want %t", who, c.lines, out, err, want)
			}
		}
	}
}
