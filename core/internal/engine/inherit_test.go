package engine

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/internal/listenfds"
	"github.com/tunneld/tunneld/internal/logtest"
	"github.com/tunneld/tunneld/internal/nettest"
)

// heirName is what the test's binary is called when it is a daemon that is given
// sockets.
const heirName = "heir"

// serveHeir is a daemon of its own process: it takes the sockets that it was given, and
// runs the configuration that HEIR_CONFIG names. It reloads at each line of its standard
// input, and says then, and at the start, how it went.
func serveHeir() int {
	count := os.Getenv("LISTEN_FDS")
	table, err := listenfds.Take()
	if err != nil {
		fmt.Println(err)
		return 2
	}
	e, diags, err := Start(context.Background(), Options{
		ConfigPath: os.Getenv("HEIR_CONFIG"), Inherited: table,
		Log: slog.New(slog.NewJSONHandler(os.Stderr, nil)),
	})
	say := json.NewEncoder(os.Stdout)
	var text strings.Builder
	_ = diags.Write(&text) // a Builder takes everything
	told := heirWord{Diagnostics: text.String(), Environment: len(os.Getenv("LISTEN_FDS") + os.Getenv("LISTEN_PID") + os.Getenv("LISTEN_FDNAMES"))}
	if err != nil {
		told.Error = err.Error()
	}
	sockets, _ := strconv.Atoi(count)
	for fd := 3; fd < 3+sockets; fd++ {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			told.Inheritable++
		}
	}
	_ = say.Encode(told) // the test sees what is missing
	if err != nil {
		return 1
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		out := e.Reload(context.Background())
		_ = say.Encode(heirWord{Error: out.Error, Diagnostics: out.Diagnostics})
	}
	if err := e.Stop(context.Background()); err != nil {
		return 1
	}
	return 0
}

type heirWord struct {
	Error, Diagnostics string
	Environment        int // bytes of it that still tell of sockets
	Inheritable        int // sockets that a child would have
}

// heir is such a daemon.
type heir struct {
	path string
	in   io.WriteCloser
	out  *json.Decoder
	log  *logtest.Log
}

// startHeir starts one with the configuration, and with sockets by the names.
func startHeir(t *testing.T, config string, names []string, sockets ...*os.File) (*heir, heirWord) {
	t.Helper()
	h := &heir{path: filepath.Join(t.TempDir(), "tunneld.hcl"), log: logtest.New(patience)}
	h.write(t, config)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// The shell knows the process's number, which stays over exec.
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "/bin/sh", "-c", `LISTEN_PID=$$ exec "$0" plugin serve `+heirName, exe)
	cmd.ExtraFiles = sockets
	cmd.Env = append(os.Environ(), "HEIR_CONFIG="+h.path, fmt.Sprint("LISTEN_FDS=", len(sockets)), "LISTEN_FDNAMES="+strings.Join(names, ":"), "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = &lines{to: h.log}
	out, err := cmd.StdoutPipe()
	if err == nil {
		h.in, err = cmd.StdinPipe()
	}
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	h.out = json.NewDecoder(out)
	t.Cleanup(func() {
		h.in.Close()
		var exit *exec.ExitError
		if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("log of the daemon:\n%s", h.log)
		}
	})
	return h, h.hear(t)
}

