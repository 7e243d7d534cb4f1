package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// startConnectProxy is an HTTP proxy that lets alice in.
func startConnectProxy(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return // closed
			}
			go connectProxy(c.(*net.TCPConn))
		}
	}()
	return ln.Addr().String()
}

func connectProxy(c *net.TCPConn) {
	defer c.Close()
	r := bufio.NewReader(c)
	ask, err := http.ReadRequest(r)
	if err != nil {
		return
	}
	if ask.Header.Get("Proxy-Authorization") != "Basic YWxpY2U6czNjcmV0" { // alice:s3cret
		_, _ = io.WriteString(c, "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
		return
	}
	target, err := net.Dial("tcp", ask.Host)
	if err != nil {
		_, _ = io.WriteString(c, "HTTP/1.1 502 Bad Gateway\r\n\r\n")
		return
	}
	defer target.Close()
	_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
	go func() {
		_, _ = io.Copy(target, r)
		_ = target.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(c, target)
}

// TestExamplePluginElsewhere takes the example out of the repository, as an
// author would have it, builds it with nothing of the repository but the module,
// pins it and runs it.
func TestExamplePluginElsewhere(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "elsewhere")
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(root, "examples", "plugins", "httpconnect"))); err != nil {
		t.Fatal(err)
	}
	module, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "tunneld-plugin-httpconnect")
	for _, args := range [][]string{
		{"mod", "edit", "-replace", "github.com/tunneld/tunneld=" + module},
		{"build", "-o", program, "."},
		{"test", "."},
	} {
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go %v: %v\n%s", args, err, out)
		}
	}

	far := startBackend(t)
	config := func(password string) string {
		return fmt.Sprintf("plugin \"httpconnect\" {\n command = [%q]\n sha256 = %q\n}\n", program, fileSHA256(t, program)) +
			fmt.Sprintf("upstream \"httpconnect\" \"corp\" {\n proxy = %q\n username = \"alice\"\n password = %q\n}\n", startConnectProxy(t), password) +
			listener("db", "127.0.0.1:0", far.addr, "") + route("all", "", "upstream.httpconnect.corp")
	}
	d := startDaemon(t, config("s3cret"))
	c := d.dial(t, "tcp.db")
	send(t, c, "there")
	wantNext(t, far.next(t), "there")
	breakConn(t, c)
	if line := d.log.Await(t, 1, "msg", "connection")[0]; line["path"] != "direct" {
		t.Errorf("line %v", line)
	}

	d.reload(t, config("wrong-canary"))
	d.dialReset(t, "tcp.db")
	d.log.Await(t, 1, "msg", "connection failed", "stage", "request", "reason", "unauthenticated", "hint", "check username and password")
}

// wantNext reads text.
func wantNext(t *testing.T, c net.Conn, text string) {
	t.Helper()
	b := make([]byte, len(text))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != text {
		t.Errorf("read %q, %v", b, err)
	}
}
