// Package wsstream is a byte stream inside a WebSocket (RFC 6455) as Azure Relay's
// peers use it: binary messages without meaningful borders, and a Close frame as TCP's
// FIN. It is the client's side, which masks. It makes no connection.
package wsstream

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gobwas/ws"

	"github.com/tunneld/tunneld/internal/tlsconf"
)

// The Close codes that mean something here (RFC 6455, 7.4.1).
const (
	// CodeNormal is the end of a direction, as a Close without a code is.
	CodeNormal = 1000
	// CodeGone says that the hybrid connection was deleted.
	CodeGone = 1001
	// CodePolicy says that the token has expired.
	CodePolicy = 1008
	// CodeInternal is an error in the service.
	CodeInternal = 1011
)

// lingerTime bounds the wait for the peer to close the transport, which is the
// server's to do first (RFC 6455, 7.1.1). What is on its way then leaves all
// the same, unless the peer sends more.
const lingerTime = 10 * time.Second

// maxLinger bounds what is read and thrown away meanwhile, in bytes.
const maxLinger = 1 << 20

var (
	// ErrNoClose says that the transport ended without a Close frame.
	ErrNoClose = errors.New("the connection ended without a Close frame")
	// ErrWriteClosed says that a write came after CloseWrite.
	ErrWriteClosed = errors.New("write after the direction was closed")
	// ErrClosed says that the stream was closed or aborted on this side.
	ErrClosed = errors.New("the stream is closed")
)

// CloseError is a Close frame that does not end a direction cleanly. Reason is the
// peer's, as Options.Quote returns it.
type CloseError struct {
	Code   int
	Reason string
}

// Error says what the code means where the service gives it a meaning.
func (e *CloseError) Error() string {
	s := fmt.Sprintf("closed by the far end with code %d", e.Code)
	switch e.Code {
	case CodeGone:
		s += " (the hybrid connection was deleted)"
	case CodePolicy:
		s += " (the token has expired)"
	case CodeInternal:
		s += " (error in the service)"
	}
	if e.Reason != "" {
		s += fmt.Sprintf(": %q", e.Reason)
	}
	return s
}

// Options is what New needs; Conn is required.
type Options struct {
	// Conn is the connection after the opening handshake: TCP, or TLS as NewTLS
	// makes it.
	Conn net.Conn
	// Socket is the TCP connection at the bottom, which Abort resets. Nil: Conn.
	Socket net.Conn
	// Ahead is what the handshake read too far.
	Ahead []byte
	// Ping is how long either direction may be silent before a ping goes out;
	// 0: no pings.
	Ping time.Duration
	// PingTimeout is how long a ping may stay unanswered until Read fails with a
	// NoAnswerError; 0: for ever.
	PingTimeout time.Duration
	// Quote makes a Close frame's reason, which the peer has written, fit for an
	// error's text; nil: it is left out.
	Quote func(string) string
}

// Conn is the stream. One goroutine reads while another writes; CloseWrite
// comes from the writing one, Close and Abort from anywhere.
type Conn struct {
	conn   net.Conn
	socket net.Conn
	tls    *tlsconf.Conn // conn, if NewTLS has made it, else nil

	ahead   []byte
	head    [ws.MaxHeaderSize]byte // where headers are read to, over TLS
	decoder decoder
	readErr error

	write     sync.Mutex // held for a whole frame
	sentClose bool       // under write
	sent      int64      // under write: bytes of data
	lastData  time.Duration

	start    time.Time
	lastRead atomic.Int64 // time since start
	lastSent atomic.Int64
	waiting  atomic.Int64 // since when Read waits for the peer; notWaiting: it does not
	gotClose atomic.Bool
	lost     atomic.Bool // a ping was not answered
	ping     time.Duration
	timeout  time.Duration
	quote    func(string) string

	mu       sync.Mutex // guards what follows
	closed   bool
	timer    *time.Timer
	pinged   time.Duration // when the ping was sent that is not answered yet; 0: none
	mark     int64         // how much had been sent by then
	taken    int64         // how much the peer has taken for certain: mark of a ping that was answered
	pong     []byte        // the newest ping that is not answered yet
	ponging  bool
	controls sync.WaitGroup // goroutines that send pings and pongs
}

// New takes over o.Conn.
func New(o Options) *Conn {
	c := &Conn{conn: o.Conn, socket: o.Socket, ahead: o.Ahead, ping: o.Ping, timeout: o.PingTimeout, quote: o.Quote, start: time.Now()}
	c.waiting.Store(notWaiting)
	if c.socket == nil {
		c.socket = o.Conn
	}
	if t, ok := o.Conn.(*tlsconf.Conn); ok {
		c.tls = t
		t.Bulk()
	}
	c.linger(0)
	if c.ping > 0 {
		c.mu.Lock()
		c.timer = time.AfterFunc(c.ping, c.tick)
		c.mu.Unlock()
	}
	return c
}

