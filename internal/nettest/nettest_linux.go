package nettest

import (
	"net"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// Net is a network namespace (network_namespaces(7)) with a loopback interface.
type Net struct {
	calls chan func()
}

// New returns a network that lasts as long as the test. It skips the test where
// the system does not allow one.
func New(t testing.TB) *Net {
	t.Helper()
	n := &Net{calls: make(chan func())}
	made := make(chan error)
	over := make(chan struct{})
	go func() {
		defer close(over)
		// Never unlocked: the thread ends with the goroutine, and with it its
		// view of the network.
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		made <- err
		if err != nil {
			return
		}
		for call := range n.calls {
			call()
		}
	}()
	if err := <-made; err != nil {
		<-over
		t.Skipf("a network of its own needs root: unshare: %v", err)
	}
	t.Cleanup(func() { close(n.calls); <-over })
	n.link(t, true)
	return n
}

// Do calls f on the network's thread: a socket that f makes is the network's for
// good. f does not end the test.
func (n *Net) Do(f func()) {
	done := make(chan struct{})
	n.calls <- func() { defer close(done); f() }
	<-done
}

// Listen returns a listener on the network's loopback address, whose
// connections are the network's as well.
func (n *Net) Listen(t testing.TB) *net.TCPListener {
	t.Helper()
	var ln *net.TCPListener
	var err error
	n.Do(func() { ln, err = net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return ln
}

// Dial connects to an address of the network.
func (n *Net) Dial(t testing.TB, to net.Addr) *net.TCPConn {
	t.Helper()
	var c *net.TCPConn
	var err error
	n.Do(func() { c, err = net.DialTCP("tcp4", nil, to.(*net.TCPAddr)) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// Pair returns the two ends of a connection.
func (n *Net) Pair(t testing.TB) (near, far *net.TCPConn) {
	t.Helper()
	ln := n.Listen(t)
	near = n.Dial(t, ln.Addr())
	far, err := ln.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = far.Close() })
	return near, far
}

// Cut takes the link away.
func (n *Net) Cut(t testing.TB) {
	t.Helper()
	n.link(t, false)
}

// link switches the loopback interface (netdevice(7)).
func (n *Net) link(t testing.TB, up bool) {
	t.Helper()
	var err error
	n.Do(func() { err = setLink(up) })
	if err != nil {
		t.Fatalf("switch the link: %v", err)
	}
}

func setLink(up bool) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if up {
		request.SetUint16(unix.IFF_UP)
	}
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request)
}
