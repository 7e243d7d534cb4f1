// Package tunnel holds the types that the core's packages share: what to dial, what a
// dial returns, and how a tunnel ends. It imports none of its siblings.
package tunnel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/tunneld/tunneld/internal/bare"
	"github.com/tunneld/tunneld/internal/hostname"
	"github.com/tunneld/tunneld/internal/sockopt"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// Target is where a client wants to go: a name that nobody has resolved, in ASCII, an IP
// literal without brackets, or a label with port 0.
type Target struct {
	Host string
	Port uint16
}

// String returns "host:port", or the label alone.
func (t Target) String() string {
	if t.Port == 0 {
		return t.Host
	}
	return net.JoinHostPort(t.Host, strconv.Itoa(int(t.Port)))
}

// Shown is String for people: before a name beyond ASCII it has that as it is read.
func (t Target) Shown() string {
	ascii := t.String()
	if u := hostname.Unicode(t.Host); u != t.Host {
		return fmt.Sprintf("%s (%s)", Target{u, t.Port}, ascii)
	}
	return ascii
}

// SocketOptions are set on a TCP socket.
type SocketOptions = sockopt.Options

// Dial is what an upstream is asked for.
type Dial struct {
	Target Target
	// Source is the client's address, "host:port".
	Source string
	// Listener, Route and Connection name the connection in the log.
	Listener, Route, Connection string
	// Socket is for the sockets towards the far end.
	Socket SocketOptions
	// Allow says of an address that is about to be dialed whether the client that named the
	// target may reach it: nil, or why not. Upstreams that dial the target themselves ask
	// it; one whose far end dials cannot. Nil: the target is nobody's choice but the
	// configuration's.
	Allow func(netip.Addr) error
	// HalfClose is how long a plugin that keeps it lets a tunnel go on without a
	// byte from the far end once the client has ended its direction; 0: for ever.
	HalfClose time.Duration
}

// Dialer is one upstream of one generation of the configuration. Dial's errors
// are *DialError; it returns soon after ctx is done.
type Dialer interface {
	Dial(ctx context.Context, d Dial) (*Conn, error)
}

// Path is how a tunnel's bytes travel.
type Path = pluginv1.DataPath

// End is one side of a tunnel. Whoever holds it closes Socket or Stream.
type End struct {
	// Stream is a *net.TCPConn or *net.UnixConn, so that the pump can splice it, or
	// a wrapper with CloseWrite, whose bytes are copied. It is nil where there is a
	// Socket, which costs less. See UseStream.
	Stream net.Conn
	Socket *bare.Socket
	// Plugin is who handed the socket over, and may hold a copy of it; empty: nobody
	// has.
	Plugin string
	// ReadAhead are bytes from the peer that come before Stream's.
	ReadAhead []byte
	// Relay tells and learns how the tunnel ends; nil on the direct path, where
	// the socket itself does.
	Relay Relay
}

// Conn is the upstream's side of a tunnel.
type Conn struct {
	End
	Path Path
	// Local and Remote are the two ends of the connection towards the far end.
	Local, Remote string
	// Stages is how long each stage of the dial took.
	Stages []StageTime
}

// UseStream turns Socket into Stream, for callers that read and write it
// themselves. On an error Socket has been closed, and e has neither.
func (e *End) UseStream() error {
	if e.Socket == nil {
		return nil
	}
	s := e.Socket
	e.Socket = nil // also on an error: it is nobody's to close again
	stream, err := s.Conn()
	if err != nil {
		return err
	}
	e.Stream = stream
	return nil
}

// Abandon closes an end over which nothing was sent, and which nobody wants any
// more: closing it tells the peer all there is.
func (e *End) Abandon(reason string) {
	if e.Relay != nil {
		e.Relay.Abort(reason)
		defer e.Relay.Ended()
	}
	if e.Socket != nil {
		e.Socket.Close()
		return
	}
	_ = e.Stream.Close()
}

