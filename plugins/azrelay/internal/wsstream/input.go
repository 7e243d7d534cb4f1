package wsstream

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"syscall"
)

// inputSize is what is read from the socket at once: the records of a frame of
// 64 KiB, in bytes.
const inputSize = 72 << 10

// inputs holds the buffers of sockets that have something to read.
var inputs = sync.Pool{New: func() any { b := make([]byte, inputSize); return &b }}

// recordHeader is the length of a TLS record's header (RFC 8446, 5.1).
const recordHeader = 5

// errNoMore says that a read would have to wait. crypto/tls takes it for a
// passed deadline and goes on from there in the next read.
var errNoMore net.Error = noMore{}

type noMore struct{}

func (noMore) Error() string   { return "nothing more to read without waiting" }
func (noMore) Timeout() bool   { return true }
func (noMore) Temporary() bool { return true }

// input reads a socket for crypto/tls in large pieces. By itself crypto/tls
// makes a call for each record, and what reads from it gets each record alone.
//
// It holds a buffer only while there are bytes in it. It hands out one record
// at a time: crypto/tls keeps what it is given in a buffer that grows and never
// shrinks.
type input struct {
	raw  syscall.RawConn
	buf  *[]byte // nil: empty
	r, w int
	// here has a read end with errNoMore rather than wait.
	here bool

	header [recordHeader]byte
	have   int // bytes of header
	left   int // bytes of the record's body
}

func (in *input) Read(p []byte) (int, error) {
	if in.buf == nil {
		if in.here {
			return 0, errNoMore
		}
		n, err := in.fill()
		if err != nil {
			return 0, err
		}
		if n == 0 {
			return 0, io.EOF
		}
		in.r, in.w = 0, n
	}
	b := (*in.buf)[in.r:in.w]
	n := 0
	if in.left == 0 {
		n = min(recordHeader-in.have, len(b), len(p))
		in.have += copy(in.header[in.have:], b[:n])
		if in.have == recordHeader {
			in.have, in.left = 0, int(binary.BigEndian.Uint16(in.header[3:]))
		}
	}
	body := min(in.left, len(b)-n, len(p)-n)
	in.left -= body
	n += body
	copy(p, b[:n])
	if in.r += n; in.r == in.w {
		inputs.Put(in.buf)
		in.buf = nil
	}
	return n, nil
}
