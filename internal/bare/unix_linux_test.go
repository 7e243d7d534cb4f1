package bare

import (
	"errors"
	"io"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestUnixGoneByReset: only Linux tells.
func TestUnixGoneByReset(t *testing.T) {
	dialed, accepted, _ := unixPair(t)
	if err := unix.Sendto(accepted.fd, []byte("unread"), 0, nil); err != nil {
		t.Fatal(err)
	}
	if err := dialed.Close(); err != nil {
		t.Fatal(err)
	}
	if !accepted.Gone() {
		t.Error("it is not gone")
	}
	c, err := accepted.Stream().Conn()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if !Gone(c) {
		t.Error("it is not gone in net's hands")
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read: %v", err)
	}
}

// TestUnixUrgent: urgent data of a unix socket stays in its place as well.
func TestUnixUrgent(t *testing.T) {
	dialed, accepted, _ := unixPair(t)
	raw, err := dialed.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	ctlErr := raw.Control(func(fd uintptr) { err = unix.Sendto(int(fd), []byte("ab!"), unix.MSG_OOB, nil) })
	if err := errors.Join(ctlErr, err); errors.Is(err, unix.EOPNOTSUPP) {
		t.Skip("this kernel has no urgent data on unix sockets")
	} else if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(dialed, "cd"); err != nil {
		t.Fatal(err)
	}
	if err := dialed.Close(); err != nil {
		t.Fatal(err)
	}
	c, err := accepted.Stream().Conn()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := io.ReadAll(c); string(got) != "ab!cd" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
}
