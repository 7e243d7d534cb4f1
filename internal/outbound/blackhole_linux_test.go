package outbound

import (
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/internal/nettest"
)

// blackHole makes connects to an address hang: the kernel drops what a listener
// whose queue is full is sent.
func blackHole(t *testing.T, host, port string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: netip.MustParseAddr(host).As4(), Port: n}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	full, err := net.Dial("tcp", net.JoinHostPort(host, port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = full.Close() })
}

// TestSearchListIsNotWalkedForIPv6: the first of the search list's domains has the
// host, with IPv4 alone; the second has another host of that name with IPv6.
func TestSearchListIsNotWalkedForIPv6(t *testing.T) {
	withResolvConf(t, "nameserver 127.0.0.1\nsearch a.test b.test\n", func() {
		port := served(t, "127.0.0.1", "::1")
		server := nettest.ServeNames(t, zone{"far.a.test.": "127.0.0.1", "far.b.test.": "::1"}, func(q dnsmessage.Question) bool {
			return q.Name.String() != "far.a.test." || q.Type != dnsmessage.TypeAAAA
		})
		if host := connected(t, &Dialer{Resolver: nettest.ResolverAt(server)}, "far:"+port, lostTime); host != "127.0.0.1" {
			t.Errorf("connected to %s", host)
		}
	})
}

// TestSearchListIsNotWalkedForIPv4: a name with enough dots is that of a host with IPv6
// alone, whose address is late; the search list has another host of that name with IPv4.
func TestSearchListIsNotWalkedForIPv4(t *testing.T) {
	withResolvConf(t, "nameserver 127.0.0.1\nsearch b.test\noptions ndots:2\n", func() {
		port := served(t, "127.0.0.1")
		var mu sync.Mutex
		var asked []string
		server := nettest.ServeNames(t, zone{"far.a.test.": "::1", "far.a.test.b.test.": "127.0.0.1"}, func(q dnsmessage.Question) bool {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, q.Name.String())
			return q.Type != dnsmessage.TypeAAAA
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		conn, err := (&Dialer{Resolver: nettest.ResolverAt(server)}).Dial(ctx, "far.a.test:"+port, nil)
		if err == nil {
			t.Errorf("connected to %s", conn.RemoteAddr())
			_ = conn.Close()
		}
		mu.Lock()
		defer mu.Unlock()
		if slices.Contains(asked, "far.a.test.b.test.") {
			t.Errorf("asked for %q", asked)
		}
	})
}

// withResolvConf calls f where /etc/resolv.conf holds conf: in another process, which
// runs this test alone.
func withResolvConf(t *testing.T, conf string, f func()) {
	t.Helper()
	const child = "OUTBOUND_TEST_RESOLV_CONF"
	if file := os.Getenv(child); file != "" {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(file, resolvConf, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		f()
		return
	}
	file := t.TempDir() + "/resolv.conf"
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.timeout=1m")
	cmd.Env = append(os.Environ(), child+"="+file)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if cmd.Process == nil {
		t.Skipf("a view of the file system of its own needs root: %v", err)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
