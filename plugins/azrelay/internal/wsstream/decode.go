package wsstream

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/gobwas/ws"
)

// decoder takes frames apart. Its state between two reads is all there is: a
// header or a control frame that has come in part, and how much of the data
// frame under way is missing.
type decoder struct {
	header  [ws.MaxHeaderSize]byte
	have    int // bytes of header
	scratch [ws.MaxHeaderSize]byte
	reader  bytes.Reader

	left    int64 // payload of the data frame under way
	message bool  // a fragmented message is under way

	control ws.OpCode
	wanted  int    // payload of the control frame under way
	payload []byte // what has come of it; nil between control frames
}

// decode moves the data in b to its front and returns its length. control is
// called with each ping and pong; it may keep the payload. After a Close frame
// it returns io.EOF or a *CloseError, and the data before it.
func (d *decoder) decode(b []byte, control func(ws.OpCode, []byte)) (int, error) {
	data, at := 0, 0
	for at < len(b) || d.payload != nil && len(d.payload) == d.wanted {
		switch {
		case d.payload != nil:
			n := min(d.wanted-len(d.payload), len(b)-at)
			d.payload = append(d.payload, b[at:at+n]...)
			at += n
			if len(d.payload) < d.wanted {
				return data, nil
			}
			payload := d.payload
			d.payload = nil
			if d.control == ws.OpClose {
				return data, closed(payload)
			}
			control(d.control, payload)
		case d.left > 0:
			n := int(min(d.left, int64(len(b)-at)))
			if data != at {
				copy(b[data:], b[at:at+n])
			}
			data += n
			at += n
			d.left -= int64(n)
		default:
			n, err := d.parse(b[at:])
			if err != nil {
				return data, err
			}
			at += n
		}
	}
	return data, nil
}

// need returns how many bytes have to come before there is data: at least so
// many, of a header or a control frame. It is 0 within a data frame.
func (d *decoder) need() int {
	switch {
	case d.payload != nil:
		return d.wanted - len(d.payload)
	case d.left > 0:
		return 0
	}
	return headerSize(d.header[:d.have]) - d.have
}

// parse takes bytes of a header from b and, once it is whole, prepares for the
// payload. It returns how many bytes it took.
func (d *decoder) parse(b []byte) (int, error) {
	taken := 0
	for d.have < headerSize(d.header[:d.have]) {
		if taken == len(b) {
			return taken, nil
		}
		n := copy(d.header[d.have:headerSize(d.header[:d.have])], b[taken:])
		d.have += n
		taken += n
	}
	d.reader.Reset(d.header[:d.have])
	h, err := ws.ReadHeaderBuffer(&d.reader, d.scratch[:])
	d.have = 0
	if err != nil {
		return taken, fmt.Errorf("bad frame: %w", err)
	}
	state := ws.StateClientSide
	if d.message {
		state = state.Set(ws.StateFragmented)
	}
	if err := ws.CheckHeader(h, state); err != nil {
		return taken, fmt.Errorf("bad frame: %w", err)
	}
	if h.OpCode.IsControl() {
		d.control, d.wanted = h.OpCode, int(h.Length)
		d.payload = make([]byte, 0, d.wanted)
		return taken, nil
	}
	d.message = !h.Fin
	d.left = h.Length
	return taken, nil
}

// headerSize returns how long a header is, or how much of it is needed to know.
func headerSize(have []byte) int {
	if len(have) < ws.MinHeaderSize {
		return ws.MinHeaderSize
	}
	size := ws.MinHeaderSize
	switch have[1] & 0x7f {
	case 126:
		size += 2
	case 127:
		size += 8
	}
	if have[1]&0x80 != 0 {
		size += 4
	}
	return size
}

// closed returns what a Close frame's payload means: io.EOF for a clean end.
func closed(payload []byte) error {
	switch {
	case len(payload) == 0:
		return io.EOF
	case len(payload) == 1:
		return fmt.Errorf("bad frame: a Close frame's code of one byte")
	}
	code := int(binary.BigEndian.Uint16(payload))
	if code == CodeNormal {
		return io.EOF
	}
	return &CloseError{Code: code, Reason: string(payload[2:])}
}
