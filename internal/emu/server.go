package emu

import (
	"errors"
	"net"
	"slices"
	"sync"
	"time"
)

// acceptPause is the wait after a failed accept, for descriptors to become free.
const acceptPause = 50 * time.Millisecond

// Server accepts connections for an emulator, and ends all of them. The zero value is
// ready for use. Its methods may be called by several goroutines at once.
type Server struct {
	goroutines sync.WaitGroup

	mu        sync.Mutex
	closed    bool
	listeners []*net.TCPListener
	open      map[*net.TCPConn]struct{}
}

// Accept takes over l and returns at once. It calls serve for each connection, in a
// goroutine of its own, and closes the connection when serve returns.
func (s *Server) Accept(l *net.TCPListener, serve func(*net.TCPConn)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = l.Close()
		return
	}
	s.listeners = append(s.listeners, l)
	s.goroutines.Go(func() { s.accept(l, serve) })
}

func (s *Server) accept(l *net.TCPListener, serve func(*net.TCPConn)) {
	for {
		c, err := l.AcceptTCP()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			time.Sleep(acceptPause)
		case s.Add(c):
			s.goroutines.Go(func() {
				defer s.Drop(c)
				serve(c)
			})
		}
	}
}

// Add takes over a connection, such as one to a target, so that Close closes it. After
// Close it closes the connection itself, and returns false.
func (s *Server) Add(c *net.TCPConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = c.Close()
		return false
	}
	if s.open == nil {
		s.open = map[*net.TCPConn]struct{}{}
	}
	s.open[c] = struct{}{}
	return true
}

// Drop closes a connection and forgets it.
func (s *Server) Drop(c *net.TCPConn) {
	s.mu.Lock()
	delete(s.open, c)
	s.mu.Unlock()
	_ = c.Close()
}

// Reset resets every connection.
func (s *Server) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		_ = c.SetLinger(0)
		_ = c.Close()
	}
}

// Close closes the listeners and the connections, and returns once every call of serve
// has returned. It may be called more than once.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	var errs []error
	for _, l := range s.listeners {
		errs = append(errs, l.Close())
	}
	s.listeners = nil
	for c := range s.open {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.goroutines.Wait()
	return errors.Join(errs...)
}

// Remember appends a new value to a list that keeps the last most, and returns it.
func Remember[T any](list *[]*T, most int) *T {
	if len(*list) == most {
		*list = slices.Delete(*list, 0, 1)
	}
	v := new(T)
	*list = append(*list, v)
	return v
}
