// Package listen owns the sockets that clients connect to, and talks to a client until
// its target is known and it has its answer. It neither routes nor dials.
package listen

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/bare"
	"github.com/tunneld/tunneld/internal/unixsock"
)

// Socket is a bound, listening socket. It outlives the configurations that name
// its address: connections that queue in it are not lost by a reload.
type Socket struct {
	address string
	ln      *bare.Listener
	place   *unixsock.Place // of a unix socket that Bind has made; else nil
	pause   time.Duration   // after the first failed accept
	closing chan struct{}   // closed by the first Close
	once    sync.Once
	serving sync.WaitGroup
}

// Options are of a listening socket. The zero value is useful.
type Options struct {
	// Backlog is the length of the queue of connections that nobody has accepted
	// yet; 0 means the system's limit, which also bounds it.
	Backlog int
	// Socket is for the connections, from the first on.
	Socket tunnel.SocketOptions
}

// Bind binds address ("host:port") and listens.
func Bind(ctx context.Context, address string, opts Options) (*Socket, error) {
	ln, err := bare.Listen(ctx, address, opts.Socket)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return newSocket(address, ln, opts)
}

// BindUnix binds a unix socket to an absolute path and listens, as unixsock.Listen does.
// Close removes the socket.
func BindUnix(ctx context.Context, path string, a unixsock.Access, opts Options) (*Socket, error) {
	ln, place, err := unixsock.Listen(ctx, path, a)
	if err != nil {
		return nil, fmt.Errorf("listen on unix://%s: %w", path, err)
	}
	b, err := bare.ListenUnix(ln)
	if err != nil {
		return nil, errors.Join(err, place.Remove())
	}
	s, err := newSocket("unix://"+path, b, opts)
	if err != nil {
		return nil, errors.Join(err, place.Remove())
	}
	s.place = place
	return s, nil
}

// Inherit takes a socket that listens already, a TCP or a unix one. file stays its owner's,
// and so does a path.
func Inherit(file *os.File, addr net.Addr, opts Options) (*Socket, error) {
	ln, err := bare.Inherit(file, addr, opts.Socket)
	if err != nil {
		return nil, fmt.Errorf("inherit %s: %w", file.Name(), err)
	}
	return newSocket(addr.String(), ln, opts)
}

func newSocket(address string, ln *bare.Listener, opts Options) (*Socket, error) {
	s := &Socket{address: address, ln: ln, pause: firstPause, closing: make(chan struct{})}
	if opts.Backlog > 0 { // it has the system's
		if err := s.SetBacklog(opts.Backlog); err != nil {
			return nil, errors.Join(err, ln.Close())
		}
	}
	return s, nil
}

// SetOptions sets the options of the connections that are made from now on.
// Those that wait in the queue keep what they have.
func (s *Socket) SetOptions(o tunnel.SocketOptions) error {
	if err := s.ln.SetOptions(o); err != nil {
		return fmt.Errorf("set options of %s: %w", s.address, err)
	}
	return nil
}

// SetBacklog changes the length of the queue, as Options has it.
func (s *Socket) SetBacklog(backlog int) error {
	if backlog <= 0 {
		backlog = math.MaxInt32
	}
	var listenErr error
	// listen(2) on a listening socket changes its backlog alone.
	err := s.ln.Control(func(fd uintptr) { listenErr = syscall.Listen(int(fd), backlog) })
	if err = errors.Join(err, listenErr); err != nil {
		return fmt.Errorf("set backlog of %s: %w", s.address, err)
	}
	return nil
}

// Addr is the address that the system bound, a *net.TCPAddr or a *net.UnixAddr. That of
// a socket that BindUnix has made may be another than its path.
func (s *Socket) Addr() net.Addr { return s.ln.Addr() }

// InPlace says whether clients still come to the socket: the path of a unix socket may
// have become another's.
func (s *Socket) InPlace() bool { return s.place == nil || s.place.Held() }

