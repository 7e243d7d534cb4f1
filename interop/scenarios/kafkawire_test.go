//go:build interop

package interop

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// maxMessage bounds a request to an emulated broker.
const maxMessage = 1 << 20

// The requests that the emulated brokers answer, in one version each: the
// lowest that the clients still speak together with record batches. The numbers
// are those of Kafka's protocol guide.
const (
	apiProduce         = 0
	apiFetch           = 1
	apiListOffsets     = 2
	apiMetadata        = 3
	apiOffsetCommit    = 8
	apiOffsetFetch     = 9
	apiFindCoordinator = 10
	apiJoinGroup       = 11
	apiHeartbeat       = 12
	apiLeaveGroup      = 13
	apiSyncGroup       = 14
	apiVersions        = 18
)

var kafkaVersions = map[int16]int16{
	apiProduce: 3, apiFetch: 4, apiListOffsets: 1, apiMetadata: 1, apiOffsetCommit: 2, apiOffsetFetch: 1,
	apiFindCoordinator: 0, apiJoinGroup: 0, apiHeartbeat: 0, apiLeaveGroup: 0, apiSyncGroup: 0, apiVersions: 0,
}

// Error codes.
const (
	codeUnknownTopic       = 3
	codeNotLeader          = 6
	codeNotCoordinator     = 16
	codeUnsupportedVersion = 35
)

var errShort = errors.New("the message is too short")

// decoder reads Kafka's primitive types. After an error all that it reads is
// zero.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) take(n int) []byte {
	if d.err == nil && (n < 0 || n > len(d.b)) {
		d.err = errShort
	}
	if d.err != nil {
		return make([]byte, 8)
	}
	out := d.b[:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) int16() int16 { return int16(binary.BigEndian.Uint16(d.take(2))) }
func (d *decoder) int32() int32 { return int32(binary.BigEndian.Uint32(d.take(4))) }
func (d *decoder) int64() int64 { return int64(binary.BigEndian.Uint64(d.take(8))) }

func (d *decoder) string() string {
	n := d.int16()
	if n < 0 || d.err != nil {
		return ""
	}
	return string(d.take(int(n)))
}

func (d *decoder) bytes() []byte {
	n := d.int32()
	if n < 0 || d.err != nil {
		return nil
	}
	return d.take(int(n))
}

// each calls f for every element of an array.
func (d *decoder) each(f func()) {
	for n := d.int32(); n > 0 && d.err == nil; n-- {
		f()
	}
}

// encoder writes Kafka's primitive types.
type encoder struct{ b []byte }

func (e *encoder) int8(v byte)   { e.b = append(e.b, v) }
func (e *encoder) int16(v int16) { e.b = binary.BigEndian.AppendUint16(e.b, uint16(v)) }
func (e *encoder) int32(v int32) { e.b = binary.BigEndian.AppendUint32(e.b, uint32(v)) }
func (e *encoder) int64(v int64) { e.b = binary.BigEndian.AppendUint64(e.b, uint64(v)) }

func (e *encoder) string(s string) {
	e.int16(int16(len(s)))
	e.b = append(e.b, s...)
}

func (e *encoder) bytes(b []byte) {
	e.int32(int32(len(b)))
	e.b = append(e.b, b...)
}

// array writes the elements of from, an array, as f has each of them.
func (e *encoder) array(from *decoder, f func()) {
	at, n := len(e.b), int32(0)
	e.int32(0)
	from.each(func() {
		f()
		n++
	})
	binary.BigEndian.PutUint32(e.b[at:], uint32(n))
}

// readMessage reads a message with its length before it.
func readMessage(r io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxMessage {
		return nil, fmt.Errorf("a request of %d bytes", n)
	}
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	return b, err
}

// writeMessage writes a message with its length before it.
func writeMessage(w io.Writer, b []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...))
	return err
}
