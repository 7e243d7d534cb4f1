package websocksemu

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tunneld/tunneld/internal/socks5"
	"github.com/tunneld/tunneld/plugins/websocks/internal/wire"
)

const (
	// dialTime bounds a connection to a target, lingerTime how long a client may
	// take to close after the server.
	dialTime   = 5 * time.Second
	lingerTime = 5 * time.Second
	// maxRequests bounds how often a refused client may try again on the same
	// connection, maxReads how many reads an Exchange keeps.
	maxRequests = 16
	maxReads    = 64
)

// The ends of a handshake that leads to no tunnel.
var (
	errStopped = errors.New("stopped by a fault")
	errRefused = errors.New("refused, and left open")
)

// conn is one client's connection. It is used by one goroutine, and by a second
// one that writes to stream once there is a tunnel.
type conn struct {
	server  *Server
	faults  Faults
	raw     *net.TCPConn
	secured *underTLS // nil over ws://
	stream  net.Conn  // raw, or TLS over it
	seen    *Exchange
	log     *slog.Logger
	in      *bufio.Reader
	out     *bufio.Writer
	tunnel  bool        // the handshake is over
	broken  atomic.Bool // by a close_notify
}

func (s *Server) serve(raw *net.TCPConn) {
	c := &conn{
		server: s, faults: *s.faults.Load(), raw: raw, stream: raw, seen: s.newExchange(),
		log: s.options.Log.With("remote", raw.RemoteAddr().String()),
	}
	c.in, c.out = bufio.NewReader(input{c}), bufio.NewWriter(output{c})
	target, err := c.handshake()
	switch {
	case err == nil:
		_ = raw.SetDeadline(time.Time{})
		c.log.Debug("connected", "target", target.target)
		c.run(target)
	case errors.Is(err, errStopped):
	case errors.Is(err, errRefused):
		_ = c.out.Flush()
		c.hang()
	default:
		c.log.Debug("handshake ended", "err", err)
		c.linger()
	}
}

// input reads from the connection, but first sends what is to be sent: so
// answers leave in one packet if what they answer came in one.
type input struct{ *conn }

func (i input) Read(b []byte) (int, error) {
	if err := i.out.Flush(); err != nil {
		return 0, err
	}
	if !i.tunnel {
		// A PONG is enough to stay.
		i.server.expect(i.raw)
	}
	n, err := i.stream.Read(b)
	if err == io.EOF && i.secured != nil && !i.secured.ended && !i.faults.CloseNotify {
		i.broken.Store(true)
	}
	if n > 0 && !i.tunnel {
		i.server.note(func() {
			if len(i.seen.Reads) < maxReads {
				i.seen.Reads = append(i.seen.Reads, slices.Clone(b[:n]))
			}
		})
	}
	return n, err
}

// output writes to the connection in the way that the faults say.
type output struct{ *conn }

