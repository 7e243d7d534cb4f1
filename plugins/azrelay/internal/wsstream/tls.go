package wsstream

import (
	"crypto/tls"
	"net"
	"sync"
	"time"
)

// TLS is a TLS client connection that writes the records of one frame at once
// and reads as many as there are.
type TLS struct {
	*tls.Conn
	batch *batcher
}

// NewTLS wraps conn, without a handshake yet. config is not changed.
func NewTLS(conn net.Conn, config *tls.Config) *TLS {
	// The default starts with records of one packet, for pages that a browser
	// renders while they load; a frame is worth nothing until it is whole.
	config = config.Clone()
	config.DynamicRecordSizingDisabled = true
	b := &batcher{Conn: conn, input: newInput(conn)}
	return &TLS{Conn: tls.Client(b, config), batch: b}
}

// batches holds buffers for the records of one frame.
var batches = sync.Pool{New: func() any { b := make([]byte, 0, maxPayload+1024); return &b }}

// batcher gathers what is written between begin and flush. crypto/tls writes
// each record by itself: with a frame of 64 KiB that is five calls, and five
// wake-ups at the far end.
type batcher struct {
	net.Conn
	input *input // nil: reads pass through

	mu  sync.Mutex
	buf *[]byte // nil: writes pass through
}

func (b *batcher) Read(p []byte) (int, error) {
	if b.input == nil {
		return b.Conn.Read(p)
	}
	return b.input.Read(p)
}

func (b *batcher) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.buf == nil {
		return b.Conn.Write(p)
	}
	*b.buf = append(*b.buf, p...)
	return len(p), nil
}

func (b *batcher) begin() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buf = batches.Get().(*[]byte)
}

func (b *batcher) flush() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	buf := b.buf
	b.buf = nil
	_, err := b.Conn.Write(*buf)
	*buf = (*buf)[:0]
	batches.Put(buf)
	return err
}

// send writes one frame in one call.
func (c *Conn) send(frame []byte) error {
	defer func() { c.lastSent.Store(int64(time.Since(c.start))) }()
	if c.batch == nil {
		_, err := c.conn.Write(frame)
		return err
	}
	c.batch.begin()
	_, err := c.conn.Write(frame)
	if flushErr := c.batch.flush(); err == nil {
		err = flushErr
	}
	return err
}
