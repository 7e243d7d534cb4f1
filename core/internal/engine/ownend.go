package engine

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"

	"github.com/tunneld/tunneld/core/internal/splice"
	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/pluginwire"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// ownEnd is the client's end of a tunnel whose client is the daemon itself. The pump has the
// other end of the socketpair, and is told, as by a plugin, how the tunnel ends: on a
// socketpair all ends look alike.
type ownEnd struct {
	*net.UnixConn
	upstream string // its ID
	shutOnce sync.Once
	shut     chan struct{} // closed before this side's direction is ended
	once     sync.Once
	closed   chan struct{} // closed before this side closes
	aborted  bool          // set before: that is no clean end

	broken chan struct{} // closed before the pump breaks the tunnel off
	ended  chan struct{} // closed once the tunnel is over
	result splice.Result // set before
}

// newOwnEnd returns the daemon's end and the pump's.
func newOwnEnd(upstream string) (*ownEnd, tunnel.End, error) {
	near, far, err := pluginwire.RelayPair()
	if err != nil {
		return nil, tunnel.End{}, err
	}
	e := &ownEnd{
		UnixConn: near, upstream: upstream,
		shut: make(chan struct{}), closed: make(chan struct{}),
		broken: make(chan struct{}), ended: make(chan struct{}),
	}
	return e, tunnel.End{Stream: far, Relay: &ownRelay{end: e}}, nil
}

// over tells the end how its tunnel has ended.
func (e *ownEnd) over(r splice.Result) {
	e.result = r
	close(e.ended)
}

// Read reads what the upstream has sent. An end of file is a clean one; another end is a
// *tunnel.DialError.
func (e *ownEnd) Read(b []byte) (int, error) {
	n, err := e.UnixConn.Read(b)
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
		err = e.verdict()
	}
	return n, err
}

// Write writes to the upstream.
func (e *ownEnd) Write(b []byte) (int, error) {
	n, err := e.UnixConn.Write(b)
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		err = e.verdict()
		if errors.Is(err, io.EOF) {
			err = syscall.EPIPE
		}
	}
	return n, err
}

// verdict says how the other direction has ended.
func (e *ownEnd) verdict() error {
	select {
	case <-e.broken:
	default:
		return io.EOF
	}
	<-e.ended // it is about to be
	err := &tunnel.DialError{
		Upstream: e.upstream,
		Stage:    pluginv1.Stage_STAGE_REQUEST,
		Reason:   pluginv1.Reason_REASON_PROTOCOL,
		Message:  "the connection broke",
		Hint:     "see the server's log",
		Err:      e.result.Err,
	}
	if e.result.Err != nil {
		err.Message += ": " + e.result.Err.Error()
	}
	switch e.result.Reason {
	case tunnel.CloseIdle, tunnel.CloseHalfClosed, tunnel.CloseLifetime, tunnel.CloseDeadLine:
		err.Reason, err.Hint = pluginv1.Reason_REASON_TIMEOUT, "see why the server takes so long, or raise the listener's timeouts"
	case tunnel.ClosePluginDied:
		err.Reason, err.Hint = pluginv1.Reason_REASON_UNAVAILABLE, "try again: the plugin is being started anew"
	case tunnel.CloseKilled:
		err.Reason, err.Hint = pluginv1.Reason_REASON_CANCELED, "try again once the daemon has restarted"
	}
	return err
}

// CloseWrite ends what the upstream reads.
func (e *ownEnd) CloseWrite() error {
	e.shutOnce.Do(func() { close(e.shut) })
	return e.UnixConn.CloseWrite()
}

// Close ends the tunnel, cleanly.
func (e *ownEnd) Close() error { return e.close(false) }

// Abort breaks the tunnel off.
func (e *ownEnd) Abort() {
	_ = e.close(true) // it is gone, whatever that returns
}

func (e *ownEnd) close(aborted bool) error {
	e.once.Do(func() {
		e.aborted = aborted
		close(e.closed)
	})
	return e.UnixConn.Close()
}

// ownRelay is the pump's half of an ownEnd.
type ownRelay struct {
	end   *ownEnd
	abort sync.Once
}

var (
	errOwnAborted = errors.New("the exchange was broken off")
	errOwnSilent  = errors.New("the exchange ended without a word")
)

// AnnounceEOF implements tunnel.Relay. What is not broken off has ended cleanly.
func (*ownRelay) AnnounceEOF() error { return nil }

// ConfirmEOF implements tunnel.Relay.
func (r *ownRelay) ConfirmEOF() error {
	select {
	case <-r.end.closed:
		return r.word()
	default:
	}
	select {
	case <-r.end.shut:
		return nil
	default:
		return errOwnSilent
	}
}

// ConfirmEnd implements tunnel.Relay.
func (r *ownRelay) ConfirmEnd(ctx context.Context) error {
	select {
	case <-r.end.closed:
		return r.word()
	case <-r.end.broken:
		return errOwnAborted
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *ownRelay) word() error {
	if r.end.aborted {
		return errOwnAborted
	}
	return nil
}

// Abort implements tunnel.Relay.
func (r *ownRelay) Abort(string) { r.abort.Do(func() { close(r.end.broken) }) }

// Ended implements tunnel.Relay.
func (*ownRelay) Ended() {}
