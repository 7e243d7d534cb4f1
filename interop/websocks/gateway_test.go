//go:build interop

// Package interop runs the websocks plugin and its emulated server against
// independent software: HAProxy and nginx as the gateway, and WebSocket
// implementations of others.
package interop

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/tunneld/tunneld/internal/proctest"
	"github.com/tunneld/tunneld/plugins/websocks/websocksemu"
)

// gateway is a reverse proxy in front of an emulated server.
type gateway struct {
	plain, secure string // host:port without and with TLS
	caFile        string
}

// software starts one kind of gateway. It inherits the two listening sockets,
// so that it can be connected to before it is up.
type software struct {
	name  string
	start func(t *testing.T, g *gateway, cert websocksemu.Certificate, server *websocksemu.Server, sockets []*os.File)
}

var gateways = []software{{"haproxy", startHAProxy}, {"nginx", startNginx}}

func startGateway(t *testing.T, s software, server *websocksemu.Server) *gateway {
	t.Helper()
	cert, err := websocksemu.WriteCertificate(t.TempDir(), "gateway.example")
	if err != nil {
		t.Fatal(err)
	}
	var sockets []*os.File
	var addresses []string
	for range 2 {
		l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		f, err := l.File()
		if err = errors.Join(err, l.Close()); err != nil {
			t.Fatal(err)
		}
		addresses, sockets = append(addresses, l.Addr().String()), append(sockets, f)
	}
	g := &gateway{plain: addresses[0], secure: addresses[1], caFile: cert.CAFile}
	s.start(t, g, cert, server, sockets)
	return g
}

// run starts a gateway's process, which ends with the test.
func run(t *testing.T, sockets []*os.File, env []string, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.ExtraFiles = sockets
	proctest.Start(t, cmd)
	for _, f := range sockets {
		// Passing a descriptor on makes the socket blocking, for the child too.
		_ = syscall.SetNonblock(int(f.Fd()), true)
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

func write(t *testing.T, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// startHAProxy starts HAProxy with a buffer that holds several TLS records: with
// the default of one, its version 2.6 may keep the end of a burst that it
// re-encrypts (the plugin's README has the note).
func startHAProxy(t *testing.T, _ *gateway, cert websocksemu.Certificate, server *websocksemu.Server, sockets []*os.File) {
	program := proctest.Tool(t, "haproxy")
	dir := t.TempDir()
	both := write(t, dir, "both.pem", read(t, cert.CertFile)+read(t, cert.KeyFile))
	back := ""
	if ca := server.CAFile(); ca != "" {
		back = " ssl verify required ca-file " + ca + " verifyhost localhost sni str(localhost)"
	}
	config := write(t, dir, "haproxy.cfg", fmt.Sprintf(`
global
  maxconn 200
  tune.bufsize 65536
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
  timeout tunnel 1m
  retries 0
frontend gateway
  bind fd@3
  bind fd@4 ssl crt %s
  default_backend websocks
backend websocks
  server websocks %s%s
`, both, server.Address(), back))
	run(t, sockets, nil, program, "-db", "-f", config)
}

// startHAProxyTCP starts HAProxy as a gateway that leaves TLS alone.
func startHAProxyTCP(t *testing.T, _ *gateway, _ websocksemu.Certificate, server *websocksemu.Server, sockets []*os.File) {
	program := proctest.Tool(t, "haproxy")
	config := write(t, t.TempDir(), "haproxy.cfg", fmt.Sprintf(`
global
  maxconn 200
defaults
  mode tcp
  timeout connect 5s
  timeout client 30s
  timeout server 30s
listen gateway
  bind fd@3
  bind fd@4
  server websocks %s
`, server.Address()))
	run(t, sockets, nil, program, "-db", "-f", config)
}

func startNginx(t *testing.T, g *gateway, cert websocksemu.Certificate, server *websocksemu.Server, sockets []*os.File) {
	program := proctest.Tool(t, "nginx")
	dir := t.TempDir()
	back := "proxy_pass http://" + server.Address() + ";"
	if ca := server.CAFile(); ca != "" {
		back = "proxy_pass https://" + server.Address() + ";" +
			" proxy_ssl_verify on; proxy_ssl_name localhost; proxy_ssl_server_name on; proxy_ssl_trusted_certificate " + ca + ";"
	}
	var temp string
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		temp += fmt.Sprintf("  %s_temp_path %s;\n", kind, filepath.Join(dir, kind))
	}
	config := write(t, dir, "nginx.conf", fmt.Sprintf(`
daemon off;
user root;
worker_processes 1;
pid %s;
error_log stderr info;
events { worker_connections 256; }
http {
  access_log off;
%s
  server {
    listen %s;
    listen %s ssl;
    ssl_certificate %s;
    ssl_certificate_key %s;
    location / {
      %s
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection "Upgrade";
    }
  }
}
`, filepath.Join(dir, "nginx.pid"), temp, g.plain, g.secure, cert.CertFile, cert.KeyFile, back))
	// NGINX names the sockets that nginx inherits, as in the upgrade of its
	// own binary. Without a master process it crashes on them. Run by root, its
	// worker would become nobody and not reach the folder.
	run(t, sockets, []string{"NGINX=3;4;"}, program, "-p", dir, "-e", "stderr", "-c", config)
}
