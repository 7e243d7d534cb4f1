package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/internal/bare"
	"github.com/tunneld/tunneld/internal/nettest"
)

// local is a configuration with a listener "tcp.a" of which more is given.
func local(echo, more string) string {
	return fmt.Sprintf("upstream \"direct\" \"x\" {}\nroute \"all\" {\n upstreams = [upstream.direct.x]\n}\nlistener \"tcp\" \"a\" {\n target = %q\n %s\n}\n", echo, more)
}

func wantMode(t *testing.T, path string, want fs.FileMode) fs.FileInfo {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != fs.ModeSocket|want {
		t.Fatalf("%s: %v, %v; want %v", path, info, err, want)
	}
	return info
}

func wantGone(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", path, err)
	}
}

func groupOf(info fs.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Gid) }

// me is this process as the log has it.
var me = bare.Process{Known: true, UID: uint32(os.Geteuid()), PID: int32(os.Getpid())}.String()

// TestUnixListeners: listeners of all kinds are reached at a path, the log says which process
// came, and the end of the daemon removes the sockets.
func TestUnixListeners(t *testing.T) {
	dir := shortDir(t)
	at := func(kind string) string { return filepath.Join(dir, kind) }
	r := start(t, nil, func(echo string) string {
		text := local(echo, fmt.Sprintf("address = \"unix://%s\"", at("tcp")))
		for _, kind := range []string{"socks5", "http", "mixed"} {
			text += fmt.Sprintf("listener %q \"a\" {\n address = \"unix://%s\"\n mode = \"0660\"\n%s}\n", kind, at(kind), nettest.OpenTargets)
		}
		return text
	})
	wantMode(t, at("tcp"), 0o600)
	for _, kind := range []string{"socks5", "http", "mixed"} {
		wantMode(t, at(kind), 0o660)
	}
	if addresses := r.Status().Listeners[0].Addresses; !slices.Equal(addresses, []string{"unix://" + at("tcp")}) {
		t.Errorf("addresses %q", addresses)
	}
	r.log.Await(t, 1, "msg", "listening", "listener", "http.a", "address", "unix://"+at("http"))

	visit(t, "unix://"+at("tcp"))
	for _, c := range callers {
		kind, want := c.kind, ""
		switch kind {
		case "socks5":
			want = "\x05\x00"
		case "http":
			want = "HTTP/1.1 200"
		default:
			continue
		}
		for _, at := range []string{at(kind), at("mixed")} {
			conn := dialAt(t, "unix://"+at)
			if _, err := conn.Write([]byte(c.asks(t, r.echo, "", ""))); err != nil {
				t.Fatal(err)
			}
			heard := make([]byte, 1024)
			if n, err := conn.Read(heard); err != nil || !strings.HasPrefix(string(heard[:n]), want) {
				t.Errorf("%s: heard %q, %v", at, heard[:n], err)
			}
			conn.Close()
		}
	}
	for _, line := range r.log.Await(t, 5, "msg", "connection") {
		if line["client"] != me {
			t.Errorf("client %v, want %s", line["client"], me)
		}
	}
	// Somebody else has taken this place over.
	if err := os.Remove(at("http")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at("http"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.Stop(context.Background()); err != nil {
		t.Error(err)
	}
	for _, kind := range []string{"tcp", "socks5", "mixed"} {
		wantGone(t, at(kind))
	}
	if _, err := os.Lstat(at("http")); err != nil {
		t.Error(err)
	}
}

// TestUnixSocketStays: a reload keeps the socket of a path that stays, with the clients in its
// queue, and gives it the permissions that are new. A path can pass to another listener, and
// goes with the last.
func TestUnixSocketStays(t *testing.T) {
	dir := shortDir(t)
	kept, gone, more := filepath.Join(dir, "kept"), filepath.Join(dir, "gone"), filepath.Join(dir, "more")
	r := start(t, nil, func(echo string) string {
		return local(echo, fmt.Sprintf("addresses = [\"unix://%s\", \"unix://%s\"]", kept, gone))
	})
	first := wantMode(t, kept, 0o600)
	sockets := r.sockets("tcp.a")
	same := func(id string) {
		t.Helper()
		if now := r.sockets(id); len(now) == 0 || now[0] != sockets[0] {
			t.Error("the socket is another")
		}
		visit(t, "unix://"+kept)
	}
	group := os.Getegid()
	if os.Geteuid() == 0 {
		group = 12345
	}
	r.reload(t, local(r.echo, fmt.Sprintf("addresses = [\"unix://%s\", \"unix://%s\"]\n mode = \"0660\"\n group = \"%d\"", kept, more, group)))
	if now := wantMode(t, kept, 0o660); !os.SameFile(now, first) || groupOf(now) != group {
		t.Errorf("it is another file, or of group %d", groupOf(now))
	}
	same("tcp.a")
	wantMode(t, more, 0o660)
	wantGone(t, gone)
	r.log.Await(t, 1, "msg", "no longer listening", "address", "unix://"+gone)

	// Written in another way, and then by another listener.
	r.reload(t, local(r.echo, fmt.Sprintf("address = \"unix://%s/.//kept\"", dir)))
	if now := wantMode(t, kept, 0o600); !os.SameFile(now, first) || groupOf(now) == 12345 {
		t.Errorf("it is another file, or still of group %d", groupOf(now))
	}
	same("tcp.a")
	wantGone(t, more)
	r.reload(t, strings.Replace(local(r.echo, fmt.Sprintf("address = \"unix://%s\"\n mode = \"0606\"", kept)), `"a"`, `"b"`, 1))
	if now := wantMode(t, kept, 0o606); !os.SameFile(now, first) {
		t.Error("it is another file")
	}
	same("tcp.b")
	r.reload(t, local(r.echo, "address = \"127.0.0.1:0\""))
	wantGone(t, kept)
}

// TestUnixQueueIsKept: who has connected and was not accepted yet is not lost by a reload.
func TestUnixQueueIsKept(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	text := func(echo, mode string) string {
		return local(echo, fmt.Sprintf("address = \"unix://%s\"\n mode = %q", path, mode))
	}
	r := start(t, nil, func(echo string) string { return text(echo, "0600") })
	for i := range 20 {
		c := dialAt(t, "unix://"+path)
		r.reload(t, text(r.echo, []string{"0660", "0600"}[i%2]))
		echoed(t, c)
		c.Close()
	}
}

// TestLostPath: a path at which clients do not find the socket any more is bound by the next
// reload, and what others have put there is not removed.
func TestLostPath(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	text := func(echo string) string { return local(echo, fmt.Sprintf("address = \"unix://%s\"", path)) }
	r := start(t, nil, text)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	r.reload(t, text(r.echo))
	visit(t, "unix://"+path)

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	other, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	r.reloadFails(t, text(r.echo), "serves it")
	r.reload(t, local(r.echo, "address = \"127.0.0.1:0\""))
	if _, err := net.Dial("unix", path); err != nil {
		t.Errorf("the other one's socket: %v", err)
	}
}

// TestUnixPathIsTaken: what is in the way is said, with what to do, and where the path is
// written.
func TestUnixPathIsTaken(t *testing.T) {
	dir := shortDir(t)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	run := filepath.Join(dir, "own")
	r := start(t, nil, func(echo string) string {
		return local(echo, "address = \"127.0.0.1:0\"") + fmt.Sprintf("control {\n address = \"unix://%s\"\n}\n", run)
	})
	for path, want := range map[string]string{
		file:                                  "there is a file that is not a socket: remove it",
		filepath.Join(dir, "no", "s"):         "there is no folder " + filepath.Join(dir, "no"),
		filepath.Join(dir, "link", "own"):     "this tunneld serves it itself",
		filepath.Join(dir, "link", "another"): "this tunneld serves it itself",
	} {
		text := local(r.echo, fmt.Sprintf("addresses = [\n  \"127.0.0.1:0\",\n  \"unix://%s\",\n  \"unix://%s\",\n ]", filepath.Join(dir, "another"), path)) +
			fmt.Sprintf("control {\n address = \"unix://%s\"\n}\n", run)
		r.write(t, text)
		out := r.Reload(t.Context())
		line := fmt.Sprintf("line %d, in listener", 2+strings.Count(text[:strings.Index(text, "another")], "\n"))
		if out.Error == "" || out.Invalid || !strings.Contains(out.Diagnostics, want) || !strings.Contains(out.Diagnostics, line) {
			t.Errorf("%s: %s\n%s, want %q, %q", path, out.Error, out.Diagnostics, want, line)
		}
		wantGone(t, filepath.Join(dir, "another"))
	}
	if content, err := os.ReadFile(file); string(content) != "precious" || err != nil {
		t.Errorf("%q, %v", content, err)
	}
}

// TestUnixClientsHaveNoAddress: what looks at addresses leaves them alone, and concerns the
// others of the listener.
func TestUnixClientsHaveNoAddress(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	r := start(t, nil, func(echo string) string {
		return local(echo, fmt.Sprintf("addresses = [\"unix://%s\", \"127.0.0.1:0\"]\n allow = [\"127.0.0.1\"]\n deny = [\"127.0.0.2\"]\n limits {\n  max_per_source = 1\n  max_rate = 1\n }", path))
	})
	addresses := r.Status().Listeners[0].Addresses
	for range 5 {
		c := dialAt(t, "unix://"+path)
		defer c.Close()
		echoed(t, c)
	}
	wantResetFrom(t, "127.0.0.2", addresses[1], "")
	visit(t, addresses[1])
	wantReset(t, addresses[1])
}

// TestUnixClientsAndSources: no source of a route is theirs.
func TestUnixClientsAndSources(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	r := start(t, nil, func(echo string) string {
		text := local(echo, fmt.Sprintf("addresses = [\"unix://%s\", \"127.0.0.1:0\"]", path))
		return strings.Replace(text, "upstreams =", "match {\n  sources = [\"0.0.0.0/0\", \"::/0\"]\n }\n upstreams =", 1)
	})
	visit(t, r.Status().Listeners[0].Addresses[1])
	c := dialAt(t, "unix://"+path)
	defer c.Close()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("it is connected")
	}
	if line := r.log.Await(t, 1, "msg", "connection failed")[0]; line["client"] != me {
		t.Errorf("client %v", line["client"])
	}
}

// TestUnixClientOfAPlugin: a plugin is told of no address.
func TestUnixClientOfAPlugin(t *testing.T) {
	if c := (&connection{process: bare.Process{Known: true, UID: 7, PID: 9}}); c.address() != "" || c.client() != "unix:uid=7,pid=9" {
		t.Errorf("address %q, client %q", c.address(), c.client())
	}
}

// TestUnixFirstByte: a listener that waits for the first byte leaves it in the socket, and who
// leaves without one has probed.
func TestUnixFirstByte(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	r := start(t, nil, func(echo string) string {
		return local(echo, fmt.Sprintf("address = \"unix://%s\"\n dial_on = \"first_byte\"", path)) + "metrics {\n address = \"127.0.0.1:0\"\n}\n"
	})
	dialAt(t, "unix://"+path).Close()
	visit(t, "unix://"+path)
	r.log.Await(t, 1, "msg", "connection", "client", me)
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		_, page := get(t, r.metricsSockets()[0].bound(), "/metrics")
		if strings.Contains(page, "\ntunneld_probes_total{listener=\"tcp.a\"} 1\n") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no probe is counted: %s", page)
		}
	}
}

