package bare

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/internal/sockopt"
)

// TestOptions: an accepted socket has the listener's options, a dialed one those
// of its dial, and net changes neither.
func TestOptions(t *testing.T) {
	l, addr := listen(t)
	if err := l.SetOptions(sockopt.Options{Nodelay: false, KeepaliveIdle: 31 * time.Second, KeepaliveInterval: 7 * time.Second, KeepaliveCount: 3, UserTimeout: 9 * time.Second}); err != nil {
		t.Fatal(err)
	}
	dialed, err := Dialer{Options: sockopt.Options{Nodelay: true, KeepaliveIdle: 41 * time.Second}}.Dial(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	accepted, _, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		socket *Socket
		want   map[int]int // of IPPROTO_TCP
	}{
		{"accepted", accepted, map[int]int{unix.TCP_NODELAY: 0, unix.TCP_KEEPIDLE: 31, unix.TCP_KEEPINTVL: 7, unix.TCP_KEEPCNT: 3, unix.TCP_USER_TIMEOUT: 9000}},
		{"dialed", dialed, map[int]int{unix.TCP_NODELAY: 1, unix.TCP_KEEPIDLE: 41, unix.TCP_USER_TIMEOUT: 0}},
	} {
		raw, err := conn(t, c.socket).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := raw.Control(func(fd uintptr) {
			for name, want := range c.want {
				if got, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, name); err != nil || got != want {
					t.Errorf("%s: option %d is %d, want %d, %v", c.name, name, got, want, err)
				}
			}
			if on, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE); err != nil || on != 1 {
				t.Errorf("%s: keep-alive %d, %v", c.name, on, err)
			}
			if inline, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_OOBINLINE); err != nil || inline != 1 {
				t.Errorf("%s: urgent data out of its place: %d, %v", c.name, inline, err)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAdopt: a socket that lingers, as somebody left it, ends cleanly, and a unix
// one is taken over as well.
func TestAdopt(t *testing.T) {
	l, addr := listen(t)
	dialed, err := Dialer{}.Dial(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	accepted, _, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	fd := dialed.Take()
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		t.Fatal(err)
	}
	adopted, err := Adopt(fd)
	if err != nil {
		t.Fatal(err)
	}
	adopted.Close()
	if _, err := conn(t, accepted).Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("after a close: %v", err)
	}

	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	far := os.NewFile(uintptr(fds[1]), "far")
	defer far.Close()
	near, err := Adopt(fds[0])
	if err != nil {
		t.Fatal(err)
	}
	c, err := near.Conn()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(far, b); err != nil || string(b) != "hello" {
		t.Errorf("read %q, %v", b, err)
	}
}

// TestOptionsOfTheSystem: zero is the system's default, also where the listener
// had another before.
func TestOptionsOfTheSystem(t *testing.T) {
	l, addr := listen(t)
	names := []int{unix.TCP_NODELAY, unix.TCP_KEEPINTVL, unix.TCP_KEEPCNT, unix.TCP_USER_TIMEOUT}
	accepted := func(o sockopt.Options) (values [4]int) {
		t.Helper()
		if err := l.SetOptions(o); err != nil {
			t.Fatal(err)
		}
		dialed, err := Dialer{}.Dial(t.Context(), addr)
		if err != nil {
			t.Fatal(err)
		}
		defer dialed.Close()
		s, _, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for i, name := range names {
			if values[i], err = unix.GetsockoptInt(s.fd, unix.IPPROTO_TCP, name); err != nil {
				t.Fatal(err)
			}
		}
		return values
	}
	zero := sockopt.Options{KeepaliveIdle: 30 * time.Second}
	system := accepted(zero)
	other := sockopt.Options{Nodelay: true, KeepaliveIdle: 30 * time.Second, KeepaliveInterval: 7 * time.Second, KeepaliveCount: 3, UserTimeout: 9 * time.Second}
	if got := accepted(other); got != [4]int{1, 7, 3, 9000} {
		t.Errorf("set: %v", got)
	}
	if got := accepted(zero); got != system {
		t.Errorf("at zero again: %v, at first %v", got, system)
	}
}

// TestOptionsFromTheFirst: who connects the moment the socket listens, as clients
// of a daemon that is started anew do, has the options as well.
func TestOptionsFromTheFirst(t *testing.T) {
	// An address that no dial is from, so that none connects to itself.
	address := "127.0.0.2:0"
	var dials sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	defer dials.Wait()
	defer cancel()
	for range 3000 {
		l, err := Listen(ctx, address, sockopt.Options{Nodelay: true, KeepaliveIdle: 31 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(address, ":0") {
			address = l.Addr().String()
			dials.Go(func() {
				for ctx.Err() == nil {
					if s, err := new(Dialer).Dial(ctx, netip.MustParseAddrPort(address)); err == nil {
						s.Reset()
					}
				}
			})
		}
		s, _, err := l.Accept()
		if err := errors.Join(err, l.Close()); err != nil {
			t.Fatal(err)
		}
		inline, errInline := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_OOBINLINE)
		alive, errAlive := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE)
		s.Close()
		if err := errors.Join(errInline, errAlive); err != nil || inline != 1 || alive != 1 {
			t.Fatalf("urgent data in its place %d, keep-alive %d, %v", inline, alive, err)
		}
	}
}