func (o output) Write(b []byte) (int, error) {
	if o.faults.Delay > 0 {
		t := time.NewTimer(o.faults.Delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-o.server.done:
			return 0, net.ErrClosed
		}
	}
	if !o.faults.ByteAtATime {
		return o.stream.Write(b)
	}
	for i := range b {
		if _, err := o.stream.Write(b[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(b), nil
}

// handshake leads a client up to its tunnel, and returns the address to connect
// to, or the connection where there is one already.
func (c *conn) handshake() (destination, error) {
	for _, phase := range []struct {
		do   func() error
		then Step
	}{
		{func() error { return nil }, Accepted},
		{c.secure, Never},
		{c.upgrade, Upgraded},
		{c.frame, Framed},
		{c.greeting, Greeted},
	} {
		if err := phase.do(); err != nil {
			return destination{}, err
		}
		if err := c.stop(phase.then); err != nil {
			return destination{}, err
		}
	}
	d, err := c.connect()
	if err == nil {
		err = c.out.Flush()
	}
	if err == nil {
		err = c.stop(Connected)
	}
	if err != nil && d.conn != nil {
		c.server.serving.Drop(d.conn)
	}
	c.tunnel = true
	return d, err
}

// secure does the TLS handshake.
func (c *conn) secure() error {
	id := c.server.identity
	if id == nil {
		return nil
	}
	config := &tls.Config{Certificates: []tls.Certificate{id.loaded}, NextProtos: []string{"http/1.1"}}
	config.SetSessionTicketKeys([][32]byte{id.tickets})
	if !c.faults.TLS13 {
		config.MaxVersion = tls.VersionTLS12
	}
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		c.server.note(func() {
			c.seen.ServerName, c.seen.Protocols = hello.ServerName, slices.Clone(hello.SupportedProtos)
		})
		takesALPN := len(hello.SupportedProtos) == 0 || slices.Contains(hello.SupportedProtos, "http/1.1")
		if !c.faults.TLS13 && !(takesALPN && slices.Contains(hello.SupportedVersions, tls.VersionTLS12)) {
			c.hang()
			return nil, errStopped
		}
		return nil, nil
	}
	c.server.expect(c.raw)
	c.secured = &underTLS{TCPConn: c.raw}
	t := tls.Server(c.secured, config)
	c.stream = t
	if err := t.Handshake(); err != nil {
		return err
	}
	state := t.ConnectionState()
	c.server.note(func() { c.seen.TLSVersion, c.seen.Resumed = state.Version, state.DidResume })
	return nil
}

// upgrade answers requests until one is granted.
func (c *conn) upgrade() error {
	for range maxRequests {
		head, err := readHead(c.in)
		if err != nil {
			return err
		}
		now := c.server.options.Now().Add(c.faults.ClockOffset)
		q, status, why := check(head, c.server.options.Users, now)
		if c.faults.Status != 0 {
			status = c.faults.Status
		}
		early, _ := c.in.Discard(c.in.Buffered())
		c.server.note(func() { c.seen.Request, c.seen.Status, c.seen.Early = head, status, c.seen.Early+early })
		if status != http.StatusSwitchingProtocols {
			c.log.Debug("refused", "status", status, "err", why)
		}
		if err := c.stop(Requested); err != nil {
			return err
		}
		if c.faults.EndlessHeader {
			return c.endless()
		}
		if _, err := c.out.WriteString(c.faults.answer(q, status, why, now)); err != nil {
			return err
		}
		if err := c.out.Flush(); err != nil {
			return err
		}
		if status == http.StatusSwitchingProtocols {
			return nil
		}
	}
	return errRefused
}

// endless writes header lines until the client has had enough.
func (c *conn) endless() error {
	_, err := c.out.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	for err == nil {
		_, err = c.out.WriteString("X-More: " + strings.Repeat("a", 1000) + "\r\n")
	}
	return err
}

// frame reads the ten bytes, whatever is in them, and the PONGs before them.
func (c *conn) frame() error {
	pong := wire.Pong()
	for {
		b, err := c.in.Peek(len(pong))
		if err != nil {
			return err
		}
		if !bytes.Equal(b, pong[:]) {
			break
		}
		_, _ = c.in.Discard(len(pong))
		c.server.note(func() { c.seen.Pongs++ })
	}
	got := make([]byte, wire.FrameSize)
	if _, err := io.ReadFull(c.in, got); err != nil {
		return err
	}
	c.server.note(func() { c.seen.Frame = got })
	answer := wire.Frame()
	if c.faults.Frame != nil {
		_, err := c.out.Write(c.faults.Frame)
		return err
	}
	_, err := c.out.Write(answer[:])
	return err
}

// greeting agrees on no SOCKS authentication: HTTP's was it.
func (c *conn) greeting() error {
	methods, err := socks5.ReadGreeting(c.in)
	if err != nil {
		return err
	}
	method := socks5.Method(c.faults.Method)
	if !slices.Contains(methods, socks5.MethodNone) {
		method = socks5.MethodUnacceptable
	}
	if _, err := c.out.Write(socks5.AppendMethod(nil, method)); err != nil {
		return err
	}
	if method != socks5.MethodNone {
		c.log.Debug("refused", "answer", fmt.Sprintf("method %02x", byte(method)))
		return errRefused
	}
	return nil
}

// connect answers the request: with success, unless something is wrong with the
// request itself or a fault says otherwise.
func (c *conn) connect() (destination, error) {
	q, err := socks5.ReadRequest(c.in)
	var unknown *socks5.AddressTypeError
	switch {
	case errors.As(err, &unknown):
		return destination{}, c.refuse(socks5.AddressTypeNotSupported, 0)
	case err != nil:
		return destination{}, err
	}
	port := q.Address.Port
	c.server.note(func() { c.seen.Target = q.Address.String() })
	switch {
	case q.Command != socks5.Connect:
		return destination{}, c.refuse(socks5.CommandNotSupported, 0)
	case c.in.Buffered() > 0:
		return destination{}, c.refuse(socks5.GeneralFailure, port)
	case c.faults.Reply != 0:
		return destination{}, c.refuse(socks5.Code(c.faults.Reply), port)
	}
	d := destination{target: q.Address.String()}
	if d.address, err = c.server.resolve(q.Address); err != nil {
		c.log.Debug("name not resolved", "err", err)
		// The original's word for it, which RFC 1928 has for a rule.
		return d, c.refuse(socks5.NotAllowed, port)
	}
	if c.faults.DialAtOnce {
		if d.conn, err = c.server.dial(d); err != nil {
			return d, c.refuse(dialCode(err), port)
		}
	}
	b, err := socks5.AppendReply(nil, socks5.Reply{Bound: socks5.Address{Host: c.faults.Bound, Port: port}})
	if err != nil {
		return d, err
	}
	_, err = c.out.Write(append(b, c.faults.Ahead...))
	return d, err
}

// refuse writes a refusal: ten bytes, the port being the request's where the
// server has come as far as to read it.
func (c *conn) refuse(code socks5.Code, port uint16) error {
	b, err := socks5.AppendReply(nil, socks5.Reply{Code: code, Bound: socks5.Address{Port: port}})
	if err != nil {
		return err
	}
	if c.faults.ShortReply {
		b = b[:2]
	}
	if _, err := c.out.Write(b); err != nil {
		return err
	}
	c.log.Debug("refused", "answer", fmt.Sprintf("reply %02x", byte(code)), "target", c.seen.Target)
	return errRefused
}