// Read reads the stream's bytes, whatever messages carry them. It returns
// io.EOF after a Close frame that is a clean end, a *CloseError after any
// other, and ErrNoClose where the transport ends without one. It decodes in p,
// so that an idle stream holds no buffer, and answers pings on the way.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for c.readErr == nil {
		if m := c.readOnce(c.conn.Read, p); m > 0 {
			return m + c.readHere(p[m:]), nil
		}
	}
	return 0, c.readErr
}

// readHere reads what is here already, for one large write at the other side.
func (c *Conn) readHere(p []byte) int {
	m := 0
	for c.tls != nil && m < len(p) && c.readErr == nil && c.tls.HasData() {
		m += c.readOnce(c.tls.ReadNow, p[m:])
	}
	return m
}

// readOnce reads once and decodes. What ends the stream goes into readErr.
func (c *Conn) readOnce(read func([]byte) (int, error), p []byte) int {
	var n int
	var err error
	c.waiting.Store(int64(time.Since(c.start)))
	switch need := c.decoder.need(); {
	case len(c.ahead) > 0:
		n = copy(p, c.ahead)
		if c.ahead = c.ahead[n:]; len(c.ahead) == 0 {
			c.ahead = nil
		}
	case c.tls == nil:
		n, err = read(p)
	case need > 0:
		// A TLS record is in memory: a header by itself costs no call, and the
		// data after it need not be moved to where the header was.
		p = c.head[:min(need, len(c.head))]
		n, err = read(p)
	default:
		n, err = read(p[:min(c.decoder.left, int64(len(p)))])
	}
	c.waiting.Store(notWaiting)
	c.lastRead.Store(int64(time.Since(c.start)))
	m, derr := c.decoder.decode(p[:n], c.answer)
	switch {
	case derr != nil:
		c.readErr = derr
		var closed *CloseError
		if errors.As(derr, &closed) {
			closed.Reason = c.quoted(closed.Reason)
		}
		if derr == io.EOF {
			c.gotClose.Store(true)
		}
	case errors.Is(err, syscall.EAGAIN): // there is no more now
	case err != nil && c.lost.Load():
		c.readErr = NoAnswerError(c.timeout)
	case err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF):
		c.readErr = ErrNoClose
	case err != nil:
		c.readErr = fmt.Errorf("read: %w", err)
	}
	return m
}

func (c *Conn) quoted(reason string) string {
	if c.quote == nil {
		return ""
	}
	return c.quote(reason)
}

// Write sends p as binary messages and returns once they are the transport's.
// An empty p sends nothing: an empty message means end of file to azbridge.
func (c *Conn) Write(p []byte) (int, error) {
	for n := 0; n < len(p); {
		chunk := p[n:min(n+maxPayload, len(p))]
		if err := c.writeFrame(ws.OpBinary, chunk); err != nil {
			return n, err
		}
		n += len(chunk)
	}
	return len(p), nil
}

// CloseWrite sends Close with code 1000, which ends this direction alone.
func (c *Conn) CloseWrite() error {
	return c.writeFrame(ws.OpClose, ws.NewCloseFrameBody(ws.StatusNormalClosure, ""))
}

// Close closes the transport. Where both directions have ended it waits for the
// peer to close first, for at most ten seconds, so that nothing on the way is
// lost to a reset.
func (c *Conn) Close() error {
	if !c.shut() {
		return nil
	}
	if c.gotClose.Load() && c.ended() {
		if c.socket.SetReadDeadline(time.Now().Add(lingerTime)) == nil {
			_, _ = io.CopyN(io.Discard, c.socket, maxLinger)
		}
	}
	c.linger(-1)
	err := c.conn.Close()
	c.controls.Wait()
	if err != nil {
		return fmt.Errorf("close: %w", err)
	}
	return nil
}

// Socket returns the connection at the bottom, for looks at it.
func (c *Conn) Socket() net.Conn { return c.socket }

// linger sets SO_LINGER where the transport is TCP: 0 until Close, so that the far
// end is reset also where this process is killed.
func (c *Conn) linger(seconds int) {
	if tcp, ok := c.socket.(interface{ SetLinger(sec int) error }); ok {
		_ = tcp.SetLinger(seconds) // it fails on a connection that is reset already
	}
}

// Abort resets the transport, without a Close frame and without TLS's
// close_notify: the far end cannot take it for a clean end.
func (c *Conn) Abort() {
	if !c.shut() {
		return
	}
	c.cut()
	c.controls.Wait()
}

// cut resets the transport.
func (c *Conn) cut() {
	c.linger(0)
	_ = c.socket.Close()
}

// shut keeps new pings and pongs from starting. It returns false where the
// stream was shut before.
func (c *Conn) shut() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.closed = true
	if c.timer != nil {
		c.timer.Stop()
	}
	return true
}

func (c *Conn) ended() bool {
	c.write.Lock()
	defer c.write.Unlock()
	return c.sentClose
}
