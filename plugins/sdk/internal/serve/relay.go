package serve

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tunneld/tunneld/internal/pluginwire"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// relay is one relay tunnel: two goroutines that pump between near, this
// process's end of the socketpair, and the plugin's stream.
//
// How it ends is said on the channel before near is closed, since a socketpair
// cannot say it: the daemon reads the same end of file after a clean end, an
// error and a crash.
type relay struct {
	s      *Server
	token  uint64
	conn   string // the connection's id in the daemon's log
	near   *net.UnixConn
	stream Stream
	socket *watched // under stream; nil: not known
	quiet  *quiet   // nil: the far end's silence does not end the tunnel

	eof   chan struct{} // closed when the daemon announces its end of file
	eofed sync.Once
	begun atomic.Bool   // end has been called
	ended chan struct{} // closed when end is through
}

// whether the daemon has to be told about an end.
const (
	tellDaemon = true
	keepQuiet  = false
)

// abortError is the daemon's word that a tunnel was broken off.
type abortError string

func (e abortError) Error() string {
	if e == "" {
		return "the client's side was broken off"
	}
	return string(e)
}

// startRelay makes the socketpair, passes one end and pumps the other.
func (s *Server) startRelay(req *pluginv1.DialRequest, t *Tunnel) error {
	stream := t.Relay()
	near, far, err := pluginwire.RelayPair()
	if err != nil {
		s.abort(stream, err.Error())
		return status.Errorf(codes.Unavailable, "hand over: %v", err)
	}
	defer far.Close()
	r := &relay{
		s:      s,
		token:  req.GetToken(),
		conn:   req.GetConnection(),
		near:   near,
		stream: stream,
		eof:    make(chan struct{}),
		ended:  make(chan struct{}),
	}
	if t.Socket != nil {
		if raw, err := t.Socket.SyscallConn(); err == nil {
			r.socket = &watched{raw: raw}
		}
	}
	if d := req.GetCommon().GetHalfClose().AsDuration(); d > 0 && s.plugin.Info.GetNoHalfClose() {
		r.quiet = newQuiet(d, func() { r.end(errDone, tellDaemon) })
	}
	// Known before it is sent, since the daemon may abort at once.
	if !s.know(r) {
		r.end(errors.New("the plugin stops"), keepQuiet)
		return errStopping
	}
	if r.socket != nil {
		s.watchRelays()
	}
	err = s.channel.Send(pluginwire.Record{Kind: pluginwire.Handoff, Token: r.token, Path: pluginwire.PathRelay}, far)
	if err != nil {
		r.end(err, keepQuiet)
		s.forget(r)
		return status.Errorf(codes.Unavailable, "hand over: %v", err)
	}
	go r.run()
	return nil
}

// know registers a relay, unless the server stops.
func (s *Server) know(r *relay) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stopped {
		s.relays[r.token] = r
	}
	return !s.stopped
}

func (s *Server) forget(r *relay) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.relays, r.token)
	s.shrunk()
}

// run pumps both ways and ends the relay.
func (r *relay) run() {
	up := make(chan struct{})
	go func() {
		defer close(up)
		r.guard("carrying bytes to the far end", r.pumpUp)
	}()
	r.guard("carrying bytes from the far end", r.pumpDown)
	<-up
	r.end(nil, tellDaemon)
	<-r.ended
	// Closing with bytes unread would be a reset for the daemon (unix(7)) and
	// spoil a clean end. The deadline was set by end.
	_, _ = io.Copy(io.Discard, r.near)
	_ = r.near.Close()
	r.s.forget(r)
}

// guard runs one direction. An error or a panic ends the relay at once, and
// with it the other direction; nil leaves that one running.
func (r *relay) guard(doing string, pump func() error) {
	err := func() (err error) {
		defer func() {
			if p := recover(); p != nil {
				r.s.log.Error("the plugin panicked", "doing", doing, "conn", r.conn,
					"panic", fmt.Sprint(p), "stack", string(debug.Stack()))
				err = errors.New("the plugin panicked")
			}
		}()
		return pump()
	}()
	if err != nil {
		r.end(err, tellDaemon)
	}
}

// errDone ends a relay cleanly while the other direction still runs.
var errDone = errors.New("done")

// pumpUp carries the client's bytes to the far end.
func (r *relay) pumpUp() error {
	in, err := newWaitingReader(r.near)
	if err != nil {
		return err
	}
	for {
		err := in.next(func(b []byte) error {
			n, err := r.stream.Write(b)
			if err == nil && n < len(b) {
				err = io.ErrShortWrite
			}
			return err
		})
		if errors.Is(err, io.EOF) && !in.delivering {
			break
		}
		if err != nil {
			return err
		}
	}
	if err := r.confirmEOF(); err != nil {
		return err
	}
	if r.begun.Load() {
		return errDone
	}
	if err := r.stream.CloseWrite(); err != nil {
		return err
	}
	r.quiet.await()
	if r.quiet.awaiting() {
		r.expectTaking() // also of a write under way
	}
	return nil
}

