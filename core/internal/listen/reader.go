package listen

import (
	"bufio"
	"bytes"
)

// peeked is what r has read and nobody has taken, up to n bytes. It is valid until the next
// read.
func peeked(r *bufio.Reader, n int) []byte {
	b, err := r.Peek(min(n, r.Buffered()))
	if err != nil {
		panic(err) // it is in the buffer
	}
	return b
}

// discard takes n bytes that peeked has returned.
func discard(r *bufio.Reader, n int) {
	if _, err := r.Discard(n); err != nil {
		panic(err) // it is in the buffer
	}
}

// buffered returns a copy of what r has read too far; nil: nothing.
func buffered(r *bufio.Reader) []byte { return bytes.Clone(peeked(r, r.Buffered())) }
