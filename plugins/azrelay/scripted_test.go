package azrelay_test

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/gobwas/ws"

	"github.com/tunneld/tunneld/internal/nettest"
)

// peer is a scripted far end, frame by frame: what the service forwards.
type peer struct {
	t    testing.TB
	conn *net.TCPConn
	br   *bufio.Reader
	req  *http.Request
	err  error // why frame found none
}

// scripted runs one far end for each connection: it answers the opening
// handshake, with ahead in the same packet, and leaves the rest to serve.
func scripted(t testing.TB, ahead []byte, serve func(*peer)) (endpoint string) {
	t.Helper()
	return "ws://" + nettest.Serve(t, func(c *net.TCPConn) {
		p := &peer{t: t, conn: c, br: bufio.NewReader(c)}
		var err error
		if p.req, err = http.ReadRequest(p.br); err != nil {
			t.Errorf("read request: %v", err)
			return
		}
		sum := sha1.Sum([]byte(p.req.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		head := fmt.Sprintf("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
			base64.StdEncoding.EncodeToString(sum[:]))
		if _, err := c.Write(append([]byte(head), ahead...)); err != nil {
			t.Errorf("write response: %v", err)
			return
		}
		serve(p)
	})
}

// plain is an upstream's body for a scripted far end.
func plain(endpoint string, over map[string]any) map[string]any {
	b := map[string]any{"endpoint": endpoint, "hybrid_connection": "hc1"}
	for k, v := range over {
		b[k] = v
	}
	return b
}

// send writes frames as they are.
func (p *peer) send(frames ...ws.Frame) {
	var b []byte
	for _, f := range frames {
		b = append(b, ws.MustCompileFrame(f)...)
	}
	if _, err := p.conn.Write(b); err != nil {
		p.t.Errorf("write frames: %v", err)
	}
}

// frame reads one frame and unmasks it; ok is false where the connection ends.
func (p *peer) frame() (f ws.Frame, ok bool) {
	h, err := ws.ReadHeader(p.br)
	if err != nil {
		p.err = err
		return f, false
	}
	if err := ws.CheckHeader(h, ws.StateServerSide); err != nil {
		p.t.Errorf("frame %+v: %v", h, err)
	}
	f = ws.Frame{Header: h, Payload: make([]byte, h.Length)}
	if _, p.err = io.ReadFull(p.br, f.Payload); p.err != nil {
		return f, false
	}
	return ws.UnmaskFrameInPlace(f), true
}

// want reads frames up to one with the opcode, and data before it.
func (p *peer) want(op ws.OpCode) (last ws.Frame, data []byte) {
	p.t.Helper()
	for {
		f, ok := p.frame()
		if !ok {
			p.t.Errorf("the connection ended before a frame with opcode %d", op)
			return f, data
		}
		if f.Header.OpCode == op {
			return f, data
		}
		if f.Header.OpCode.IsData() {
			data = append(data, f.Payload...)
		}
	}
}

// finish answers a Close and waits for the client to close.
func (p *peer) finish() {
	p.send(ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusNormalClosure, "")))
	_ = p.conn.CloseWrite()
	p.drain()
}

func (p *peer) drain() { _, _ = io.Copy(io.Discard, p.br) }

func closeFrame(code ws.StatusCode, reason string) ws.Frame {
	return ws.NewCloseFrame(ws.NewCloseFrameBody(code, reason))
}
