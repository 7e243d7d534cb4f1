package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestEmulateAzrelay runs the emulated service as its own command and a daemon
// against it, with a key and over TLS.
func TestEmulateAzrelay(t *testing.T) {
	echo, err := startEcho()
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	dir := t.TempDir()
	key, ca := filepath.Join(dir, "key"), filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(key, []byte("a-key=\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	out, w := io.Pipe()
	done := make(chan int, 1)
	go func() {
		done <- run(ctx, []string{"emulate", "azrelay", "--key-file", key, "--tls-ca-file", ca, "--forward", echo.Addr()}, strings.NewReader(""), w, io.Discard)
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, fmt.Sprintf(`
upstream "azrelay" "bridge" {
  namespace         = "127.0.0.1"
  hybrid_connection = "demo"
  key_name          = "RootManageSharedAccessKey"
  key               = trimspace(file(%q))
  %s
  tls {
    ca_file = %q
  }
}
`, key, line, ca)+listener("db", "127.0.0.1:0", "demo", "")+route("all", "", "upstream.azrelay.bridge"))
	c := d.dial(t, "tcp.db")
	pingPong(t, c, "through the emulated service")
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	d.log.await(t, 1, "msg", "connection", "path", "relay")
	cancel()
	if status := <-done; status != exitOK {
		t.Errorf("exit status %d", status)
	}
}
