package pluginwire

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair returns both ends of a channel.
func pair(t *testing.T) (core, plugin *Channel) {
	t.Helper()
	core, f, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	plugin, err = Open(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []*Channel{core, plugin} {
		t.Cleanup(func() { _ = c.Close() })
		if err := c.conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	return core, plugin
}

// relayPair returns the ends of a relay.
func relayPair(t *testing.T) (near, far *net.UnixConn) {
	t.Helper()
	near, far, err := RelayPair()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []*net.UnixConn{near, far} {
		t.Cleanup(func() { _ = c.Close() })
		if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	return near, far
}

func TestChannelCarriesDescriptors(t *testing.T) {
	core, plugin := pair(t)
	near, far := relayPair(t)
	if err := plugin.Send(Record{Kind: Handoff, Token: 7, Path: PathRelay}, far); err != nil {
		t.Fatal(err)
	}
	if err := far.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := core.Receive()
	if err != nil || got.Descriptor == nil || got.Record != (Record{Kind: Handoff, Token: 7, Path: PathRelay}) {
		t.Fatalf("received %+v, %v", got, err)
	}
	f := got.Descriptor.File()
	if flags := fcntl(t, f, syscall.F_GETFD); flags&syscall.FD_CLOEXEC == 0 {
		t.Error("the descriptor is not close-on-exec")
	}
	if flags := fcntl(t, f, syscall.F_GETFL); flags&syscall.O_NONBLOCK == 0 {
		t.Error("the descriptor is blocking")
	}
	conn, err := net.FileConn(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := near.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4)
	if _, err := io.ReadFull(conn, b); err != nil || string(b) != "ping" {
		t.Errorf("read %q, %v", b, err)
	}
}

func fcntl(t *testing.T, f *os.File, cmd int) uintptr {
	t.Helper()
	raw, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var flags uintptr
	var errno syscall.Errno
	if err := raw.Control(func(fd uintptr) { flags, _, errno = syscall.Syscall(syscall.SYS_FCNTL, fd, uintptr(cmd), 0) }); err != nil || errno != 0 {
		t.Fatal(err, errno)
	}
	return flags
}

// Sending must not make the connection blocking for those who go on with it.
func TestSendLeavesTheConnectionNonBlocking(t *testing.T) {
	_, plugin := pair(t)
	near, far := relayPair(t)
	if err := plugin.Send(Record{Kind: Handoff, Token: 7, Path: PathRelay}, far); err != nil {
		t.Fatal(err)
	}
	if err := far.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := far.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read returned %v, want its deadline", err)
	}
	_ = near.Close()
}

// A record that cannot be used costs itself alone: its descriptors are closed,
// and the next record is read.
func TestChannelSurvivesBadRecords(t *testing.T) {
	handoff := Record{Kind: Handoff, Token: 7, Path: PathRelay}.Encode()
	eofRecord := Record{Kind: EOF, Token: 7}.Encode()
	unknown := handoff
	unknown[1] = 77
	for name, tc := range map[string]struct {
		bytes       []byte
		descriptors int
		want        string
		token       uint64
	}{
		"unknown kind":             {unknown[:], 1, "unknown kind 77", 0},
		"handoff without":          {handoff[:], 0, "handoff of tunnel 7 with 0 descriptors", 7},
		"handoff with two":         {handoff[:], 2, "handoff of tunnel 7 with 2 descriptors", 7},
		"more than there is room":  {handoff[:], 9, "MSG_CTRUNC", 7},
		"descriptor without cause": {eofRecord[:], 1, "record of kind 2 with a descriptor", 7},
	} {
		t.Run(name, func(t *testing.T) {
			core, plugin := pair(t)
			near, far := relayPair(t)
			var fds []int
			raw, err := far.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			if err := raw.Control(func(fd uintptr) {
				for range tc.descriptors {
					fds = append(fds, int(fd))
				}
				var oob []byte
				if len(fds) > 0 {
					oob = syscall.UnixRights(fds...)
				}
				if _, _, err := plugin.conn.WriteMsgUnix(tc.bytes, oob, nil); err != nil {
					t.Error(err)
				}
			}); err != nil {
				t.Fatal(err)
			}
			_ = far.Close()
			got, err := core.Receive()
			var bad *BadRecordError
			if !errors.As(err, &bad) || !strings.Contains(err.Error(), tc.want) || got.Descriptor != nil || got.Token != tc.token {
				t.Errorf("received %+v, %v", got, err)
			}
			// All copies are closed: the other end reads the end of file.
			if _, err := near.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("a descriptor is still open somewhere: %v", err)
			}
			if err := plugin.Send(Record{Kind: EOF, Token: 8}, nil); err != nil {
				t.Fatal(err)
			}
			if got, err := core.Receive(); err != nil || got.Token != 8 {
				t.Errorf("the next record is %+v, %v", got, err)
			}
		})
	}
}

func TestChannelEnd(t *testing.T) {
	core, plugin := pair(t)
	if err := plugin.Send(Record{Kind: End, Token: 1}, nil); err != nil {
		t.Fatal(err)
	}
	if err := plugin.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := core.Receive(); err != nil || got.Kind != End {
		t.Errorf("what was sent before the end: %+v, %v", got, err)
	}
	for range 2 {
		if _, err := core.Receive(); err != io.EOF {
			t.Errorf("at the end: %v", err)
		}
	}
	if err := core.Send(Record{Kind: Abort, Token: 1}, nil); err == nil {
		t.Error("a record was sent to nobody")
	}
}

// Close ends a Receive under way.
func TestCloseEndsReceive(t *testing.T) {
	core, _ := pair(t)
	done := make(chan error, 1)
	go func() {
		_, err := core.Receive()
		done <- err
	}()
	if err := core.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Receive returned %v", err)
	}
}

// Records of many senders do not mix, also where the socket's buffer is full.
func TestSendFromMany(t *testing.T) {
	core, plugin := pair(t)
	const senders, each = 8, 500
	var all sync.WaitGroup
	for s := range senders {
		all.Go(func() {
			for i := range each {
				if err := plugin.Send(Record{Kind: End, Token: uint64(s*each + i + 1), Text: strings.Repeat("x", i%MaxText)}, nil); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	seen := make(map[uint64]bool)
	for range senders * each {
		got, err := core.Receive()
		if err != nil || seen[got.Token] {
			t.Fatalf("received %+v, %v", got.Record, err)
		}
		seen[got.Token] = true
	}
	all.Wait()
}

func TestInheritRefuses(t *testing.T) {
	if _, err := Open(nil); err == nil {
		t.Error("no file is accepted")
	}
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(f); err == nil {
		t.Error("a file that is no socket is accepted")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	file, err := c.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(file); err == nil || !strings.Contains(err.Error(), "not a unix one") {
		t.Errorf("a TCP socket: %v", err)
	}
}
