//go:build interop

package daemon

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/proctest"
	"github.com/tunneld/tunneld/plugins/websocks/websocksemu"
)

// TestSNI: curl and openssl s_client reach HAProxy and openssl s_server by their names
// through one port, each with its own certificate; who asks for no such server is told so.
func TestSNI(t *testing.T) {
	curl, openssl := proctest.Tool(t, "curl"), proctest.Tool(t, "openssl")
	a := nettest.NewAuthority(t, "authority")
	ca := a.File(t)
	names := map[string]string{"haproxy": "a.example", "openssl": "b.example"}
	at := map[string]string{}
	for server, name := range names {
		at[server] = nettest.FreeAddress(t)
		cert, key := a.Files(t, &x509.Certificate{DNSNames: []string{name}})
		cmd := exec.Command(openssl, "s_server", "-accept", at[server], "-cert", cert, "-key", key, "-quiet", "-www")
		if server == "haproxy" {
			both, err := os.ReadFile(cert)
			if err != nil {
				t.Fatal(err)
			}
			private, err := os.ReadFile(key)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "both.pem"), append(both, private...), 0o600); err != nil {
				t.Fatal(err)
			}
			config := filepath.Join(dir, "haproxy.cfg")
			if err := os.WriteFile(config, fmt.Appendf(nil, "defaults\n mode http\n timeout client 60s\n timeout server 60s\n timeout connect 60s\nfrontend a\n bind %s ssl crt %s\n http-request return status 200 content-type text/plain string haproxy\n",
				at[server], filepath.Join(dir, "both.pem")), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd = exec.Command(proctest.Tool(t, "haproxy"), "-db", "-f", config)
		}
		proctest.Start(t, cmd).Listens(t, at[server])
	}
	// The far end knows the names.
	far, err := websocksemu.Start(websocksemu.Options{TLS: true, Targets: map[string]string{"a.example:443": at["haproxy"], "b.example:443": at["openssl"]}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	d := &door{address: nettest.FreeAddress(t), ca: ca}
	file := filepath.Join(t.TempDir(), "tunneld.hcl")
	config := fmt.Sprintf("upstream \"websocks\" \"far\" {\n url = %q\n tls {\n ca_file = %q\n }\n}\nroute \"servers\" {\n match {\n hosts = [\"a.example\", \"b.example\"]\n }\n upstreams = [upstream.websocks.far]\n}\nlistener \"sni\" \"l\" {\n address = %q\n port = 443\n}\n", far.URL(), far.CAFile(), d.address)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	d.daemon = proctest.Start(t, exec.Command(proctest.Tunneld(t), "run", "-c", file))
	d.logs(t, "msg=listening")

	ask := func(url string, more ...string) *exec.Cmd {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		t.Cleanup(cancel)
		return exec.CommandContext(ctx, curl, append([]string{"-sS", "--max-time", "20", "--cacert", ca, "--connect-to", "::" + d.address, url}, more...)...)
	}
	answers := map[string]string{"haproxy": "haproxy", "openssl": "s_server"}
	for server, name := range names {
		for _, version := range []string{"1.2", "1.3"} {
			out, err := ask("https://"+name+"/", "--tls-max", version).CombinedOutput()
			if err != nil || !strings.Contains(string(out), answers[server]) {
				t.Errorf("curl, %s, TLS %s: %v\n%s", name, version, err, out)
			}
			out = sClientOf(t, openssl, d, "-servername", name, "-verify_hostname", name, "-verify_return_error", "-tls"+strings.ReplaceAll(version, ".", "_"))
			if !strings.Contains(string(out), "Verify return code: 0 (ok)") {
				t.Errorf("s_client, %s, TLS %s:\n%s", name, version, out)
			}
		}
		d.logs(t, "target="+name+":443")
	}
	_, port, err := net.SplitHostPort(d.address)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		cmd       *exec.Cmd
		told, log string
	}{
		"another name": {ask("https://c.example/"), "access denied", "no route matches c.example:443"},
		"an address":   {exec.Command(curl, "-sS", "--max-time", "20", "https://127.0.0.1:"+port), "missing extension", "the client names no server (SNI)"},
		"no TLS":       {exec.Command(curl, "-sS", "--max-time", "20", "http://"+d.address), "write https:// in place of http://", "the client speaks HTTP without TLS"},
	} {
		out, _ := tt.cmd.CombinedOutput() // its status says no more
		if !strings.Contains(string(out), tt.told) {
			t.Errorf("%s: curl says %s", name, out)
		}
		d.logs(t, tt.log)
	}
	if out := sClientOf(t, openssl, d, "-noservername"); !strings.Contains(string(out), "alert missing extension") {
		t.Errorf("s_client without a name:\n%s", out)
	}
}

// sClientOf is what openssl s_client prints that asks for a page.
func sClientOf(t *testing.T, openssl string, d *door, args ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, openssl, append([]string{"s_client", "-connect", d.address, "-CAfile", d.ca}, args...)...)
	cmd.Stdin = strings.NewReader("GET / HTTP/1.0\r\n\r\n")
	out, _ := cmd.CombinedOutput() // its status says whether the handshake was whole
	return out
}
