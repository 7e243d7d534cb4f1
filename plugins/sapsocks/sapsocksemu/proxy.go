package sapsocksemu

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/tunneld/tunneld/internal/socks5"
)

const (
	methodJWT socks5.Method = 0x80
	// maxJWT bounds the token that a client may announce.
	maxJWT = 1 << 20
	// patience bounds a handshake and the connection to a backend.
	patience = 30 * time.Second
	// apart is the time between the packets of Faults.Bytewise.
	apart = time.Millisecond
)

// errOver is a conversation that has ended as the faults want it.
var errOver = errors.New("over")

// client is one conversation.
type client struct {
	*net.TCPConn
	server  *Server
	said    *Conversation // only this goroutine writes; with the server's mu held
	request socks5.Request
	log     *slog.Logger
}

func (c *client) note(f func(*Conversation)) {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	f(c.said)
}

func (s *Server) serve(conn *net.TCPConn) {
	c := &client{TCPConn: conn, server: s, said: s.begin(), log: s.log.With("remote", conn.RemoteAddr().String())}
	_ = conn.SetDeadline(time.Now().Add(patience))
	backend, first, err := c.handshake()
	if err != nil {
		if !errors.Is(err, errOver) {
			c.log.Debug("handshake ended", "err", err)
		}
		return
	}
	defer s.serving.Drop(backend)
	bound := cmp.Or(s.now().Bound, backend.LocalAddr().String())
	if c.answer(StepRequest, append(reply(socks5.Succeeded, bound), first...)) != nil {
		return
	}
	_ = conn.SetDeadline(time.Time{})
	c.log.Debug("connected", "location", c.said.Location, "target", c.said.Target, "backend", backend.RemoteAddr().String())
	pipe(conn, backend)
}

// handshake reads and answers up to the request, which it answers where it
// refuses it.
func (c *client) handshake() (backend *net.TCPConn, first []byte, err error) {
	if err := c.greet(); err != nil {
		return nil, nil, err
	}
	refused := false
	if !c.server.options.Trusted {
		if refused, err = c.authenticate(); err != nil {
			return nil, nil, err
		}
	}
	request, err := socks5.ReadRequest(c)
	c.request = request
	if err != nil {
		var kind *socks5.AddressTypeError
		if errors.As(err, &kind) {
			return nil, nil, c.refuse(socks5.AddressTypeNotSupported)
		}
		return nil, nil, err
	}
	c.note(func(said *Conversation) { said.Target = request.Address.String() })
	if refused {
		return nil, nil, c.refuse(socks5.ConnectionRefused)
	}
	backend, code := c.reach()
	if code != socks5.Succeeded {
		return nil, nil, c.refuse(code)
	}
	if c.server.now().WithData {
		b := make([]byte, 4096)
		_ = backend.SetReadDeadline(time.Now().Add(patience))
		n, err := backend.Read(b)
		if err != nil {
			c.server.serving.Drop(backend)
			return nil, nil, err
		}
		_ = backend.SetReadDeadline(time.Time{})
		first = b[:n]
	}
	return backend, first, nil
}

func (c *client) greet() error {
	methods, err := socks5.ReadGreeting(c)
	if err != nil {
		return err
	}
	offered := make([]byte, len(methods))
	for i, m := range methods {
		offered[i] = byte(m)
	}
	c.note(func(said *Conversation) { said.Methods = offered })
	wanted := methodJWT
	if c.server.options.Trusted {
		wanted = socks5.MethodNone
	}
	chosen := wanted
	if !slices.Contains(methods, wanted) {
		chosen = socks5.MethodUnacceptable
	}
	if forced := c.server.now().Method; forced != nil {
		chosen = socks5.Method(*forced)
	}
	if err := c.answer(StepGreeting, socks5.AppendMethod(nil, chosen)); err != nil {
		return err
	}
	if chosen != wanted {
		c.log.Debug("refused", "answer", fmt.Sprintf("method %02x", byte(chosen)), "offered", fmt.Sprintf("% x", methods))
		return errOver
	}
	return nil
}

// authenticate says whether the reply is to carry a refusal.
func (c *client) authenticate() (refused bool, err error) {
	token, location, err := readJWT(c)
	if err != nil {
		return false, err
	}
	id, err := base64.StdEncoding.Strict().DecodeString(location)
	c.note(func(said *Conversation) { said.Token, said.Location = token, string(id) })
	f := c.server.now()
	status := f.AuthStatus
	if err == nil {
		err = c.server.verify(token)
	}
	if status == 0 && err != nil {
		status = 1
	}
	if status != 0 && f.RefuseByReply {
		refused, status = true, 0
	}
	if err := c.answer(StepAuth, []byte{1, status}); err != nil {
		return false, err
	}
	if status != 0 {
		c.log.Debug("refused", "answer", fmt.Sprintf("authentication status %02x", status), "err", err)
		return false, errOver
	}
	return refused, nil
}

