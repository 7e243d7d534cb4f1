package nettest

import (
	"io"
	"net"
	"testing"

	"github.com/tunneld/tunneld/internal/emu"
)

// Serve has f serve each connection to a loopback address, which it returns, until the
// test ends. Serve closes the connections: each once f has returned, all at the end of
// the test, which waits for f.
func Serve(t testing.TB, f func(*net.TCPConn)) string {
	t.Helper()
	ln, err := emu.Listen("")
	if err != nil {
		t.Fatal(err)
	}
	var s emu.Server
	s.Accept(ln, f)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

// Echo sends back what it reads, and ends its direction after the peer's.
func Echo(c *net.TCPConn) {
	// Bare connections would be spliced, through pipes that the runtime keeps and that
	// a test would count.
	if _, err := io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c}); err == nil {
		_ = c.CloseWrite()
	}
}
