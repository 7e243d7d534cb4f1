//go:build interop

package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/proctest"
	"github.com/tunneld/tunneld/plugins/sapsocks/sapsocksemu"
	"github.com/tunneld/tunneld/plugins/soht/sohtemu"
	"github.com/tunneld/tunneld/plugins/websocks/websocksemu"
)

const patience = 60 * time.Second

// eventually tries until it succeeds: a server says in no other way that it is
// ready.
func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// run runs a client to its end and returns what it printed.
func run(t *testing.T, env []string, stdin string, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin = strings.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, &stderr)
	}
	return string(out)
}

func TestMain(m *testing.M) { os.Exit(proctest.Main(m)) }

// target is the name by which the far ends know the service.
const target = "service.corp:7000"

// farEnds are the upstream blocks that lead to address, by name.
func farEnds(t *testing.T, address string) map[string]string {
	t.Helper()
	sap, err := sapsocksemu.Start(sapsocksemu.Options{Connectors: map[string]map[string]string{"": {target: address}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sap.Close() })
	vcap := filepath.Join(t.TempDir(), "vcap.json")
	if err := os.WriteFile(vcap, []byte(sap.VCAPServices()), 0o600); err != nil {
		t.Fatal(err)
	}
	ws, err := websocksemu.Start(websocksemu.Options{TLS: true, Targets: map[string]string{target: address}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ws.Close() })
	soht, err := sohtemu.Start(sohtemu.Options{Hosts: map[string]string{target: address}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { soht.Close() })
	return map[string]string{
		"sapsocks":  fmt.Sprintf("upstream \"sapsocks\" \"far\" {\n vcap_services = file(%q)\n}\n", vcap),
		"websocks":  fmt.Sprintf("upstream \"websocks\" \"far\" {\n url = %q\n tls {\n ca_file = %q\n }\n}\n", ws.URL(), ws.CAFile()),
		"stateful":  fmt.Sprintf("upstream \"soht\" \"far\" {\n url = %q\n}\n", soht.URL()),
		"stateless": fmt.Sprintf("upstream \"soht\" \"far\" {\n url = %q\n mode = \"stateless\"\n}\n", soht.URL()),
	}
}

// throughEach runs test with a listener that leads to the service at address,
// through each protocol.
func throughEach(t *testing.T, address string, test func(t *testing.T, host, port string)) {
	for name, upstream := range farEnds(t, address) {
		t.Run(name, func(t *testing.T) {
			kind, _, _ := strings.Cut(strings.TrimPrefix(upstream, "upstream \""), "\"")
			listen := nettest.FreeAddress(t)
			file := filepath.Join(t.TempDir(), "tunneld.hcl")
			config := upstream + fmt.Sprintf("listener \"tcp\" \"l\" {\n address = %q\n target = %q\n timeouts {\n half_close = \"1s\"\n }\n}\nroute \"all\" {\n upstreams = [upstream.%s.far]\n}\n", listen, target, kind)
			if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
				t.Fatal(err)
			}
			daemon := proctest.Start(t, exec.Command(proctest.Tunneld(t), "run", "-c", file))
			eventually(t, "tunneld listens", func() error {
				if !strings.Contains(daemon.Output(), "msg=listening") {
					return errors.New(daemon.Output())
				}
				return nil
			})
			host, port, err := net.SplitHostPort(listen)
			if err != nil {
				t.Fatal(err)
			}
			test(t, host, port)
		})
	}
}

func TestRedis(t *testing.T) {
	server, cli := proctest.Tool(t, "redis-server"), proctest.Tool(t, "redis-cli")
	address := nettest.FreeAddress(t)
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	proctest.Start(t, exec.Command(server, "--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no", "--dir", t.TempDir()))
	eventually(t, "redis answers", func() error {
		c, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			return err
		}
		return c.Close()
	})
	throughEach(t, address, func(t *testing.T, host, port string) {
		args := []string{"-h", host, "-p", port}
		if out := run(t, nil, "", cli, append(args, "ping")...); out != "PONG\n" {
			t.Errorf("ping: %q", out)
		}
		value := strings.Repeat("0123456789abcdef", 64<<10) // 1 MiB
		if out := run(t, nil, value, cli, append(args, "-x", "set", "big")...); out != "OK\n" {
			t.Errorf("set: %q", out)
		}
		if out := run(t, nil, "", cli, append(args, "get", "big")...); out != value+"\n" {
			t.Errorf("get: %d bytes", len(out))
		}
	})
}

// postgres starts a server of its own and returns its address.
func postgres(t *testing.T) string {
	t.Helper()
	bin := filepath.Dir(proctest.Tool(t, "initdb", "/usr/lib/postgresql/*/bin/initdb"))
	dir, err := os.MkdirTemp("", "tunneld-pg-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	// The server refuses to run as root.
	var as *syscall.SysProcAttr
	if os.Geteuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			t.Fatal(err)
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err := errors.Join(err1, err2, os.Chown(dir, uid, gid)); err != nil {
			t.Fatal(err)
		}
		as = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
	data := filepath.Join(dir, "data")
	initdb := exec.Command(filepath.Join(bin, "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "--no-sync")
	initdb.SysProcAttr, initdb.Dir = as, dir
	if out, err := initdb.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	address := nettest.FreeAddress(t)
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	server := exec.Command(filepath.Join(bin, "postgres"), "-D", data, "-h", host, "-p", port, "-k", dir, "-F")
	server.SysProcAttr, server.Dir = as, dir
	proctest.Start(t, server)
	ready := proctest.Tool(t, "pg_isready", bin+"/pg_isready")
	eventually(t, "PostgreSQL answers", func() error {
		return exec.Command(ready, "-h", host, "-p", port).Run()
	})
	return address
}

func TestPostgreSQL(t *testing.T) {
	psql := proctest.Tool(t, "psql")
	address := postgres(t)
	throughEach(t, address, func(t *testing.T, host, port string) {
		args := []string{"-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", host, "-p", port, "-U", "postgres", "-d", "postgres"}
		env := []string{"PGCONNECT_TIMEOUT=20"}
		sql := func(stdin string, more ...string) string { return run(t, env, stdin, psql, append(args, more...)...) }
		if out := sql("", "-c", "select 6*7"); out != "42\n" {
			t.Errorf("select: %q", out)
		}
		if out := sql("", "-c", "select repeat('x', 5000000)"); len(out) != 5000001 {
			t.Errorf("a large result has %d bytes", len(out))
		}
		var rows strings.Builder
		for i := range 50000 {
			fmt.Fprintf(&rows, "%d\trow number %d\n", i, i)
		}
		script := "create temp table t (n int, s text);\ncopy t from stdin;\n" + rows.String() + "\\.\nselect count(*), sum(n) from t;\ncopy t to stdout;\n"
		out := sql(script, "-f", "-")
		if want := "50000|1249975000\n" + rows.String(); out != want {
			t.Errorf("copy there and back: %d bytes, want %d", len(out), len(want))
		}
	})
}
