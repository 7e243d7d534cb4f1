//go:build interop

package interop

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/proctest"
)

// sshSite is an OpenSSH server that takes one key, of whoever runs the test.
type sshSite struct {
	address string
	user    string
	// options are those of a client that knows the server and has the key.
	options []string
}

func startSSH(t *testing.T) sshSite {
	t.Helper()
	sshd, keygen := proctest.Tool(t, "sshd"), proctest.Tool(t, "ssh-keygen")
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	// Debian's sshd insists on the folder when it is root, which would make it.
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil && me.Uid == "0" {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"host", "client"} {
		mustOutput(t, exec.Command(keygen, "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", file(name)))
	}
	hostKey, err := os.ReadFile(file("host.pub"))
	if err != nil {
		t.Fatal(err)
	}
	address := nettest.FreeAddress(t)
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`ListenAddress %s
Port %s
HostKey %s
AuthorizedKeysFile %s
PidFile none
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
Subsystem sftp internal-sftp
`, host, port, file("host"), file("client.pub"))
	files := map[string]string{
		"sshd_config": config,
		"known_hosts": "* " + string(hostKey),
	}
	for name, text := range files {
		if err := os.WriteFile(file(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	proctest.Start(t, exec.Command(sshd, "-D", "-e", "-f", file("sshd_config"))).Listens(t, address)
	return sshSite{
		address: address,
		user:    me.Username,
		options: []string{
			"-o", "IdentityFile=" + file("client"), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
			"-o", "UserKnownHostsFile=" + file("known_hosts"), "-o", "StrictHostKeyChecking=yes",
			"-o", "ConnectTimeout=30", "-o", "LogLevel=ERROR",
		},
	}
}

func TestSSH(t *testing.T) {
	ssh, sftp, nc := proctest.Tool(t, "ssh"), proctest.Tool(t, "sftp"), openbsdNetcat(t)
	site := startSSH(t)
	emu := connectivity(t, map[string]string{"build.corp:22": site.address, "files.corp:22": site.address})
	d := startExample(t, "ssh", emu)

	// The example's own file, with the port that the listener has here.
	text, err := os.ReadFile(filepath.Join(examples, "ssh", "ssh_config"))
	if err != nil {
		t.Fatal(err)
	}
	replaced := strings.NewReplacer("127.0.0.1:1080", d.addresses["socks5.ssh"], "ProxyCommand nc ", "ProxyCommand "+nc+" ").Replace(string(text))
	config := filepath.Join(t.TempDir(), "ssh_config")
	if err := os.WriteFile(config, []byte(replaced), 0o600); err != nil {
		t.Fatal(err)
	}

	t.Run("a command", func(t *testing.T) {
		args := slices.Concat([]string{"-F", config, "-l", site.user}, site.options, []string{"build.corp", "echo over; cat; exit 7"})
		cmd := exec.Command(ssh, args...)
		cmd.Stdin = strings.NewReader("the tunnel\n")
		out, err := output(t, cmd)
		var exit *exec.ExitError
		if out != "over\nthe tunnel\n" || !errors.As(err, &exit) || exit.ExitCode() != 7 {
			t.Errorf("%v: %q", err, out)
		}
	})
	t.Run("a host that the route does not take", func(t *testing.T) {
		args := slices.Concat([]string{"-F", config, "-l", site.user}, site.options, []string{"-p", "2200", "build.corp", "true"})
		if out, err := output(t, exec.Command(ssh, args...)); err == nil {
			t.Errorf("%q", out)
		}
		d.await(1, "msg", "connection failed", "target", "build.corp:2200", "reason", "denied")
	})
	t.Run("files both ways", func(t *testing.T) {
		dir := t.TempDir()
		want := make([]byte, 8<<20)
		if _, err := rand.Read(want); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "up"), want, 0o600); err != nil {
			t.Fatal(err)
		}
		host, port, err := net.SplitHostPort(d.addresses["tcp.files"])
		if err != nil {
			t.Fatal(err)
		}
		args := slices.Concat([]string{"-F", "none", "-b", "-", "-P", port}, site.options, []string{site.user + "@" + host})
		cmd := exec.Command(sftp, args...)
		cmd.Stdin = strings.NewReader(fmt.Sprintf("put %[1]s/up %[1]s/there\nget %[1]s/there %[1]s/back\n", dir))
		mustOutput(t, cmd)
		got, err := os.ReadFile(filepath.Join(dir, "back"))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes came back, %v", len(got), err)
		}
	})
	if got, want := asked(emu), []string{"build.corp:22", "files.corp:22"}; !slices.Equal(got, want) {
		t.Errorf("the proxy was asked for %q, want %q", got, want)
	}
}

// openbsdNetcat returns the nc that the example's ssh_config means; other
// programs of that name have other options.
func openbsdNetcat(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"/bin/nc.openbsd", "/usr/bin/nc.openbsd"} {
		if _, err := os.Stat(name); err == nil {
			return name
		}
	}
	proctest.Missing(t, "netcat-openbsd")
	return ""
}
