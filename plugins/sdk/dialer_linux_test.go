package sdk

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestDialerSetsOptions(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	type option struct{ level, name int }
	var (
		nodelay   = option{unix.IPPROTO_TCP, unix.TCP_NODELAY}
		keepalive = option{unix.SOL_SOCKET, unix.SO_KEEPALIVE}
		idle      = option{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE}
		interval  = option{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL}
		count     = option{unix.IPPROTO_TCP, unix.TCP_KEEPCNT}
		user      = option{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT}
	)
	for name, tc := range map[string]struct {
		options SocketOptions
		want    map[option]int
	}{
		"none": {SocketOptions{}, map[option]int{nodelay: 0, keepalive: 0, user: 0}},
		"all": {
			SocketOptions{Nodelay: true, KeepaliveIdle: 30 * time.Second, KeepaliveInterval: 10 * time.Second, KeepaliveCount: 6, UserTimeout: 1500 * time.Millisecond},
			map[option]int{nodelay: 1, keepalive: 1, idle: 30, interval: 10, count: 6, user: 1500},
		},
	} {
		t.Run(name, func(t *testing.T) {
			req := &Request{Options: tc.options}
			conn, err := req.Dialer().DialContext(t.Context(), "tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			tunnel, err := Direct(conn, nil).handover(req.Options.Nodelay)
			if err != nil {
				t.Fatal(err)
			}
			defer tunnel.Conn.Close()
			raw, err := tunnel.Conn.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			for o, want := range tc.want {
				var got int
				var getErr error
				if err := raw.Control(func(fd uintptr) { got, getErr = unix.GetsockoptInt(int(fd), o.level, o.name) }); err != nil || getErr != nil || got != want {
					t.Errorf("option %v is %d, %v, %v; want %d", o, got, err, getErr, want)
				}
			}
		})
	}
}
