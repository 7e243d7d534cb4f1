package bare

import (
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
	dialed, err := Dial(t.Context(), addr, sockopt.Options{Nodelay: true, KeepaliveIdle: 41 * time.Second})
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
		}); err != nil {
			t.Fatal(err)
		}
	}
}
