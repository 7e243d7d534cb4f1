package sockopt

import (
	"context"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// connected returns both ends of a TCP connection on loopback.
func connected(t *testing.T, d *net.Dialer) (*net.TCPConn, *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	near, err := d.DialContext(context.Background(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close() })
	far, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	return near.(*net.TCPConn), far.(*net.TCPConn)
}

func option(t *testing.T, c *net.TCPConn, level, name int) int {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var v int
	if err := raw.Control(func(fd uintptr) { v, err = unix.GetsockoptInt(int(fd), level, name) }); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestOptions(t *testing.T) {
	o := Options{KeepaliveIdle: 31 * time.Second, KeepaliveInterval: 11 * time.Second, KeepaliveCount: 7, UserTimeout: 1500 * time.Millisecond}
	dialed, accepted := connected(t, o.Dialer())
	if err := o.Apply(accepted); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]*net.TCPConn{"dialed": dialed, "accepted": accepted} {
		t.Run(name, func(t *testing.T) {
			for _, tt := range []struct {
				name          string
				level, option int
				want          int
			}{
				{"keep-alive", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
				{"idle", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 31},
				{"interval", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 11},
				{"count", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 7},
				{"user timeout", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 1500},
			} {
				if got := option(t, c, tt.level, tt.option); got != tt.want {
					t.Errorf("%s = %d, want %d", tt.name, got, tt.want)
				}
			}
		})
	}
	if got := option(t, accepted, unix.IPPROTO_TCP, unix.TCP_NODELAY); got != 0 {
		t.Errorf("nodelay = %d after Apply without it", got)
	}
}

func TestZeroOptionsSwitchKeepAliveOff(t *testing.T) {
	dialed, accepted := connected(t, Options{}.Dialer())
	if err := (Options{Nodelay: true}).Apply(accepted); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]*net.TCPConn{"dialed": dialed, "accepted": accepted} {
		if got := option(t, c, unix.SOL_SOCKET, unix.SO_KEEPALIVE); got != 0 {
			t.Errorf("%s: keep-alive = %d", name, got)
		}
	}
	if got := option(t, accepted, unix.IPPROTO_TCP, unix.TCP_NODELAY); got != 1 {
		t.Errorf("nodelay = %d", got)
	}
}
