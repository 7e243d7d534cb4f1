// Package freeport finds addresses to listen on, for programs that a test or a
// measurement starts. It holds nothing open, so it chooses where nobody else is likely
// to.
package freeport

import (
	"errors"
	"net"
	"os"
	"strconv"
	"sync"
)

// The ports are below those that systems pick for connections (ip(7),
// ip_local_port_range): one of these may be taken at any moment.
const (
	first = 21000
	last  = 31999
	count = last - first + 1
)

// Ports hands ports out in turn. The zero value is ready, and safe for concurrent use.
type Ports struct {
	mu    sync.Mutex
	tried int
}

// Address returns a loopback address ("127.0.0.1:21000") that nobody listens on, and
// that it has not returned for a long time.
func (p *Ports) Address() (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	// Two processes do not begin at the same port.
	begin := os.Getpid() % 20 * (count / 20)
	for range count {
		port := first + (begin+p.tried)%count
		p.tried++
		ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return ln.Addr().String(), ln.Close()
		}
	}
	return "", errors.New("find a free port: every one of 21000 to 31999 is taken")
}
