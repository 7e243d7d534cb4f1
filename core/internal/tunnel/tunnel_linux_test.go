package tunnel

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/internal/bare"
)

// TestUseStreamFails: the descriptor is closed, and nobody may close it again: its
// number may be another tunnel's by then.
func TestUseStreamFails(t *testing.T) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[1])
	s, err := bare.Adopt(fds[0])
	if err != nil {
		t.Fatal(err)
	}
	c := End{Socket: s}
	if err := c.UseStream(); err == nil {
		t.Fatal("a pipe is a stream")
	}
	if c.Socket != nil || c.Stream != nil {
		t.Errorf("after the error there is %v and %v", c.Socket, c.Stream)
	}
}
