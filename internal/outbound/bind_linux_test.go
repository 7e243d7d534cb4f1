package outbound

import (
	"net"
	"net/netip"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestBindTakesNoPortForAll: the port is the connect's to choose. The option is
// looked at, since other programs' sockets may keep a port from being shared.
func TestBindTakesNoPortForAll(t *testing.T) {
	for _, bind := range []string{"127.0.0.7", "::1"} {
		t.Run(bind, func(t *testing.T) {
			far, err := net.Listen("tcp", net.JoinHostPort(bind, "0"))
			if err != nil {
				t.Skip(err) // no IPv6
			}
			defer far.Close()
			asked := false
			d := &Dialer{
				Bind:    netip.MustParseAddr(bind),
				Control: func(string, string, syscall.RawConn) error { asked = true; return nil },
			}
			conn, err := d.Dial(t.Context(), far.Addr().String(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			raw, err := conn.(*net.TCPConn).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			if err := raw.Control(func(fd uintptr) {
				if set, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT); err != nil || set != 1 {
					t.Errorf("IP_BIND_ADDRESS_NO_PORT is %d, %v", set, err)
				}
			}); err != nil {
				t.Fatal(err)
			}
			if !asked {
				t.Error("Control was not called")
			}
		})
	}
}
