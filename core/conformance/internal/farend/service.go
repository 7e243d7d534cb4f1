// Package farend is what a plugin under test talks to: the command that runs its
// far end, the service at the target, and ports that make no connection.
package farend

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

	"github.com/tunneld/tunneld/core/conformance/internal/poll"
)

// magic precedes the number of a connection that a check takes part in; any
// other is echoed.
const magic = "\x00tunneld kit\x00"

type nonce [16]byte

// Service is what the run serves at the target. A connection that begins with
// the magic and the number of a waiting check is that check's; any other gets
// back what it sends, and its end of file after its own.
type Service struct {
	ln   *net.TCPListener
	wait sync.WaitGroup

	mu       sync.Mutex
	accepted int
	open     map[*net.TCPConn]bool
	waiting  map[nonce]chan *net.TCPConn
	greeting []byte
}

// Serve serves at a loopback address.
func Serve(address string) (*Service, error) {
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
	s := &Service{ln: ln.(*net.TCPListener), open: map[*net.TCPConn]bool{}, waiting: map[nonce]chan *net.TCPConn{}}
	s.wait.Go(s.accept)
	return s, nil
}

// IP returns the address that it serves at.
func (s *Service) IP() netip.Addr { return s.ln.Addr().(*net.TCPAddr).AddrPort().Addr() }

func (s *Service) accept() {
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

func (s *Service) handle(c *net.TCPConn, greeting []byte) {
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
	defer s.Drop(c)
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
func (s *Service) give(n nonce, c *net.TCPConn) {
	s.mu.Lock()
	to := s.waiting[n]
	delete(s.waiting, n)
	s.mu.Unlock()
	if to == nil {
		s.Drop(c)
		return
	}
	to <- c
}

// Drop closes a connection that Expect gave.
func (s *Service) Drop(c *net.TCPConn) {
	_ = c.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
}

// Expect returns what a client has to send first and where its connection
// appears.
func (s *Service) Expect() (first []byte, arrived <-chan *net.TCPConn, forget func()) {
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

// Greet makes the service speak first; nil: no longer.
func (s *Service) Greet(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.greeting = b
}

// Counts returns how many connections came so far and how many are open.
func (s *Service) Counts() (accepted, open int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accepted, len(s.open)
}

// Quiet waits until no connection is open, and says how many were in the end.
func (s *Service) Quiet(ctx context.Context, within time.Duration) int {
	open := 0
	poll.Until(ctx, within, func() bool {
		_, open = s.Counts()
		return open == 0
	})
	return open
}

// Close stops serving and closes all connections.
func (s *Service) Close() error {
	err := s.ln.Close()
	s.mu.Lock()
	for c := range s.open {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.wait.Wait()
	return err
}