// TestUnixLogins: users log in over a unix socket as anywhere.
func TestUnixLogins(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	r := start(t, nil, func(echo string) string {
		return local(echo, "address = \"127.0.0.1:0\"") +
			fmt.Sprintf("listener \"socks5\" \"s\" {\n address = \"unix://%s\"\n auth {\n  users = { alice = \"right\" }\n }\n%s}\n", path, nettest.OpenTargets)
	})
	for password, want := range map[string]string{"wrong": "\x05\x02\x01\x01", "right": "\x05\x02\x01\x00\x05"} {
		c := dialAt(t, "unix://"+path)
		defer c.Close()
		if _, err := c.Write([]byte(asksSOCKS5(t, r.echo, "alice", password))); err != nil {
			t.Fatal(err)
		}
		heard := make([]byte, len(want))
		for n := 0; n < len(heard); {
			m, err := c.Read(heard[n:])
			if err != nil {
				t.Fatal(err)
			}
			n += m
		}
		if string(heard) != want {
			t.Errorf("%s: % x", password, heard)
		}
	}
	if line := r.log.Await(t, 1, "msg", "client handshake failed", "reason", "login")[0]; line["client"] != me {
		t.Errorf("client %v", line["client"])
	}
}

// TestUnixAccessFromAFile: a mode that is read from a file follows it, on the socket that is
// there.
func TestUnixAccessFromAFile(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	modes := newSecretFolder(t, map[string]string{"mode": "0600"})
	r := start(t, nil, func(echo string) string {
		return local(echo, fmt.Sprintf("address = \"unix://%s\"\n mode = file(%q)", path, modes.path("mode")))
	})
	first := wantMode(t, path, 0o600)
	modes.swap(map[string]string{"mode": "0660"})
	r.log.Await(t, 1, "msg", "files have changed, and the block that reads them uses the new values", "listener", "tcp.a")
	if now := wantMode(t, path, 0o660); !os.SameFile(now, first) {
		t.Error("it is another file")
	}
}

