package pluginwire

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// A message of another length is refused alone, since SEQPACKET keeps the
// borders.
func TestChannelSurvivesWrongLengths(t *testing.T) {
	core, plugin := pair(t)
	for _, n := range []int{1, RecordSize - 1, RecordSize + 1, 4096} {
		if _, err := plugin.conn.Write(make([]byte, n)); err != nil {
			t.Fatal(err)
		}
		_, err := core.Receive()
		var bad *BadRecordError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), "record of") {
			t.Errorf("a message of %d bytes: %v", n, err)
		}
	}
	if err := plugin.Send(Record{Kind: EOF, Token: 8}, nil); err != nil {
		t.Fatal(err)
	}
	if got, err := core.Receive(); err != nil || got.Token != 8 {
		t.Errorf("the next record is %+v, %v", got, err)
	}
}

// A receiver that has no descriptors left is told so, and which tunnel it
// concerns. The limit is the process's, hence one of its own.
func TestChannelWithoutDescriptors(t *testing.T) {
	const child = "TUNNELD_PLUGINWIRE_TEST_CHILD"
	if os.Getenv(child) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestChannelWithoutDescriptors$")
		cmd.Env = append(os.Environ(), child+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return
	}
	core, plugin := pair(t)
	near, far := relayPair(t)
	if err := plugin.Send(Record{Kind: Handoff, Token: 7, Path: PathRelay}, far); err != nil {
		t.Fatal(err)
	}
	_ = far.Close()
	if err := exhaust(); err != nil {
		t.Fatal(err)
	}
	_, err := core.Receive()
	var bad *BadRecordError
	if !errors.As(err, &bad) || !strings.Contains(err.Error(), "descriptor of tunnel 7 was lost (MSG_CTRUNC)") {
		t.Errorf("received %v", err)
	}
	if _, err := near.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the lost descriptor is still open: %v", err)
	}
	if err := plugin.Send(Record{Kind: EOF, Token: 8}, nil); err != nil {
		t.Fatal(err)
	}
	if got, err := core.Receive(); err != nil || got.Token != 8 {
		t.Errorf("the next record is %+v, %v", got, err)
	}
}

// TestDescriptorThatLingers: closing one that nobody wants does not wait for a far end
// that does not read, and that still gets what was sent.
func TestDescriptorThatLingers(t *testing.T) {
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.DialTCP("tcp", nil, l.Addr().(*net.TCPAddr))
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	body := make([]byte, 1<<20) // more than the far end's system takes unread
	if _, err := conn.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetLinger(3600); err != nil {
		t.Fatal(err)
	}
	core, plugin := pair(t)
	if err := plugin.Send(Record{Kind: Handoff, Token: 7, Path: PathDirect}, conn); err != nil {
		t.Fatal(err)
	}
	got, err := core.Receive()
	if err := errors.Join(err, conn.Close()); err != nil {
		t.Fatal(err)
	}
	got.Descriptor.Close()
	if n, err := io.Copy(io.Discard, far); n != int64(len(body)) || err != nil {
		t.Errorf("%d bytes, %v; want all and an end", n, err)
	}
}

// exhaust leaves the process no descriptor to open.
func exhaust() error {
	limit := syscall.Rlimit{Cur: 64, Max: 64}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("set the limit: %w", err)
	}
	for {
		if _, err := syscall.Dup(0); err == syscall.EMFILE {
			return nil
		} else if err != nil {
			return err
		}
	}
}