// Access is who may connect to a unix socket that BindUnix has made. False: it is not one.
func (s *Socket) Access() (_ unixsock.Access, ok bool) {
	if s.place == nil {
		return unixsock.Access{}, false
	}
	return s.place.Access(), true
}

// SetAccess sets it.
func (s *Socket) SetAccess(a unixsock.Access) error { return s.place.Set(a) }

// The pauses after a failed accept double from the first to the last.
const (
	firstPause = 5 * time.Millisecond
	lastPause  = time.Second
)

// Serve accepts connections in a goroutine of its own until Close and gives
// each to handle, which must not block. An error of one accept never ends the
// others: where the process has no descriptors left, clients wait in the queue
// until one is free. paused is called for each pause that such an error makes.
func (s *Socket) Serve(log *slog.Logger, handle func(*bare.Socket, bare.Peer), paused func()) {
	s.serving.Go(func() {
		pause := s.pause
		for {
			c, peer, err := s.ln.Accept()
			switch {
			case err == nil:
				pause = s.pause
				handle(c, peer)
			case errors.Is(err, net.ErrClosed):
				return
			case clientGone(err):
			default:
				log.Warn("cannot accept connections", "address", s.address, "err", err, "hint", Hint(err), "retry_in", pause)
				paused()
				// Many may pause at once, and are closed one after the other.
				t := time.NewTimer(pause)
				select {
				case <-t.C:
				case <-s.closing:
				}
				t.Stop()
				pause = min(2*pause, lastPause)
			}
		}
	})
}

// clientGone says that err is of the one connection that was to be accepted.
func clientGone(err error) bool {
	return errors.Is(err, syscall.ECONNABORTED) || errors.Is(err, syscall.ECONNRESET)
}

const reasonBusy = "busy"

// Reason is what kind of failure of a Handshake err is: "timeout", "descriptors",
// "left" for a client that left without a word or while its login waited, "asked" for
// one that was asked for user and password, "login" for one whose are wrong, "busy"
// for one whose were not checked, "tls" for the handshake of TLS, or "protocol" for all
// others.
func Reason(err error) string {
	var login *LoginError
	var inTLS *tlsError
	switch {
	case errors.Is(err, ErrNothing), errors.Is(err, ErrLeft):
		return "left"
	case errors.Is(err, ErrAsked):
		return "asked"
	case errors.As(err, &login) && login.Unchecked != nil:
		return reasonBusy
	case login != nil:
		return "login"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return "descriptors"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "timeout"
	case errors.As(err, &inTLS):
		return "tls"
	default:
		return "protocol"
	}
}

// Hint says what to check after an error of an accept or of a Handshake; empty
// where nothing can be said but the error.
func Hint(err error) string {
	var theirs *mistake
	var login *LoginError
	var inTLS *tlsError
	switch {
	case errors.As(err, &inTLS) && inTLS.hint != "":
		return inTLS.hint
	case errors.As(err, &login):
		return login.hint()
	case errors.As(err, &theirs):
		return theirs.hint
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return "no file descriptors are left: raise LimitNOFILE or lower daemon.max_connections"
	case errors.Is(err, errSilent):
		return "set dial_on = \"accept\" if the server speaks first in this protocol; otherwise see why the client is silent, or raise timeouts.handshake of the listener"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "the client was silent, or too slow for timeouts.handshake of the listener"
	default:
		return ""
	}
}

// Close stops listening and returns once Serve has returned. Connections that
// wait in the queue are reset by the system. What BindUnix has made it removes first.
func (s *Socket) Close() error {
	var err error
	if s.place != nil {
		err = s.place.Remove()
	}
	err = errors.Join(err, s.ln.Close())
	s.once.Do(func() { close(s.closing) })
	s.serving.Wait()
	if err != nil {
		return fmt.Errorf("close listener %s: %w", s.address, err)
	}
	return nil
}
