package azrelayemu

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/gobwas/ws"
)

const (
	// maxListeners is how many listeners one hybrid connection takes, as the
	// service has it.
	maxListeners = 25
	// maxMessage bounds a message on a control channel, in bytes.
	maxMessage = 64 << 10
	// controlTime bounds a write on a control channel.
	controlTime = 10 * time.Second
)

// Close codes that the service sends.
const (
	codeNormal   = ws.StatusNormalClosure
	codeGone     = ws.StatusGoingAway
	codePolicy   = ws.StatusPolicyViolation
	codeProtocol = ws.StatusProtocolError
)

// control is a listener's control channel.
type control struct{ peer *peer }

// listen serves a listener's control channel until it ends.
func (s *Server) listen(p *peer, req *http.Request, e *entity, path string) {
	expires, no := s.authorize(requestToken(req), req.Host, e, path, Listen)
	if no != nil {
		s.refuse(p, path, no.status, no.text)
		return
	}
	c := &control{peer: p}
	// Known before the 101 is out, so that a listener which has it is found; an
	// offer waits for the lock.
	p.mu.Lock()
	s.mu.Lock()
	full := len(e.listeners) >= maxListeners
	if !full {
		e.listeners = append(e.listeners, c)
	}
	s.mu.Unlock()
	if full {
		p.mu.Unlock()
		s.refuse(p, path, http.StatusForbidden, "The maximum number of listeners is connected")
		return
	}
	err := s.upgrade(p, req, "", Faults{})
	p.mu.Unlock()
	if err == nil {
		err = s.control(c, req.Host, e, path, expires)
	}
	s.mu.Lock()
	e.listeners = slices.DeleteFunc(e.listeners, func(other *control) bool { return other == c })
	s.mu.Unlock()
	s.log.Debug("listener ended", "path", e.path, "err", err)
}

// control reads a listener's messages and ends the channel with its token.
func (s *Server) control(c *control, host string, e *entity, path string, expires time.Time) error {
	for {
		left := expires.Sub(s.options.Now())
		if err := c.peer.conn.SetReadDeadline(time.Now().Add(left)); err != nil {
			return fmt.Errorf("set deadline: %w", err)
		}
		op, payload, err := c.peer.readMessage()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return c.peer.sendClose(codePolicy, "The token is expired")
		case err != nil:
			return err
		case op == ws.OpPing:
			err = c.peer.sendFrame(ws.OpPong, payload)
		case op == ws.OpClose:
			return c.peer.sendClose(codeNormal, "")
		case op == ws.OpText || op == ws.OpBinary:
			var m struct {
				RenewToken *struct{ Token string }
			}
			if json.Unmarshal(payload, &m) != nil {
				return c.peer.sendClose(codeProtocol, "The message is not JSON")
			}
			if m.RenewToken == nil {
				continue
			}
			until, no := s.authorize(m.RenewToken.Token, host, e, path, Listen)
			if no != nil {
				return c.peer.sendClose(codePolicy, no.text)
			}
			expires = until
		}
		if err != nil {
			return err
		}
	}
}

// offer tells the listener of a sender.
func (c *control) offer(m acceptMessage) error {
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode offer: %w", err)
	}
	return c.peer.sendFrame(ws.OpText, b)
}

// sendFrame writes one whole frame to a client, within a bounded time.
func (p *peer) sendFrame(op ws.OpCode, payload []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return io.ErrClosedPipe
	}
	p.closed = op == ws.OpClose
	_ = p.conn.SetWriteDeadline(time.Now().Add(controlTime))
	if err := ws.WriteFrame(p.bw, ws.NewFrame(op, true, payload)); err != nil {
		return fmt.Errorf("write frame: %w", err)
	}
	if err := p.bw.Flush(); err != nil {
		return fmt.Errorf("write frame: %w", err)
	}
	return p.conn.SetWriteDeadline(time.Time{})
}

// sendClose sends Close; reason is cut to what a control frame holds.
func (p *peer) sendClose(code ws.StatusCode, reason string) error {
	return p.sendFrame(ws.OpClose, ws.NewCloseFrameBody(code, reason[:min(len(reason), ws.MaxControlFramePayloadSize-2)]))
}

// readMessage reads a control frame, or a whole message of any fragments.
// Control frames between fragments are an error: a control channel has none.
func (p *peer) readMessage() (ws.OpCode, []byte, error) {
	var op ws.OpCode
	var message []byte
	state := ws.StateServerSide
	for {
		h, err := ws.ReadHeader(p.br)
		if err != nil {
			return 0, nil, fmt.Errorf("read frame: %w", err)
		}
		if err := ws.CheckHeader(h, state); err != nil {
			return 0, nil, fmt.Errorf("read frame: %w", err)
		}
		if h.Length > maxMessage-int64(len(message)) {
			return 0, nil, fmt.Errorf("a message of more than %d bytes", maxMessage)
		}
		payload := make([]byte, h.Length)
		if _, err := io.ReadFull(p.br, payload); err != nil {
			return 0, nil, fmt.Errorf("read frame: %w", err)
		}
		ws.Cipher(payload, h.Mask, 0)
		if h.OpCode.IsControl() {
			if state.Fragmented() {
				return 0, nil, errors.New("a control frame within a message")
			}
			return h.OpCode, payload, nil
		}
		if h.OpCode != ws.OpContinuation {
			op = h.OpCode
		}
		message = append(message, payload...)
		if h.Fin {
			return op, message, nil
		}
		state = state.Set(ws.StateFragmented)
	}
}
