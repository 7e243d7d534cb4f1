package tlsconf

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tunneld/tunneld/internal/bare"
)

const (
	// recordHeader is the length of a record's header, and inputSize what is read from
	// the socket at once: the records of 64 KiB, in bytes (RFC 8446, section 5).
	recordHeader = 5
	inputSize    = 72 << 10
	// recordAlert is the type of a record with an alert, and alertSize what one in the
	// clear takes (RFC 8446, section 6).
	recordAlert = 0x15
	alertSize   = recordHeader + 2
	// maxContent is the most that a record may say it has, in bytes (RFC 5246, section
	// 6.2.3). Of one that says more crypto/tls tells.
	maxContent = maxPlaintext + 2<<10
	// maxQuiet bounds the records that a client may send after its handshake without a byte
	// of data, apart from the one under way: new keys of TLS 1.3, empty records, parts of
	// a message. crypto/tls bounds the number of whole ones, and lets a message grow
	// to 256 KiB, which it holds until the rest has come.
	maxQuiet = 16 << 10
)

// overflow begins a record that is too long. crypto/tls answers it with the alert
// record_overflow, whatever the state and the keys are; it has no call that sends an alert
// of the caller's choice.
var overflow = [recordHeader]byte{0x16, 3, 3, 0xff, 0xff}

// errQuiet ends a connection whose peer sends much and says nothing.
var errQuiet = fmt.Errorf("more than %d bytes of TLS came without any data", maxQuiet)

// inputs holds the buffers of sockets that have something to read, and batches those of
// the records of one write.
var (
	inputs  = sync.Pool{New: func() any { b := make([]byte, inputSize); return &b }}
	batches = sync.Pool{New: func() any { b := make([]byte, 0, inputSize); return &b }}
)

// floor is what lies between crypto/tls and its connection. In bulk it reads a socket in
// large pieces, where crypto/tls makes a call for each record, and writes so, too.
//
// It holds a buffer only while there are bytes in it. It hands out one record at a time:
// crypto/tls keeps what it is given in a buffer that grows and never shrinks. So it can
// refuse a record before crypto/tls has any of it.
type floor struct {
	net.Conn
	strict bool
	raw    syscall.RawConn // nil: it is not a socket, as behind a proxy's TLS

	// closing: the deadlines of writes are crypto/tls's own. It gives an alert five
	// seconds, and a peer that is slow to read has not taken what was written before.
	closing atomic.Bool
	mu      sync.Mutex
	batch   *[]byte // nil: writes pass through
	broken  error   // of a batch that was not written

	// What follows is the reader's.
	ahead []byte         // was read already
	meter *Meter         // nil: no handshake is measured
	alert tls.AlertError // that came in the clear; 0: none
	bulk  bool           // reads go through buf
	now   bool           // a read that would wait ends with syscall.EAGAIN
	buf   *[]byte        // nil: empty
	r, w  int            // of buf
	ended error          // with which await has met; the next read returns it
	// eof: the socket has ended.
	eof bool
	// awaited: await was called for what is no socket, and nothing was read since.
	awaited bool
	header  [recordHeader]byte
	have    int // bytes of header
	left    int // bytes of the record's content
	// bounded: quiet is bounded, which is what was handed out since crypto/tls had data.
	bounded bool
	quiet   int
	refused error // nil: nothing was
}

func newFloor(conn net.Conn, ends Ends) *floor {
	f := &floor{Conn: conn, strict: ends.Strict}
	if s, ok := conn.(syscall.Conn); ok {
		f.raw, _ = s.SyscallConn() // an error: it is closed, and a read says so
	}
	return f
}

// Read implements net.Conn.
func (f *floor) Read(b []byte) (n int, err error) {
	switch {
	case f.refused != nil:
		return 0, f.refused
	case f.bulk && f.raw != nil && len(f.ahead) == 0:
		n, err = f.readBulk(b)
	default:
		n, err = f.readRecord(b)
	}
	f.quiet += n
	f.eof = f.eof || err == io.EOF
	if f.strict {
		err = truncated(err)
	}
	return n, err
}

// readRecord reads what lies ahead, or else the socket, and leaves what is behind the record
// for the next time. In a handshake it waits for all of a record's header.
func (f *floor) readRecord(b []byte) (n int, err error) {
	begins, least := f.begins(), 1
	if f.meter != nil && begins {
		least = min(recordHeader, len(b))
	}
	n = copy(b, f.ahead)
	known := n
	for n < least && err == nil {
		var more int
		more, err = f.Conn.Read(b[n:])
		n += more
		if f.meter != nil && more > 0 {
			if held := f.meter.Bytes(more); held != nil {
				return 0, held
			}
		}
	}
	if f.refuses(b[:n]) {
		return copy(b, overflow[:]), nil
	}
	one := f.next(b[:n], n)
	if begins && one == alertSize && b[0] == recordAlert && binary.BigEndian.Uint16(b[3:]) == alertSize-recordHeader {
		f.alert = tls.AlertError(b[one-1])
	}
	if n == known {
		f.ahead = f.ahead[one:]
	} else {
		f.ahead = bytes.Clone(b[one:n])
	}
	if len(f.ahead) == 0 {
		f.ahead = nil
	}
	return one, err
}