// ErrPluginDied is what a Relay's errors wrap where the process is gone without
// a word.
var ErrPluginDied = errors.New("the plugin died")

// Relay is the other process's word on a tunnel whose bytes it pumps: on a
// socketpair a crash and a clean end look alike.
type Relay interface {
	// AnnounceEOF is called before the write side of Stream is shut down.
	AnnounceEOF() error
	// ConfirmEOF is called after Stream's read returned io.EOF: nil if the
	// plugin had announced it. It waits for the announcement, bounded by
	// itself.
	ConfirmEOF() error
	// ConfirmEnd is called once both directions have ended: nil if the plugin
	// says that the tunnel ended cleanly. The plugin may still have bytes to
	// deliver, so it waits for its word, its death, Abort or ctx.
	ConfirmEnd(ctx context.Context) error
	// Abort is called before Stream is closed in any way but a clean one. It
	// ends a ConfirmEOF or ConfirmEnd under way. It blocks for a bounded time.
	Abort(reason string)
	// Ended is called after Stream was closed, exactly once.
	Ended()
}

// StageTime is how long one stage of a dial took.
type StageTime struct {
	Stage    pluginv1.Stage
	Duration time.Duration
}

// DialError is a failed dial: the one taxonomy, from the plugin to the client.
type DialError struct {
	Upstream string // "sapsocks.onprem"
	Stage    pluginv1.Stage
	Reason   pluginv1.Reason
	// Retryable says that the next upstream of the route is worth a try.
	Retryable bool
	Message   string
	Hint      string
	// Told, unless nil, is what the client is told in place of Message and Hint: these
	// have what only the log may.
	Told       *Told
	RetryAfter time.Duration
	Stages     []StageTime
	Err        error
}

// Told is what a client reads of a dial that has failed.
type Told struct{ Message, Hint string }

// ForClient is what the client is told.
func (e *DialError) ForClient() Told {
	if e.Told != nil {
		return *e.Told
	}
	return Told{e.Message, e.Hint}
}

// Error returns "dial upstream "sapsocks.onprem": connect: message".
func (e *DialError) Error() string {
	if e.Upstream == "" {
		return fmt.Sprintf("%s: %s", e.Stage.Text(), e.Message)
	}
	return fmt.Sprintf("dial upstream %q: %s: %s", e.Upstream, e.Stage.Text(), e.Message)
}

// Unwrap returns the cause.
func (e *DialError) Unwrap() error { return e.Err }

// Traffic counts the bytes of the tunnels that share it, each way: Up towards the
// upstream, Down towards the client. It is live: a tunnel that is open adds what
// it moved at least once a second.
type Traffic struct{ Up, Down Moved }

// Moved is bytes by how they were moved: inside the kernel, or through a buffer
// of the daemon; and for how long they waited for bandwidth, in nanoseconds.
type Moved struct{ Spliced, Copied, Paused atomic.Int64 }

// CloseReason is why a tunnel ended, as the log and the metrics name it.
type CloseReason string

// The reasons.
const (
	// CloseClientEOF and CloseUpstreamEOF: both directions ended cleanly, the
	// named side first.
	CloseClientEOF   CloseReason = "client_eof"
	CloseUpstreamEOF CloseReason = "upstream_eof"
	// CloseClientReset and CloseUpstreamReset: the named side broke off.
	CloseClientReset   CloseReason = "client_reset"
	CloseUpstreamReset CloseReason = "upstream_reset"
	// ClosePluginDied: the process that pumped a relay is gone.
	ClosePluginDied CloseReason = "plugin_died"
	// CloseIdle, CloseHalfClosed and CloseLifetime: a timeout of the listener.
	CloseIdle       CloseReason = "idle"
	CloseHalfClosed CloseReason = "half_close"
	CloseLifetime   CloseReason = "lifetime"
	// CloseDeadLine: a side's system has acknowledged nothing for minutes.
	CloseDeadLine CloseReason = "dead_line"
	// CloseKilled: the daemon ended it, at shutdown.
	CloseKilled CloseReason = "killed"
)
