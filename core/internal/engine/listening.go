package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/tunneld/tunneld/core/diag"
	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/core/internal/listen"
	"github.com/tunneld/tunneld/internal/bare"
	"github.com/tunneld/tunneld/internal/unixsock"
)

// listening is a listener's socket. Which listener block it serves is the
// generation's to say, so that a reload changes both at once.
type listening struct {
	claim
	engine *Engine
	socket *listen.Socket
	lost   atomic.Bool // it could not be bound again
}

func (l *listening) bound() place {
	if l.asked.path != "" {
		return l.asked
	}
	return placeOf(l.socket.Addr())
}

func (l *listening) inPlace() bool { return l.socket.InPlace() }

// inForce returns what the generation in force says of the socket.
func (l *listening) inForce() *listener { return l.engine.current.Load().listeners[l] }

func (l *listening) serve() {
	e := l.engine
	l.socket.Serve(e.log, func(c *bare.Socket, peer bare.Peer) { e.handle(l, c, peer) }, func() { e.paused(l) })
}

func (l *listening) adapt() error {
	now := l.inForce()
	return errors.Join(l.socket.SetBacklog(now.Backlog), l.socket.SetOptions(now.Socket))
}

func (l *listening) close() error { return l.socket.Close() }

func (l *listening) rebind(ctx context.Context) error {
	// The generation in force knows it by its listening.
	socket, err := l.engine.open(ctx, l.bound(), l.claim, l.inForce().Listener)
	if err == nil {
		l.socket = socket
	}
	return err
}

func (l *listening) lose() { l.lost.Store(true) }

func (l *listening) tell(serves bool) {
	what := "listening"
	if !serves {
		what = "no longer listening"
	}
	_, id, _ := strings.Cut(l.block, ".")
	l.engine.log.Info(what, "listener", id, "address", l.bound().String())
}

// open takes over the inherited socket that c names, or binds a new one.
func (e *Engine) open(ctx context.Context, at place, c claim, l config.Listener) (*listen.Socket, error) {
	opts := listen.Options{Backlog: l.Backlog, Socket: l.Socket}
	name, inherited := config.InheritedName(c.written)
	switch {
	case inherited:
		for _, s := range e.opts.Inherited.Sockets(name) {
			if s.Err == nil && placeOf(s.Addr) == at {
				return listen.Inherit(s.File, s.Addr, opts)
			}
		}
		return nil, fmt.Errorf("%s has no socket at %s", c.written, at)
	case at.path != "":
		return listen.BindUnix(ctx, at.path, l.Access, opts)
	}
	return listen.Bind(ctx, at.addr.String(), opts)
}

// paused counts a pause of accepting for the listener that l serves.
func (e *Engine) paused(l *listening) {
	g := e.hold()
	if g == nil {
		return
	}
	defer g.release()
	if on := g.listeners[l]; on != nil {
		e.metrics.AcceptPaused(on.id)
	}
}

// cannotBind is the diagnostic for a block of which the address at path cannot be bound.
func cannotBind(cfg *config.Config, blockID, path string, err error, hint string) diag.Diagnostic {
	return obstacle(cfg, blockID, path, "the address cannot be bound", err.Error()+": "+hint)
}

// isLacking is the diagnostic for a block whose address is a name with several
// addresses, of which this machine lacks ip.
func isLacking(cfg *config.Config, s *endpoint, ip netip.Addr) diag.Diagnostic {
	host, port, _ := net.SplitHostPort(s.written) // resolve has split it
	d := cfg.BlockDiagnostic(s.block, s.path, "not all addresses of the name are listened on",
		fmt.Sprintf("%s is also %s, which this machine does not have: clients that take that one are refused. Switch it on, remove it from /etc/hosts or DNS, or write the other address with port %s.", host, ip, port))
	d.Warning = true
	return d
}

func bindHint(err error) string {
	var notFound *net.DNSError
	var atPath *unixsock.Error
	switch {
	case errors.As(err, &atPath):
		return atPath.Hint
	case errors.Is(err, syscall.EADDRINUSE):
		return "another program holds it; find it with ss -ltnp, or choose another port"
	case errors.Is(err, syscall.EACCES):
		return "ports below 1024 need CAP_NET_BIND_SERVICE"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "this machine does not have that address"
	case errors.As(err, &notFound):
		return "check the name, in /etc/hosts and DNS"
	default:
		return "check the address"
	}
}
