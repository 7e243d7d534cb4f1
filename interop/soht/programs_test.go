//go:build interop

// Package interop runs the soht plugin and its emulated server against
// independent software: nginx as the gateway, Squid and tinyproxy as the HTTP
// proxy, and the form parsers of others.
package interop

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/tunneld/tunneld/internal/proctest"
)

// directory is a temporary one that a server which gives up root can read.
func directory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "soht")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func writeFile(t *testing.T, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// freePort returns a port of 127.0.0.1 that nobody listens on now.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// run starts a server, which ends with the test, and waits until it listens on
// the port.
func run(t *testing.T, port int, name string, args ...string) string {
	t.Helper()
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	proctest.Start(t, exec.Command(name, args...)).Listens(t, addr)
	return addr
}

// startNginx puts nginx in front of the server as a reverse proxy and returns
// the URL of the service there. buffering is "on" or "off", version the one of
// HTTP between nginx and the server.
func startNginx(t *testing.T, server, path, buffering, version string) string {
	t.Helper()
	program := proctest.Tool(t, "nginx")
	dir, port := directory(t), freePort(t)
	user := ""
	if os.Getuid() == 0 {
		user = "user root;"
	}
	config := writeFile(t, dir, "nginx.conf", fmt.Sprintf(`
%s
worker_processes 1;
daemon off;
pid %[2]s/pid;
error_log stderr warn;
events { worker_connections 256; }
http {
  access_log off;
  client_body_temp_path %[2]s/body;
  proxy_temp_path %[2]s/proxy;
  fastcgi_temp_path %[2]s/fastcgi;
  uwsgi_temp_path %[2]s/uwsgi;
  scgi_temp_path %[2]s/scgi;
  upstream soht { server %[3]s; keepalive 16; }
  server {
    listen 127.0.0.1:%[4]d;
    client_max_body_size 1m;
    location / {
      proxy_pass http://soht;
      proxy_http_version %[6]s;
      proxy_set_header Connection "";
      proxy_buffering %[5]s;
      proxy_read_timeout 300s;
    }
  }
}
`, user, dir, server, port, buffering, version))
	return "http://" + run(t, port, program, "-e", "stderr", "-p", dir, "-c", config) + path
}

// startSquid starts Squid as an HTTP proxy that wants the Basic credentials
// "alice" and "p@ss".
func startSquid(t *testing.T) string {
	t.Helper()
	program := proctest.Tool(t, "squid")
	dir, port := directory(t), freePort(t)
	// Squid's helper protocol: a line "user password", in parts URL-encoded, is
	// answered with OK or ERR.
	helper := writeFile(t, dir, "helper.sh", `while read -r line; do
  if [ "$line" = "alice p@ss" ] || [ "$line" = "alice p%40ss" ]; then echo OK; else echo ERR; fi
done
`)
	config := writeFile(t, dir, "squid.conf", fmt.Sprintf(`
http_port 127.0.0.1:%d
pid_filename none
access_log none
cache_log stdio:/dev/null
cache_store_log none
coredump_dir %s
cache deny all
pinger_enable off
shutdown_lifetime 0 seconds
netdb_filename none
auth_param basic program /bin/sh %s
auth_param basic children 1
auth_param basic realm interop
acl known proxy_auth REQUIRED
http_access allow known
http_access deny all
`, port, dir, helper))
	return run(t, port, program, "-N", "-f", config)
}

// startTinyproxy starts tinyproxy as an HTTP proxy that wants the Basic
// credentials "alice" and "pass"; its configuration takes no @. Why it has Bind:
// examples/plugins/httpconnect/tinyproxy.conf.
func startTinyproxy(t *testing.T) string {
	t.Helper()
	program := proctest.Tool(t, "tinyproxy")
	dir, port := directory(t), freePort(t)
	config := writeFile(t, dir, "tinyproxy.conf", fmt.Sprintf(`
Listen 127.0.0.1
Bind 127.0.0.2
Port %d
Timeout 300
LogLevel Error
MaxClients 100
BasicAuth alice pass
`, port))
	return run(t, port, program, "-d", "-c", config)
}