func (h *heir) write(t *testing.T, config string) {
	t.Helper()
	if err := os.WriteFile(h.path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (h *heir) hear(t *testing.T) heirWord {
	t.Helper()
	var w heirWord
	if err := h.out.Decode(&w); err != nil {
		t.Fatal(err)
	}
	return w
}

func (h *heir) reload(t *testing.T, config string) heirWord {
	t.Helper()
	h.write(t, config)
	if _, err := io.WriteString(h.in, "\n"); err != nil {
		t.Fatal(err)
	}
	return h.hear(t)
}

// lines passes whole lines on.
type lines struct {
	to   io.Writer
	part []byte
}

func (l *lines) Write(b []byte) (int, error) {
	l.part = append(l.part, b...)
	for {
		i := strings.IndexByte(string(l.part), '\n')
		if i < 0 {
			return len(b), nil
		}
		if _, err := l.to.Write(l.part[:i+1]); err != nil {
			return 0, err
		}
		l.part = l.part[i+1:]
	}
}

// passed is a socket that is bound here and to be passed on.
func passed(t *testing.T, address string) (file *os.File, bound string) {
	t.Helper()
	return passedOf(t, "tcp", address)
}

// passedOf is one of a family: "tcp4" or "tcp6".
func passedOf(t *testing.T, network, address string) (file *os.File, bound string) {
	t.Helper()
	// Go's default is Multipath TCP, which service managers do not pass on unless
	// asked.
	var plain net.ListenConfig
	plain.SetMultipathTCP(false)
	ln, err := plain.Listen(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if file, err = ln.(*net.TCPListener).File(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return file, ln.Addr().String()
}

// TestInheritedSockets: a listener takes a socket that the daemon was given by its name,
// both of them where two have it. A reload keeps it, another listener can take it over,
// and one that comes back finds it again. What is unused, missing or no socket is told.
func TestInheritedSockets(t *testing.T) {
	echo := nettest.Serve(t, nettest.Echo)
	one, at := passed(t, "127.0.0.1:0")
	two, alsoAt := passed(t, "127.0.0.1:0")
	spare, spareAt := passed(t, "127.0.0.1:0")
	config := func(name, address string) string {
		return "upstream \"direct\" \"x\" {}\nroute \"all\" {\n upstreams = [upstream.direct.x]\n}\n" +
			fmt.Sprintf("listener \"tcp\" %q {\n address = %q\n target = %q\n}\n", name, address, echo)
	}
	h, told := startHeir(t, config("a", "fd://orders"), []string{"orders", "orders", "spare"}, one, two, spare)
	if told.Error != "" || told.Environment > 0 || told.Inheritable > 0 {
		t.Fatalf("%+v", told)
	}
	unused := h.log.Await(t, 1, "level", "WARN", "name", "spare")
	if len(unused) != 1 || len(h.log.Matching("level", "WARN", "name", "orders")) > 0 {
		t.Errorf("%v", unused)
	}
	visit(t, at)
	visit(t, alsoAt)
	for i, step := range []struct{ name, address, serves, wants string }{
		{"a", "fd://orders", at, ""},
		{"b", "fd://orders", at, ""},
		{"b", "fd://spare", spareAt, ""},
		{"b", "fd://nobody", spareAt, "no socket of this name, but: orders, spare"},
		{"b", "127.0.0.1:0", "", ""},
		{"a", "fd://orders", alsoAt, ""},
	} {
		out := h.reload(t, config(step.name, step.address))
		if (out.Error == "") != (step.wants == "") || !strings.Contains(out.Diagnostics, step.wants) {
			t.Fatalf("step %d: %+v", i, out)
		}
		if step.serves != "" {
			visit(t, step.serves)
		}
	}
	if n := len(h.log.Await(t, 2+2, "msg", "listening", "listener", "tcp.a")); n != 2+2 {
		t.Errorf("the sockets of a began to listen %d times", n)
	}
}

// TestInheritedFamilies: of two sockets that are bound to any address, of one family each,
// a reload gives each listener its own.
func TestInheritedFamilies(t *testing.T) {
	needIPv6(t)
	four, at := passedOf(t, "tcp4", "0.0.0.0:0")
	_, port, err := net.SplitHostPort(at)
	if err != nil {
		t.Fatal(err)
	}
	six, _ := passedOf(t, "tcp6", "[::]:"+port)
	targets := map[string]string{}
	for _, name := range []string{"a", "b"} {
		targets[name] = nettest.Serve(t, func(c *net.TCPConn) { _, _ = io.WriteString(c, name) })
	}
	config := func(a, b string) string {
		text := "upstream \"direct\" \"x\" {}\nroute \"all\" {\n upstreams = [upstream.direct.x]\n}\n"
		for name, socket := range map[string]string{"a": a, "b": b} {
			text += fmt.Sprintf("listener \"tcp\" %q {\n address = \"fd://%s\"\n target = %q\n allow = [\"127.0.0.0/8\", \"::1\"]\n}\n", name, socket, targets[name])
		}
		return text
	}
	h, told := startHeir(t, config("four", "six"), []string{"four", "six"}, four, six)
	if told.Error != "" {
		t.Fatalf("%+v", told)
	}
	check := func(host, want string) {
		t.Helper()
		c, err := net.DialTimeout("tcp", net.JoinHostPort(host, port), patience)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if got, err := io.ReadAll(c); string(got) != want || err != nil {
			t.Errorf("by %s to %q, %v; want %q", host, got, err, want)
		}
	}
	check("127.0.0.1", "a")
	check("::1", "b")
	for _, c := range []struct{ a, b, four, six string }{{"six", "four", "b", "a"}, {"four", "six", "a", "b"}} {
		if out := h.reload(t, config(c.a, c.b)); out.Error != "" {
			t.Fatalf("%+v", out)
		}
		check("127.0.0.1", c.four)
		check("::1", c.six)
	}
}

// TestInheritedStaysTaken: the address of a socket that the daemon was given is not free
// for another one, whoever serves it, and a listener that wants it is reported.
func TestInheritedStaysTaken(t *testing.T) {
	echo := nettest.Serve(t, nettest.Echo)
	orders, at := passed(t, "127.0.0.1:0")
	spare, spareAt := passed(t, "127.0.0.1:0")
	config := func(address, more string) string {
		return "upstream \"direct\" \"x\" {}\nroute \"all\" {\n upstreams = [upstream.direct.x]\n}\n" +
			fmt.Sprintf("listener \"tcp\" \"a\" {\n address = %q\n target = %q\n open = true\n}\n", address, echo) + more
	}
	h, told := startHeir(t, config("fd://orders", ""), []string{"orders", "spare"}, orders, spare)
	if told.Error != "" {
		t.Fatalf("%+v", told)
	}
	metrics := func(address string) string { return fmt.Sprintf("metrics {\n address = %q\n}\n", address) }
	_, port, err := net.SplitHostPort(at)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ address, more, want string }{
		{"0.0.0.0:" + port, "", `write address = "fd://orders"`},
		{spareAt, "", `write address = "fd://spare"`},
		{"fd://orders", metrics(spareAt), "choose another port"},
	} {
		if out := h.reload(t, config(c.address, c.more)); out.Error == "" || !strings.Contains(out.Diagnostics, c.want) || strings.Contains(out.Diagnostics, "another program") {
			t.Errorf("%s: %+v, want %q", c.address, out, c.want)
		}
		visit(t, at)
	}
	// The very address is that socket, as long as a listener has it.
	for _, address := range []string{at, "fd://orders", at} {
		if out := h.reload(t, config(address, "")); out.Error != "" {
			t.Fatalf("%s: %+v", address, out)
		}
		visit(t, at)
	}
	if n := len(h.log.Await(t, 1, "msg", "listening", "listener", "tcp.a")); n != 1 {
		t.Errorf("the socket began to listen %d times", n)
	}
}

// TestInheritedStaysGuarded: a file that a listener reads does not open it to everybody who
// reaches its inherited socket.
func TestInheritedStaysGuarded(t *testing.T) {
	allowed := newSecretFolder(t, map[string]string{"allow": `["127.0.0.1"]`})
	file, bound := passed(t, "0.0.0.0:0")
	_, port, err := net.SplitHostPort(bound)
	if err != nil {
		t.Fatal(err)
	}
	at := net.JoinHostPort("127.0.0.1", port)
	h, told := startHeir(t, "upstream \"direct\" \"x\" {}\nroute \"all\" {\n upstreams = [upstream.direct.x]\n}\n"+
		fmt.Sprintf("listener \"tcp\" \"a\" {\n address = \"fd://orders\"\n target = %q\n allow = jsondecode(file(%q))\n}\n", nettest.Serve(t, nettest.Echo), allowed.path("allow")), []string{"orders"}, file)
	if told.Error != "" {
		t.Fatalf("%+v", told)
	}
	visit(t, at)
	wantResetFrom(t, "127.0.0.2", at, "")
	for i, everybody := range []string{`["0.0.0.0/0"]`, `[]`} {
		allowed.swap(map[string]string{"allow": everybody})
		line := h.log.Await(t, i+1, "msg", "files have changed, and the block that reads them cannot use them: its old values stay in force", "listener", "tcp.a")
		if why := fmt.Sprint(line[len(line)-1]["err"]); !strings.Contains(why, "beyond this machine") {
			t.Errorf("%s: %s", everybody, why)
		}
		visit(t, at)
		wantResetFrom(t, "127.0.0.2", at, "")
		allowed.swap(map[string]string{"allow": `["127.0.0.1"]`})
		h.log.Await(t, i+1, "msg", "the files of a block match the values in force again", "listener", "tcp.a")
	}
	allowed.swap(map[string]string{"allow": `["127.0.0.2"]`})
	h.log.Await(t, 1, "msg", "files have changed, and the block that reads them uses the new values", "listener", "tcp.a")
	wantReset(t, at)
	echoed(t, dialFrom(t, "127.0.0.2", at))
}

// TestInheritedThatCannotBeUsed: what was passed is looked at.
func TestInheritedThatCannotBeUsed(t *testing.T) {
	open, _ := passed(t, "0.0.0.0:0")
	notListening, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	bare := os.NewFile(uintptr(notListening), "bare")
	defer bare.Close()
	unnamed, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	nowhere := os.NewFile(uintptr(unnamed), "nowhere")
	defer nowhere.Close()
	local, _ := passedUnix(t)
	plain, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	for name, c := range map[string]struct {
		file       *os.File
		want, more string
	}{
		"open":    {open, "beyond this machine", ""},
		"all":     {open, "beyond this machine", "allow = [\"0.0.0.0/0\"]"},
		"bare":    {bare, "does not listen", ""},
		"nowhere": {nowhere, "neither a TCP socket nor a unix stream socket at an absolute path", ""},
		"local":   {local, "whose clients have no IP address", "deny = [\"10.0.0.0/8\"]"},
		"plain":   {plain, "is not a socket", ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, told := startHeir(t, "upstream \"direct\" \"x\" {}\nroute \"all\" {\n upstreams = [upstream.direct.x]\n}\n"+
				fmt.Sprintf("listener \"tcp\" \"a\" {\n address = \"fd://%s\"\n target = \"127.0.0.1:1\"\n %s\n}\n", name, c.more), []string{name}, c.file)
			if told.Error == "" || !strings.Contains(told.Diagnostics, c.want) {
				t.Errorf("%+v, want %q", told, c.want)
			}
		})
	}
}
