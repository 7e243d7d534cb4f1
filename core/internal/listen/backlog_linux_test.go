package listen

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestBacklog: the queue's length can be changed, and zero is the system's, also
// after another.
func TestBacklog(t *testing.T) {
	s, err := Bind(t.Context(), "127.0.0.1:0", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	length := func() uint32 {
		t.Helper()
		var info *unix.TCPInfo
		// Of a listening socket this field is the queue's length.
		if err := s.ln.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); err != nil {
			t.Fatal(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		return info.Sacked
	}
	system := length()
	for _, c := range []struct {
		backlog int
		want    uint32
	}{{7, 7}, {9, 9}, {0, system}} {
		if err := s.SetBacklog(c.backlog); err != nil {
			t.Fatal(err)
		}
		if got := length(); got != c.want {
			t.Errorf("backlog %d: a queue of %d, want %d", c.backlog, got, c.want)
		}
	}
}
