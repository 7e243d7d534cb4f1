package conformance

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// magic precedes the number of a connection that a check takes part in; any
// other is echoed.
const magic = "\x00tunneld kit\x00"

type nonce [16]byte

// service is what the run serves at the target. A connection that begins with
// the magic and the number of a waiting check is that check's; any other gets
// back what it sends, and its end of file after its own.
type service struct {
	ln   *net.TCPListener
	wait sync.WaitGroup

	mu       sync.Mutex
	accepted int
	open     map[*net.TCPConn]bool
	waiting  map[nonce]chan *net.TCPConn
	greeting []byte
}

// serveAt serves at a loopback address.
func serveAt(address string) (*service, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("%s is not an address", address)
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || !ip.IsLoopback() {
		return nil, fmt.Errorf("%s is not a loopback address", address)
	}
	ln, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, err
	}
	s := &service{ln: ln.(*net.TCPListener), open: map[*net.TCPConn]bool{}, waiting: map[nonce]chan *net.TCPConn{}}
	s.wait.Go(s.accept)
	return s, nil
}

func (s *service) ip() netip.Addr { return s.ln.Addr().(*net.TCPAddr).AddrPort().Addr() }

func (s *service) accept() {
	for {
		c, err := s.ln.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // no descriptors left
			continue
		}
		s.mu.Lock()
		s.accepted++
		s.open[c] = true
		greeting := s.greeting
		s.mu.Unlock()
		s.wait.Go(func() { s.handle(c, greeting) })
	}
}

func (s *service) handle(c *net.TCPConn, greeting []byte) {
	if len(greeting) > 0 {
		_, _ = c.Write(greeting)
	}
	head := make([]byte, 0, len(magic)+len(nonce{}))
	for len(head) < cap(head) {
		n, err := c.Read(head[len(head):cap(head)])
		head = head[:len(head)+n]
		if err != nil || !bytes.HasPrefix([]byte(magic), head[:min(len(head), len(magic))]) {
			break
		}
	}
	if len(head) == cap(head) && string(head[:len(magic)]) == magic {
		s.give(nonce(head[len(magic):]), c)
		return
	}
	defer s.drop(c)
	if _, err := c.Write(head); err != nil {
		return
	}
	// Its errors are the client's: it sees the connection end. The wrappers keep
	// the runtime from splicing through pipes, which it would hold on to.
	if _, err := io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c}); err == nil {
		_ = c.CloseWrite()
	}
}

// give hands a connection to the check that waits for it.
func (s *service) give(n nonce, c *net.TCPConn) {
	s.mu.Lock()
	to := s.waiting[n]
	delete(s.waiting, n)
	s.mu.Unlock()
	if to == nil {
		s.drop(c)
		return
	}
	to <- c
}

func (s *service) drop(c *net.TCPConn) {
	_ = c.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
}

// expect returns what a client has to send first and where its connection
// appears.
func (s *service) expect() (first []byte, arrived <-chan *net.TCPConn, forget func()) {
	var n nonce
	_, _ = rand.Read(n[:])
	to := make(chan *net.TCPConn, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting[n] = to
	return append([]byte(magic), n[:]...), to, func() {
		s.mu.Lock()
		delete(s.waiting, n)
		s.mu.Unlock()
	}
}

// greet makes the service speak first; nil: no longer.
func (s *service) greet(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.greeting = b
}

// counts returns how many connections came so far and how many are open.
func (s *service) counts() (accepted, open int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accepted, len(s.open)
}

// quiet waits until no connection is open, and says how many were in the end.
func (s *service) quiet(ctx context.Context, within time.Duration) int {
	open := 0
	poll(ctx, within, func() bool {
		_, open = s.counts()
		return open == 0
	})
	return open
}

func (s *service) close() error {
	err := s.ln.Close()
	s.mu.Lock()
	for c := range s.open {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.wait.Wait()
	return err
}

// poll asks until the answer is true, or a while has passed, and returns the
// last answer.
func poll(ctx context.Context, within time.Duration, ask func() bool) bool {
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ask() {
		select {
		case <-tick.C:
		case <-deadline.C:
			return ask()
		case <-ctx.Done():
			return ask()
		}
	}
	return true
}