// begins says whether what is handed out next begins a record.
func (f *floor) begins() bool { return f.have == 0 && f.left == 0 }

// refuses says whether a record that begins so is not handed out, and neither is anything
// behind it.
func (f *floor) refuses(b []byte) bool {
	switch {
	case !f.begins():
	case f.meter != nil && len(b) >= recordHeader:
		if content := int(binary.BigEndian.Uint16(b[3:])); content <= maxContent {
			f.refused = f.meter.Record(recordHeader + content)
		}
	case f.bounded && f.quiet > maxQuiet:
		f.refused = errQuiet
	}
	return f.refused != nil
}

// next returns how many bytes of b, and of at most limit, are those of the record that is
// under way or begins.
func (f *floor) next(b []byte, limit int) (n int) {
	limit = min(limit, len(b))
	if f.left == 0 {
		n = min(recordHeader-f.have, limit)
		if f.have += copy(f.header[f.have:], b[:n]); f.have < recordHeader {
			return n
		}
		f.have, f.left = 0, int(binary.BigEndian.Uint16(f.header[3:]))
	}
	content := min(f.left, limit-n)
	f.left -= content
	return n + content
}

func (f *floor) readBulk(b []byte) (int, error) {
	switch {
	case f.buf != nil:
	case f.ended != nil:
		err := f.ended
		f.ended = nil
		return 0, err
	case f.now:
		// crypto/tls takes it for an error that passes, as it does a deadline, and
		// goes on in the next read where it was.
		return 0, syscall.EAGAIN
	default:
		if err := f.fill(); err != nil {
			return 0, err
		}
	}
	if f.refuses((*f.buf)[f.r:f.w]) {
		inputs.Put(f.buf)
		f.buf = nil
		return copy(b, overflow[:]), nil
	}
	n := f.next((*f.buf)[f.r:f.w], len(b))
	copy(b, (*f.buf)[f.r:f.r+n])
	if f.r += n; f.r == f.w {
		inputs.Put(f.buf)
		f.buf = nil
	}
	return n, nil
}

// fill waits for bytes, with a buffer only once there are some.
func (f *floor) fill() (err error) {
	n := 0
	waitErr := f.raw.Read(func(fd uintptr) bool {
		f.buf = inputs.Get().(*[]byte)
		if n, err = bare.Read(fd, *f.buf); n > 0 {
			return true
		}
		inputs.Put(f.buf)
		f.buf = nil
		return !errors.Is(err, syscall.EAGAIN)
	})
	switch {
	case waitErr != nil:
		return waitErr
	case err == io.EOF:
		return io.EOF
	case err != nil:
		return &net.OpError{Op: "read", Net: "tcp", Source: f.LocalAddr(), Addr: f.RemoteAddr(), Err: err}
	}
	f.r, f.w = 0, n
	return nil
}

// await leaves it to crypto/tls what an end or an error means: it may hold a part of a
// record.
func (f *floor) await() error {
	f.awaited = true
	if f.raw == nil || f.buf != nil || f.ended != nil || len(f.ahead) > 0 {
		return nil
	}
	err := f.fill()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	f.ended = err
	return nil
}

// Write implements net.Conn.
func (f *floor) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.broken != nil:
		return 0, f.broken
	case f.batch == nil:
		return f.Conn.Write(b)
	}
	*f.batch = append(*f.batch, b...)
	return len(b), nil
}

// begin has writes gathered until flush.
func (f *floor) begin() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.batch = batches.Get().(*[]byte)
}

func (f *floor) flush() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.batch
	f.batch = nil
	if f.broken == nil && len(*b) > 0 {
		_, f.broken = f.Conn.Write(*b) // crypto/tls believes that they are written
	}
	*b = (*b)[:0]
	batches.Put(b)
	return f.broken
}

// SetWriteDeadline implements net.Conn.
func (f *floor) SetWriteDeadline(t time.Time) error {
	if f.closing.Load() {
		return nil
	}
	return f.Conn.SetWriteDeadline(t)
}

// NetConn returns the connection beneath.
func (f *floor) NetConn() net.Conn { return f.Conn }
