//go:build interop

package interop

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/proctest"
)

// TestVia is what the example's comment says: the web through an HTTP proxy that wants a
// password, the DMZ through a SOCKS5 proxy from an address of its own, and Redis, which
// wants TLS, for a client that speaks none.
func TestVia(t *testing.T) {
	curl, cli := proctest.Tool(t, "curl"), proctest.Tool(t, "redis-cli")
	dir := t.TempDir()
	cert, key := selfSigned(t, dir)
	redis, web, dmz := nettest.FreeAddress(t), website(t, "web"), website(t, "dmz")
	proctest.Start(t, exec.Command(proctest.Tool(t, "redis-server"), "--port", "0", "--tls-port", port(redis), "--bind", "127.0.0.1", "--dir", dir, "--save", "",
		"--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", cert, "--tls-auth-clients", "no")).Listens(t, redis)

	proxy, socks := nettest.FreeAddress(t), nettest.FreeAddress(t)
	settings := fmt.Sprintf("Listen 127.0.0.1\nPort %s\nBasicAuth tunneld s3cret\nConnectPort %s\nConnectPort %s\n", port(proxy), port(web), port(redis))
	write(t, filepath.Join(dir, "tinyproxy.conf"), settings)
	write(t, filepath.Join(dir, "password"), "s3cret\n")
	proctest.Start(t, exec.Command(proctest.Tool(t, "tinyproxy"), "-d", "-c", filepath.Join(dir, "tinyproxy.conf"))).Listens(t, proxy)
	bastion := proctest.Start(t, exec.Command(proctest.Tool(t, "microsocks"), "-i", "127.0.0.1", "-p", port(socks)))
	bastion.Listens(t, socks)

	d := startExample(t, "via", nil,
		"proxy.corp:3128", proxy, "/run/secrets/proxy", filepath.Join(dir, "password"), "/run/secrets/redis-ca.pem", cert,
		"bastion.corp:1080", socks, "192.0.2.10", "127.0.0.7",
		"redis.example.com:443", "localhost:"+port(redis), "[443]", "["+port(web)+"]", "*.dmz.corp", "localhost",
		`listener "socks5" "apps" {`, "listener \"socks5\" \"apps\" {\n"+nettest.OpenTargets)
	get := func(url string) (string, error) {
		return output(t, exec.Command(curl, "--silent", "--show-error", "--max-time", "30", "--socks5-hostname", d.addresses["socks5.apps"], url))
	}
	for host, want := range map[string]string{"127.0.0.1:" + port(web): "web/x\n", "localhost:" + port(dmz): "dmz/x\n"} {
		if got, err := get("http://" + host + "/x"); err != nil || got != want {
			t.Errorf("%s: %q, %v", host, got, err)
		}
	}
	if out, err := get("http://127.0.0.1:" + port(dmz) + "/x"); err == nil {
		t.Errorf("what no route takes: %s", out)
	}
	for _, step := range [][2]string{{"set color blue", "OK"}, {"get color", "blue"}} {
		args := append([]string{"-p", port(d.addresses["tcp.redis"])}, strings.Fields(step[0])...)
		if out := mustOutput(t, exec.Command(cli, args...)); strings.TrimSpace(out) != step[1] {
			t.Errorf("%s: %q", step[0], out)
		}
	}
	d.await(1, "msg", "connection", "upstream", "direct.web")
	d.await(1, "msg", "connection", "upstream", "direct.dmz")
	if log := bastion.Output(); !strings.Contains(log, "127.0.0.7: connected to localhost:"+port(dmz)) {
		t.Error(log)
	}
	d.await(2, "msg", "connection", "upstream", "direct.redis")

	write(t, filepath.Join(dir, "password"), "another\n")
	d.await(2, "msg", "files have changed, and the block that reads them uses the new values")
	_, _ = output(t, exec.Command(cli, "-p", port(d.addresses["tcp.redis"]), "get", "color"))
	d.await(1, "msg", "connection failed", "upstream", "direct.redis", "reason", "unauthenticated", "hint", "check user and password in via")
}

func port(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// selfSigned makes a certificate for localhost.
func selfSigned(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	mustOutput(t, exec.Command(proctest.Tool(t, "openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
		"-keyout", key, "-out", cert, "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"))
	return cert, key
}
