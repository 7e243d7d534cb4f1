package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
)

// stream is what one direction of a tunnel carries: bytes that follow from the
// tunnel's number and their position, so that what is lost, doubled or out of
// order is seen at the next byte.
type stream struct {
	random *rand.ChaCha8
	count  int64
	buf    []byte
}

func newStream(id uint64, direction byte) *stream {
	var seed [32]byte
	binary.BigEndian.PutUint64(seed[:], id)
	seed[8] = direction
	return &stream{random: rand.NewChaCha8(seed), buf: make([]byte, 16<<10)}
}

// next returns the next n bytes, at most len(buf).
func (s *stream) next(n int) []byte {
	b := s.buf[:n]
	_, _ = s.random.Read(b) // it never fails
	s.count += int64(n)
	return b
}

// write sends the next n bytes.
func (s *stream) write(w io.Writer, n int) error {
	for n > 0 {
		b := s.next(min(n, len(s.buf)))
		if _, err := w.Write(b); err != nil {
			return err
		}
		n -= len(b)
	}
	return nil
}

// wrongByte is a byte that is not what was sent.
type wrongByte struct{ at int64 }

func (e *wrongByte) Error() string {
	return fmt.Sprintf("wrong byte within the 16 KiB before %d", e.at)
}

// read expects the next n bytes.
func (s *stream) read(r io.Reader, n int) error {
	got := make([]byte, min(n, len(s.buf)))
	for n > 0 {
		b := got[:min(n, len(got))]
		if _, err := io.ReadFull(r, b); err != nil {
			return err
		}
		if !bytes.Equal(b, s.next(len(b))) {
			return &wrongByte{s.count}
		}
		n -= len(b)
	}
	return nil
}
