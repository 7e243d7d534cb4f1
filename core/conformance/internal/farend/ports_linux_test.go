package farend

import (
	"errors"
	"io"
	"maps"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/core/conformance/internal/proc"
)

// loopbacks are the addresses at which a run may serve, of both families.
var loopbacks = []string{"127.0.0.1", "::1"}

// needLoopback skips a test where the machine does not have the address.
func needLoopback(t *testing.T, ip string) {
	t.Helper()
	ln, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		t.Skip(err)
	}
	_ = ln.Close()
}

// TestUnansweringPort: a connection to it is neither made nor refused.
func TestUnansweringPort(t *testing.T) {
	for _, ip := range loopbacks {
		t.Run(ip, func(t *testing.T) {
			needLoopback(t, ip)
			s, err := Unanswering(t.Context(), netip.MustParseAddr(ip))
			if err != nil || s == nil {
				t.Fatal(s, err)
			}
			defer s.Close()
			c, err := net.DialTimeout("tcp", s.Target.String(), 300*time.Millisecond)
			if err == nil {
				_ = c.Close()
				t.Fatal("it answers")
			}
			if timeout := net.Error(nil); !errors.As(err, &timeout) || !timeout.Timeout() {
				t.Errorf("%v; want a timeout", err)
			}
		})
	}
}

// TestRefusingPort: and nobody else gets it.
func TestRefusingPort(t *testing.T) {
	for _, ip := range loopbacks {
		t.Run(ip, func(t *testing.T) {
			needLoopback(t, ip)
			r, err := Refusing(netip.MustParseAddr(ip))
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if _, err := net.Dial("tcp", r.Target.String()); err == nil || !strings.Contains(err.Error(), syscall.ECONNREFUSED.Error()) {
				t.Errorf("dial: %v", err)
			}
			if ln, err := net.Listen("tcp", r.Target.String()); err == nil {
				_ = ln.Close()
				t.Error("somebody else listens there")
			}
		})
	}
}

// TestConnectionsAreSeen: also those that have ended already.
func TestConnectionsAreSeen(t *testing.T) {
	s, err := Serve("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	address := s.ln.Addr().String()
	before := proc.Connections(address)
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(c); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	if n := s.Quiet(t.Context(), 10*time.Second); n != 0 {
		t.Fatalf("%d connections are open", n)
	}
	// The system forgets those of an earlier listener on this port meanwhile.
	now := proc.Connections(address)
	fresh := maps.Clone(now)
	maps.DeleteFunc(fresh, func(c string, _ bool) bool { return before[c] })
	if len(fresh) == 0 {
		t.Errorf("before: %v, now: %v", before, now)
	}
}