// TestUnixAccessIsUndone: a reload that fails after it has changed the permissions of a socket
// gives it those that it had.
func TestUnixAccessIsUndone(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	text := func(echo, mode string) string {
		return local(echo, fmt.Sprintf("address = \"unix://%s\"\n mode = %q", path, mode))
	}
	r := start(t, nil, func(echo string) string { return text(echo, "0660") })
	r.write(t, text(r.echo, "0606"))
	r.turn <- struct{}{}
	cfg, diags := config.Parse(r.path)
	steps := r.newTransition(renewal{cfg: cfg, diags: diags}).steps()
	steps[len(steps)-1].prepare = func(context.Context) error {
		wantMode(t, path, 0o606)
		return errLost
	}
	err := transact(t.Context(), steps)
	<-r.turn
	if err == nil || err.Error() != errLost.Error() {
		t.Error(err)
	}
	wantMode(t, path, 0o660)
	visit(t, "unix://"+path)
}

// passedUnix is a unix socket that is bound here and to be passed on.
func passedUnix(t *testing.T) (file *os.File, path string) {
	t.Helper()
	path = filepath.Join(shortDir(t), "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ln.SetUnlinkOnClose(false)
	if file, err = ln.File(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	return file, path
}

// TestInheritedUnixSocket: a unix socket that the daemon was given is taken by its name, and
// stays whoever's it is: with its permissions, and when the daemon has ended.
func TestInheritedUnixSocket(t *testing.T) {
	echo := nettest.Serve(t, nettest.Echo)
	file, path := passedUnix(t)
	h, told := startHeir(t, local(echo, "address = \"fd://orders\""), []string{"orders"}, file)
	if told.Error != "" {
		t.Fatalf("%+v", told)
	}
	visit(t, "unix://"+path)
	if line := h.log.Await(t, 1, "msg", "connection")[0]; line["client"] != me {
		t.Errorf("client %v, want %s", line["client"], me)
	}
	// The path itself is not its own.
	out := h.reload(t, local(echo, fmt.Sprintf("address = \"unix://%s\"", path)))
	if out.Error == "" || !strings.Contains(out.Diagnostics, `write address = "fd://orders"`) {
		t.Errorf("%+v", out)
	}
	if out := h.reload(t, local(echo, "addresses = [\"fd://orders\", \"127.0.0.1:0\"]\n allow = [\"127.0.0.1\"]")); out.Error != "" {
		t.Errorf("%+v", out)
	}
	visit(t, "unix://"+path)
	if out := h.reload(t, local(echo, "address = \"127.0.0.1:0\"")); out.Error != "" {
		t.Errorf("%+v", out)
	}
	wantMode(t, path, 0o640)
	if out := h.reload(t, local(echo, "address = \"fd://orders\"")); out.Error != "" {
		t.Errorf("%+v", out)
	}
	visit(t, "unix://"+path)
	if n := len(h.log.Await(t, 2, "msg", "listening", "address", "unix://"+path)); n != 2 {
		t.Errorf("it began to listen %d times", n)
	}
	h.in.Close()
	var end heirWord
	if err := h.out.Decode(&end); !errors.Is(err, io.EOF) {
		t.Fatalf("%+v, %v", end, err)
	}
	wantMode(t, path, 0o640)
}
