//go:build interop

package daemon

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/proctest"
)

const (
	transparent = "../../examples/transparent/"
	// otherUser is whom programs run as that are not tunneld.
	otherUser = 65534
)

// namespace is a host of the test's own.
type namespace struct {
	t   *testing.T
	pid int // of a process in it; 0: the test's
}

func newNamespace(t *testing.T) namespace {
	t.Helper()
	cmd := exec.Command(proctest.Tool(t, "sleep"), "infinity")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	proctest.Start(t, cmd)
	n := namespace{t, cmd.Process.Pid}
	n.run("ip link set lo up")
	return n
}

// command is one that runs there.
func (n namespace) command(line string) *exec.Cmd {
	n.t.Helper()
	args := strings.Fields(line)
	args[0] = proctest.Tool(n.t, args[0])
	if n.pid != 0 {
		args = append([]string{proctest.Tool(n.t, "nsenter"), fmt.Sprintf("--net=/proc/%d/ns/net", n.pid)}, args...)
	}
	return exec.Command(args[0], args[1:]...)
}

func (n namespace) run(lines ...string) {
	n.t.Helper()
	for _, line := range lines {
		if out, err := n.command(line).CombinedOutput(); err != nil {
			n.t.Fatalf("%s: %v\n%s", line, err, out)
		}
	}
}

// TestTransparentExample: the example carries the connections of this machine's programs, and
// of those whose router it is, through the bastion, and tunneld's own are not redirected.
func TestTransparentExample(t *testing.T) {
	if !nettest.Inside(t) {
		return
	}
	if err := exec.CommandContext(t.Context(), proctest.Tool(t, "setpriv"), fmt.Sprint("--reuid=", otherUser), "--clear-groups", "true").Run(); err != nil {
		t.Skip("users that are not tunneld's need root: ", err)
	}
	own, far, lan := namespace{t: t}, newNamespace(t), newNamespace(t)
	for name, n := range map[string]namespace{"up0": far, "lan0": lan} {
		own.run(fmt.Sprintf("ip link add %s type veth peer name eth0 netns %d", name, n.pid), "ip link set "+name+" up")
		n.run("ip link set eth0 up")
	}
	own.run("ip addr add 203.0.113.1/24 dev up0", "ip addr add fd00:113::1/64 dev up0 nodad", "ip addr add 192.168.7.1/24 dev lan0", "ip addr add fd00:7::1/64 dev lan0 nodad",
		"ip route add default via 203.0.113.2", "ip route add default via fd00:113::2")
	far.run("ip addr add 203.0.113.2/24 dev eth0", "ip addr add fd00:113::2/64 dev eth0 nodad", "ip addr add 10.20.0.5/32 dev lo", "ip addr add fd00:20::5/128 dev lo nodad")
	lan.run("ip addr add 192.168.7.2/24 dev eth0", "ip addr add fd00:7::2/64 dev eth0 nodad", "ip route add default via 192.168.7.1", "ip route add default via fd00:7::1")

	dir := t.TempDir()
	example := func(name string, changes ...string) string {
		text, err := os.ReadFile(transparent + name)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(changes); i += 2 {
			if strings.Count(string(text), changes[i]) != 1 {
				t.Fatalf("%s has no %q, or several", name, changes[i])
			}
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(strings.NewReplacer(changes...).Replace(string(text))), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	server := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(server, []byte("defaults\n mode http\n timeout client 60s\n timeout server 60s\n timeout connect 60s\nfrontend f\n bind 10.20.0.5:80,[fd00:20::5]:80\n http-request return status 200 content-type text/plain lf-string \"from %[src]\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	proctest.Start(t, far.command("haproxy -db -f "+server))
	proctest.Start(t, far.command("microsocks -i 203.0.113.2 -p 1080")).Listens(t, "203.0.113.2:1080")
	d := &door{daemon: proctest.Start(t, exec.Command(proctest.Tunneld(t), "run", "-c", example("tunneld.hcl", "bastion.corp:1080", "203.0.113.2:1080")))}
	d.logs(t, "listening listener=redirect.own")
	d.logs(t, "listening listener=redirect.lan")

	ask := func(from namespace, url string) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		cmd := from.command("curl -sS -g --noproxy * --max-time 20 " + url)
		cmd = exec.CommandContext(ctx, proctest.Tool(t, "setpriv"), append([]string{fmt.Sprint("--reuid=", otherUser), "--clear-groups"}, cmd.Args...)...)
		if from.pid != 0 { // which only root enters, and where users do not matter
			cmd = exec.CommandContext(ctx, cmd.Args[3], cmd.Args[4:]...)
		}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	const four, six = "http://10.20.0.5/", "http://[fd00:20::5]/"
	eventually(t, "the server", func() error {
		out, err := ask(own, four)
		if err != nil || !strings.Contains(out, "from 203.0.113.1") {
			return fmt.Errorf("%s, %v", out, err)
		}
		return nil
	})
	own.run("nft -f " + example("redirect.nft", "user = tunneld", "user = root"))
	for name, tt := range map[string]struct {
		from          namespace
		url, listener string
	}{
		"own programs, IPv4":   {own, four, "redirect.own"},
		"own programs, IPv6":   {own, six, "redirect.own"},
		"routed clients, IPv4": {lan, four, "redirect.lan"},
		"routed clients, IPv6": {lan, six, "redirect.lan"},
	} {
		out, err := ask(tt.from, tt.url)
		// From the bastion the server is on its own machine.
		if want := "from " + strings.Trim(strings.TrimPrefix(tt.url, "http://"), "[]/"); err != nil || out != want {
			t.Errorf("%s: %q, %v; want %q", name, out, err, want)
		}
		d.logs(t, "listener="+tt.listener+" route=corp")
	}
	// tunneld's user is not redirected.
	if out, err := own.command("curl -sS --noproxy * --max-time 20 " + four).CombinedOutput(); err != nil || string(out) != "from 203.0.113.1" {
		t.Errorf("tunneld's user: %s, %v", out, err)
	}
	for from, url := range map[namespace]string{own: "http://127.0.0.1:12345/", lan: "http://192.168.7.1:12346/"} {
		if out, err := ask(from, url); err == nil {
			t.Errorf("%s is answered: %s", url, out)
		}
		d.logs(t, "the client was not redirected: it has connected to "+strings.Trim(strings.TrimPrefix(url, "http://"), "/"))
	}
}
