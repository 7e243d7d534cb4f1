package wsstream

import (
	"crypto/rand"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/gobwas/ws"
)

// maxPayload bounds the payload of one message that is sent, in bytes. A
// message of this size, its header and what TLS adds go out in one write.
const maxPayload = 64 << 10

// frames holds buffers for one frame, header in front of payload.
var frames = sync.Pool{New: func() any { b := make([]byte, ws.MaxHeaderSize+maxPayload); return &b }}

// writeFrame sends p, at most maxPayload bytes, as one frame.
func (c *Conn) writeFrame(op ws.OpCode, p []byte) error {
	c.write.Lock()
	defer c.write.Unlock()
	return c.writeLocked(op, p)
}

func (c *Conn) writeLocked(op ws.OpCode, p []byte) error {
	if c.sentClose && !op.IsControl() {
		return ErrWriteClosed
	}
	if op == ws.OpClose {
		if c.sentClose {
			return nil
		}
		c.sentClose = true
	}
	buf := frames.Get().(*[]byte)
	defer frames.Put(buf)
	frame, err := appendFrame((*buf)[:0], op, p)
	if err != nil {
		return err
	}
	if !op.IsControl() {
		c.sent += int64(len(p))
		c.lastData = time.Since(c.start)
	}
	_, err = c.conn.Write(frame)
	c.lastSent.Store(int64(time.Since(c.start)))
	if err != nil {
		if c.lost.Load() {
			return NoAnswerError(c.timeout)
		}
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// appendFrame appends p as one final, masked frame. Each frame has a key of its
// own from the system's random source (RFC 6455, 5.3).
func appendFrame(b []byte, op ws.OpCode, p []byte) ([]byte, error) {
	h := ws.Header{Fin: true, OpCode: op, Masked: true, Length: int64(len(p))}
	if _, err := rand.Read(h.Mask[:]); err != nil {
		return nil, fmt.Errorf("masking key: %w", err)
	}
	// The library encodes into its scratch space first, which is here the place
	// where the header belongs.
	at := len(b)
	b = slices.Grow(b, ws.MaxHeaderSize)
	if err := ws.WriteHeaderBuffer(io.Discard, h, b[at:at+ws.MaxHeaderSize]); err != nil {
		return nil, fmt.Errorf("frame header: %w", err)
	}
	b = b[:at+ws.HeaderSize(h)]
	at = len(b)
	b = append(b, p...)
	ws.Cipher(b[at:], h.Mask, 0)
	return b, nil
}
