// Package clienthello reads the first message of a TLS client (RFC 8446, section 4.1.2; RFC
// 5246, section 7.4.1.2), over any number of records and reads, and says what it asks for.
// It holds little more than has arrived: crypto/tls makes room for what a client only
// claims to send. It answers nothing and decrypts nothing.
package clienthello

import (
	"errors"
	"fmt"
	"io"
)

const (
	// Max bounds the message, in bytes. With a key of ML-KEM it has some 2 KB, with a
	// ticket that holds certificates a few more.
	Max = 16 << 10
	// maxRead bounds all that is read for it: the headers of records, too.
	maxRead = Max + 2<<10
	// firstRead is what a silent client costs. Half of all messages are smaller.
	firstRead = 1 << 10
)

// The types of a record (RFC 8446, section 5.1) and of a message (section 4), and the size
// of their headers and of a record's content.
const (
	recordHandshake   = 0x16
	recordHeader      = 5
	maxRecord         = 1 << 14
	messageHello      = 1
	messageHeader     = 4
	majorVersion      = 3
	ssl2Header        = 0x80 // the first byte of its record has this bit
	alertUnexpected   = 10
	alertOverflow     = 22
	alertDecodeError  = 50
	alertWrongVersion = 70
)

// Hello is a client's first message.
type Hello struct {
	// Raw is all that was read: the records of the message, and what came with them.
	Raw []byte
}

// NotTLSError is a first byte that begins no record of a handshake.
type NotTLSError struct{ First byte }

// Error names the byte.
func (e *NotTLSError) Error() string {
	return fmt.Sprintf("no TLS: the first byte is 0x%02x", e.First)
}

// MalformedError is of a client that begins like one of TLS and goes on otherwise.
type MalformedError struct {
	// Alert is what to answer (RFC 8446, section 6.2).
	Alert byte
	text  string
}

// Error says what is wrong.
func (e *MalformedError) Error() string { return "no ClientHello: " + e.text }

// ErrSSL2 is a ClientHello in the form of SSL 2.0, as libraries of that time send it also
// where they can do more (RFC 5246, appendix E.2).
var ErrSSL2 = &MalformedError{alertWrongVersion, "it has the form of SSL 2.0"}

// Read reads until the message is complete. grow is asked before more than a first 1 KiB
// is held, with the size of what is then; its error ends the reading. Other errors are
// those of r, io.EOF only where nothing has come, and otherwise io.ErrUnexpectedEOF, or of
// the types above. The result is never nil: with an error it has what came before.
func Read(r io.Reader, grow func(size int) error) (*Hello, error) {
	var (
		f framing
		b = make([]byte, 0, firstRead)
	)
	for {
		n, err := r.Read(b[len(b):cap(b)])
		done, wrong := f.take(b[len(b) : len(b)+n])
		b = b[:len(b)+n]
		switch {
		case wrong != nil:
			return &Hello{b}, wrong
		case done:
			return &Hello{b}, nil
		case errors.Is(err, io.EOF) && len(b) > 0 && b[0] != recordHandshake:
			return &Hello{b}, &NotTLSError{b[0]}
		case errors.Is(err, io.EOF) && len(b) > 0:
			return &Hello{b}, io.ErrUnexpectedEOF
		case err != nil:
			return &Hello{b}, err
		}
		if len(b) < cap(b) {
			continue
		}
		if len(b) == maxRead {
			return &Hello{b}, errTooLarge
		}
		size := min(2*cap(b), maxRead)
		if err := grow(size); err != nil {
			return &Hello{b}, err
		}
		b = append(make([]byte, 0, size), b...)
	}
}

var errTooLarge = &MalformedError{alertDecodeError, fmt.Sprintf("it is larger than %d bytes", Max)}

// framing follows the records of a message whose bytes come in pieces.
type framing struct {
	record [recordHeader]byte // the header of the record under way
	have   int                // bytes of it
	left   int                // of the record's content

	message [messageHeader]byte
	got     int // bytes of it
	want    int // of the message, behind its header
}

// take takes the next bytes, and says whether the message is complete.
func (f *framing) take(p []byte) (done bool, err error) {
	for len(p) > 0 {
		if f.left == 0 {
			f.record[f.have] = p[0]
			f.have++
			p = p[1:]
			if err := f.checkHeader(); err != nil {
				return false, err
			}
			continue
		}
		if f.got < messageHeader {
			f.message[f.got] = p[0]
			f.got++
			f.left--
			p = p[1:]
			if err := f.checkMessage(); err != nil {
				return false, err
			}
		} else {
			n := min(len(p), f.left, f.want)
			f.left -= n
			f.want -= n
			p = p[n:]
		}
		if f.got == messageHeader && f.want == 0 {
			return true, nil
		}
	}
	return false, nil
}

func (f *framing) checkHeader() error {
	first := f.got == 0
	switch {
	case first && f.record[0]&ssl2Header != 0:
		return f.checkSSL2()
	case f.have == 1 && f.record[0] != recordHandshake && first:
		return &NotTLSError{f.record[0]}
	case f.have == 1 && f.record[0] != recordHandshake:
		return &MalformedError{alertUnexpected, fmt.Sprintf("a record of type %d is between its records", f.record[0])}
	case f.have == 2 && f.record[1] != majorVersion:
		return &MalformedError{alertWrongVersion, fmt.Sprintf("the version of a record is %d.x, and that of SSL 3.0 and TLS is 3.x", f.record[1])}
	case f.have < recordHeader:
		return nil
	}
	f.have = 0
	f.left = int(f.record[3])<<8 | int(f.record[4])
	switch {
	case f.left == 0:
		return &MalformedError{alertUnexpected, "an empty record"}
	case f.left > maxRecord:
		return &MalformedError{alertOverflow, fmt.Sprintf("a record of %d bytes", f.left)}
	}
	return nil
}

// checkSSL2 is for what begins with a record of SSL 2.0: its length in two bytes, the type of the
// message and its version.
func (f *framing) checkSSL2() error {
	foreign := &NotTLSError{f.record[0]}
	switch {
	case f.have < 3:
		return nil
	case f.record[2] != messageHello:
		return foreign
	case f.have < recordHeader:
		return nil
	}
	if version := uint16(f.record[3])<<8 | uint16(f.record[4]); version != 2 && version>>8 != majorVersion {
		return foreign
	}
	return ErrSSL2
}

func (f *framing) checkMessage() error {
	switch {
	case f.message[0] != messageHello:
		return &MalformedError{alertUnexpected, fmt.Sprintf("the first message is of type %d", f.message[0])}
	case f.got < messageHeader:
		return nil
	}
	f.want = int(f.message[1])<<16 | int(f.message[2])<<8 | int(f.message[3])
	switch {
	case f.want == 0:
		return &MalformedError{alertDecodeError, "it is empty"}
	case f.want > Max-messageHeader:
		return errTooLarge
	}
	return nil
}