// readJWT reads the message of method 0x80 and nothing behind it.
func readJWT(r io.Reader) (token, location string, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return "", "", err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if head[0] != 1 || n > maxJWT {
		return "", "", fmt.Errorf("authentication of version %d with a token of %d bytes", head[0], n)
	}
	b := make([]byte, n+1)
	if _, err := io.ReadFull(r, b); err != nil {
		return "", "", err
	}
	l := make([]byte, b[n])
	_, err = io.ReadFull(r, l)
	return string(b[:n]), string(l), err
}

// reach connects to the backend that the request's virtual host and port are
// mapped to.
func (c *client) reach() (*net.TCPConn, socks5.Code) {
	s := c.server
	if code := socks5.Code(s.now().Reply); code != socks5.Succeeded {
		return nil, code
	}
	if c.request.Command != socks5.Connect {
		return nil, socks5.CommandNotSupported
	}
	if ip, err := netip.ParseAddr(c.request.Address.Host); err == nil && !ip.Is4() {
		return nil, socks5.AddressTypeNotSupported
	}
	s.mu.Lock()
	mappings, connected := s.connectors[c.said.Location]
	real, mapped := mappings[c.request.Address.String()]
	s.mu.Unlock()
	switch {
	case !connected:
		return nil, socks5.NetworkUnreachable
	case !mapped:
		return nil, socks5.NotAllowed
	}
	conn, err := net.DialTimeout("tcp", real, patience)
	if err != nil {
		return nil, socks5.HostUnreachable
	}
	backend := conn.(*net.TCPConn)
	if !s.serving.Add(backend) {
		return nil, socks5.GeneralFailure
	}
	return backend, socks5.Succeeded
}

func (c *client) refuse(code socks5.Code) error {
	c.note(func(said *Conversation) { said.Reply = byte(code) })
	c.log.Debug("refused", "answer", fmt.Sprintf("reply %02x", byte(code)), "location", c.said.Location, "target", c.said.Target)
	b := reply(code, "0.0.0.0:0")
	f := c.server.now()
	if f.ShortReply || f.HalfReply {
		b = b[:2]
	}
	if err := c.answer(StepRequest, b); err != nil {
		return err
	}
	if f.HalfReply {
		c.wait()
	}
	return errOver
}

// answer sends one answer, as well as the faults let it.
func (c *client) answer(step Step, b []byte) error {
	f := c.server.now()
	if f.Delay > 0 && !c.server.pause(f.Delay) {
		return errOver
	}
	switch step {
	case f.Silent:
		c.log.Debug("fault", "at", step.String(), "does", "stay silent")
		c.wait()
		return errOver
	case f.CloseAt:
		c.log.Debug("fault", "at", step.String(), "does", "close", "reset", f.Reset)
		if f.Reset {
			_ = c.SetLinger(0)
		}
		return errOver
	case f.Garbage:
		c.log.Debug("fault", "at", step.String(), "does", "answer as a web server")
		b = []byte("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
	}
	if !f.Bytewise {
		_, err := c.Write(b)
		return err
	}
	for i := range b {
		if _, err := c.Write(b[i : i+1]); err != nil {
			return err
		}
		if !c.server.pause(apart) {
			return errOver
		}
	}
	return nil
}

// wait lets the client wait: until it closes, or Close.
func (c *client) wait() {
	_ = c.SetDeadline(time.Time{})
	_, _ = io.Copy(io.Discard, c.TCPConn)
}

// pause waits; false: the server is closing.
func (s *Server) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.closing:
		return false
	}
}

func reply(code socks5.Code, bound string) []byte {
	host, port, _ := net.SplitHostPort(bound)
	n, _ := strconv.ParseUint(port, 10, 16)
	b, err := socks5.AppendReply(nil, socks5.Reply{Code: code, Bound: socks5.Address{Host: host, Port: uint16(n)}})
	if err != nil {
		// A fault's address that SOCKS cannot carry: any other will do.
		return append([]byte{socks5.Version, byte(code)}, bytes.Repeat([]byte{1}, 8)...)
	}
	return b
}

// pipe carries both directions to their ends: an end of file is passed on as
// one, anything else as a reset.
func pipe(a, b *net.TCPConn) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		half(a, b)
	}()
	half(b, a)
	<-done
}

// buffers are those of half: a new one for each tunnel would cost more than the
// tunnel.
var buffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

func half(dst, src *net.TCPConn) {
	buf := buffers.Get().(*[32 << 10]byte)
	defer buffers.Put(buf)
	// The wrappers keep the runtime from splicing: an idle tunnel would hold two
	// pipes, four descriptors more.
	_, err := io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, buf[:])
	if err == nil {
		err = dst.CloseWrite()
	}
	if err != nil {
		_, _ = dst.SetLinger(0), src.SetLinger(0)
		_, _ = dst.Close(), src.Close()
	}
}