// confirmEOF waits for the record that tells a client's end of file from a
// daemon that broke off or died.
func (r *relay) confirmEOF() error {
	timer := time.NewTimer(r.s.announce)
	defer timer.Stop()
	select {
	case <-r.eof:
		return nil
	case <-r.ended:
		return errDone
	case <-r.s.gone:
		// Records that came before the channel's end have been handled.
		select {
		case <-r.eof:
			return nil
		default:
			return errors.New("the daemon is gone")
		}
	case <-timer.C:
		return errors.New("the daemon closed the tunnel without announcing it")
	}
}

// pumpDown carries the far end's bytes to the client.
func (r *relay) pumpDown() error {
	if err := r.copyDown(); err != nil {
		return err
	}
	if r.s.plugin.Info.GetNoHalfClose() {
		return errDone
	}
	if err := r.s.channel.Send(pluginwire.Record{Kind: pluginwire.EOF, Token: r.token}, nil); err != nil {
		return err
	}
	return r.near.CloseWrite()
}

func (r *relay) copyDown() error {
	var size adaptiveSize
	for {
		more, err := r.copyDownOnce(&size)
		if err != nil || !more {
			return err
		}
	}
}

// copyDownOnce reads once from the far end, in a buffer that it gives back.
func (r *relay) copyDownOnce(size *adaptiveSize) (more bool, err error) {
	buf := size.buffer()
	defer size.giveBack(buf)
	n, err := r.stream.Read(*buf)
	if n > 0 {
		size.saw(n)
		if !r.quiet.enter() {
			return false, errDone
		}
		defer r.quiet.leave()
		if werr := r.deliver((*buf)[:n]); werr != nil {
			return false, fmt.Errorf("the client's side: %w", werr)
		}
	}
	if errors.Is(err, io.EOF) {
		return false, nil
	}
	return err == nil, err
}

// deliver writes the far end's bytes to the client. One that has ended its direction
// has to take some of them every takeTime: neither the far end, which cannot learn of
// that end, nor the quiet, which is none, would ever end the tunnel.
func (r *relay) deliver(b []byte) error {
	for {
		if r.quiet.awaiting() {
			r.expectTaking()
		}
		n, err := r.near.Write(b)
		b = b[n:]
		switch {
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return err
		case n == 0:
			return fmt.Errorf("it has ended its direction, and read nothing for %s", r.s.takeTime)
		}
	}
}

func (r *relay) expectTaking() { _ = r.near.SetWriteDeadline(time.Now().Add(r.s.takeTime)) }

// announced notes that the daemon's end of file is a clean one.
func (r *relay) announced() { r.eofed.Do(func() { close(r.eof) }) }

// end ends the relay once; later calls do nothing. A nil error or errDone is a
// clean end. It returns when the stream has been closed or aborted.
func (r *relay) end(reason error, tell bool) {
	if r.claim() {
		r.finish(reason, tell)
	}
}

// claim says whether the caller is the one to end the relay, by finish.
func (r *relay) claim() bool { return r.begun.CompareAndSwap(false, true) }

func (r *relay) finish(reason error, tell bool) {
	defer close(r.ended)
	r.quiet.stop()
	end := pluginwire.Record{Kind: pluginwire.End, Token: r.token}
	clean := reason == nil || errors.Is(reason, errDone)
	if !clean {
		end.Status, end.Text = pluginwire.StatusError, reason.Error()
		r.s.log.Debug("a relay tunnel was broken off", "conn", r.conn, "err", reason)
	}
	if tell {
		if err := r.s.channel.Send(end, nil); err != nil {
			r.s.log.Debug("cannot announce the end of a relay tunnel", "conn", r.conn, "err", err)
		}
	}
	if clean {
		_ = r.near.CloseWrite()
		_ = r.near.SetReadDeadline(time.Now().Add(r.s.announce))
	} else {
		_ = r.near.Close()
	}
	err := r.s.guard("ending a tunnel", func() error {
		if clean {
			return r.stream.Close()
		}
		r.stream.Abort(reason.Error())
		return nil
	})
	if err != nil {
		// Both directions have ended: nothing of the tunnel depends on it.
		r.s.log.Debug("closing a relay tunnel", "conn", r.conn, "err", err)
	}
}
