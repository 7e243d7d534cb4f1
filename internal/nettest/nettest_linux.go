package nettest

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/internal/proctest"
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

// insideEnv names the test that a process of Inside is for.
const insideEnv = "TUNNELD_TEST_INSIDE"

// Inside runs a top-level test again, in a process with a network of its own (whose loopback
// interface is up) and the rights of an administrator there, and returns false once that has
// ended. In that process it returns true, for the test to go on. It skips the test where the
// system does not allow such a network.
func Inside(t *testing.T) bool {
	t.Helper()
	if os.Getenv(insideEnv) == t.Name() {
		if err := setLink(true); err != nil {
			t.Fatal(err)
		}
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), insideEnv+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if uid := os.Getuid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err != nil && !errors.As(err, &exit):
		t.Skipf("a network of its own needs root or user namespaces: %v", err)
	case err != nil:
		t.Fatalf("in a network of its own: %v\n%s", err, out)
	case bytes.Contains(out, []byte("\n--- SKIP: "+t.Name())):
		t.Skipf("in a network of its own:\n%s", out)
	}
	return false
}

// Own makes all addresses of some networks those of the machine, of which ip(8) and nft(8)
// have to be installed. It is for a test that is Inside, as Redirect is.
func Own(t testing.TB, networks ...string) {
	t.Helper()
	for _, network := range networks {
		administer(t, "", "ip", "route", "add", "local", network, "dev", "lo")
	}
}

// Redirect has netfilter send connections to some ports, of both families and any address, to
// another port of this machine, and takes back what an earlier call has. Those from except, an
// IPv4 address, stay as they are.
func Redirect(t testing.TB, to int, except string, ports ...int) {
	t.Helper()
	table := "table inet test\n"
	rules := fmt.Sprintf("type nat hook output priority -100\nip saddr %s return\n", except)
	for _, port := range ports {
		rules += fmt.Sprintf("tcp dport %d redirect to :%d\n", port, to)
	}
	administer(t, table+"delete "+table+"table inet test {\nchain output {\n"+rules+"}\n}\n", "nft", "-f", "-")
}

func administer(t testing.TB, stdin, program string, args ...string) {
	t.Helper()
	cmd := exec.Command(proctest.Tool(t, program), args...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s\n%s", program, args, err, out, stdin)
	}
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
