package engine

import (
	"crypto/tls"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/internal/fdtest"
	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/tlsconf"
)

// TestHandshakesAreNotDelayed: Nagle's algorithm is on, where it is wanted, once
// the tunnel begins: a handshake's small messages go out at once.
func TestHandshakesAreNotDelayed(t *testing.T) {
	server, ca := serverTLS(t)
	nodelay := make(chan int, 1)
	asks := &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		nodelay <- nodelayOf(t, hello.Conn.RemoteAddr())
		return server, nil
	}}
	target := nettest.Serve(t, func(c *net.TCPConn) { _ = tls.Server(c, asks).Handshake() })
	d := directTLS(t, "", config.TLS{Client: tlsconf.ClientOptions{CAFile: ca}})
	d.socket.Nodelay = false
	up, err := dialed(t, d, target)
	if err != nil {
		t.Fatal(err)
	}
	defer up.Stream.Close()
	if during := <-nodelay; during != 1 {
		t.Errorf("TCP_NODELAY is %d in the handshake", during)
	}
	if after := nodelayOf(t, up.Stream.LocalAddr()); after != 0 {
		t.Errorf("TCP_NODELAY is %d in the tunnel", after)
	}
}

// nodelayOf returns TCP_NODELAY of this process's socket that is bound to the address
// and connected; -1: there is none.
func nodelayOf(t *testing.T, local net.Addr) int {
	want := netip.MustParseAddrPort(local.String())
	for number := range fdtest.Open(t) {
		fd, err := strconv.Atoi(number)
		if err != nil {
			continue
		}
		name, err := syscall.Getsockname(fd)
		is4, ok := name.(*syscall.SockaddrInet4)
		if err != nil || !ok || netip.AddrPortFrom(netip.AddrFrom4(is4.Addr), uint16(is4.Port)) != want {
			continue
		}
		if on, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY); err == nil {
			return on
		}
	}
	return -1
}
