package sdk

import (
	"context"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tunneld/tunneld/plugins/sdk/internal/serve"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
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
			conn, err := req.Connect(t.Context(), l.Addr().String())
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

// TestDialedSocketsAreWatched: each TCP connection of the dialer, for as long as
// it is open, and no other.
func TestDialedSocketsAreWatched(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var watched []syscall.RawConn
	var remote string
	i := &instance{dialer: dialTo(l.Addr().String())}
	if err := i.Start(serve.Env{Watch: func(to string, c syscall.RawConn) { watched, remote = append(watched, c), to }}); err != nil {
		t.Fatal(err)
	}
	out, err := i.Dial(t.Context(), &pluginv1.DialRequest{SocketOptions: &pluginv1.SocketOptions{UserTimeout: durationpb.New(1500 * time.Millisecond)}})
	if err != nil || out.Tunnel == nil || len(watched) != 1 {
		t.Fatalf("%+v, %v, with %d sockets watched", out, err, len(watched))
	}
	var userTimeout int
	if err := watched[0].Control(func(fd uintptr) {
		userTimeout, _ = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
	}); err != nil || userTimeout != 1500 {
		t.Errorf("the watched socket's user timeout is %d, %v", userTimeout, err)
	}
	if remote != l.Addr().String() {
		t.Errorf("the watched socket leads to %q, not %s", remote, l.Addr())
	}
	if out.Tunnel.Socket == nil {
		t.Error("the tunnel does not name its socket")
	}
	_ = out.Tunnel.Conn.Close()
	if err := watched[0].Control(func(uintptr) {}); err == nil {
		t.Error("the socket is open for who watches it")
	}
}

// dialTo connects to an address, whatever the target.
type dialTo string

func (d dialTo) Dial(ctx context.Context, req *Request) (*Tunnel, error) {
	conn, err := req.Connect(ctx, string(d))
	if err != nil {
		return nil, err
	}
	return Direct(conn, nil), nil
}
