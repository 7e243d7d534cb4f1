// Package bridge is the preamble with which Azure's relay bridge (azbridge)
// begins each connection, inside the stream's bytes:
//
//	-> 01 00 MM LL <LL bytes: the port name in UTF-8>
//	<- 01 00 MM   accepted
//	   00 00 00   unknown version
//	   00 00 01   a UDP forwarder's port, but a stream was requested
//	   00 00 ff   a TCP forwarder's port, but datagrams were requested
//
// The answer to an unknown port name is the end of the stream.
package bridge

import (
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// Modes of a connection: MM.
const (
	Stream   = 0x00
	Datagram = 0xff
)

// MaxName bounds a port name, in bytes: its length is one byte.
const MaxName = 255

const major, minor = 1, 0

// The third byte of a refusal: why.
const (
	badVersion   = 0x00
	notStream    = 0x01
	notDatagrams = 0xff
)

var (
	// ErrVersion says that the far end does not know the preamble's version.
	ErrVersion = errors.New("the far end's azbridge does not know version 1.0 of the preamble")
	// ErrNotStream says that the far end forwards the port as UDP and was asked
	// for a stream.
	ErrNotStream = errors.New("the far end's azbridge forwards the port as UDP, but was asked for a stream")
	// ErrNotDatagrams says that the far end forwards the port as TCP and was
	// asked for datagrams.
	ErrNotDatagrams = errors.New("the far end's azbridge forwards the port as TCP, but was asked for datagrams")
	// ErrName says that the far end knows no such port name.
	ErrName = errors.New("the far end's azbridge closed the connection: it does not know the port name")
)

// CheckName says what is wrong with a port name.
func CheckName(name string) error {
	switch {
	case name == "":
		return errors.New("the port name is empty")
	case len(name) > MaxName:
		return fmt.Errorf("the port name has %d bytes, and at most %d are allowed", len(name), MaxName)
	case !utf8.ValidString(name):
		return errors.New("the port name is not UTF-8")
	}
	return nil
}

// AppendRequest appends the preamble of a connection for a name that CheckName
// has passed.
func AppendRequest(b []byte, mode byte, name string) []byte {
	return append(append(b, major, minor, mode, byte(len(name))), name...)
}

// ReadRequest reads a preamble, and not one byte more. Of an unknown version it
// returns ErrVersion after the first two bytes.
func ReadRequest(r io.Reader) (mode byte, name string, err error) {
	var b [4 + MaxName]byte
	if _, err := io.ReadFull(r, b[:2]); err != nil {
		return 0, "", fmt.Errorf("read preamble: %w", err)
	}
	if b[0] != major || b[1] != minor {
		return 0, "", ErrVersion
	}
	if _, err := io.ReadFull(r, b[2:4]); err != nil {
		return 0, "", fmt.Errorf("read preamble: %w", err)
	}
	raw := b[4 : 4+int(b[3])]
	if _, err := io.ReadFull(r, raw); err != nil {
		return 0, "", fmt.Errorf("read port name: %w", err)
	}
	return b[2], string(raw), CheckName(string(raw))
}

// Accept, BadVersion, NotStream and NotDatagrams are the answers.
func Accept(mode byte) []byte { return []byte{major, minor, mode} }

// BadVersion refuses a preamble of another version.
func BadVersion() []byte { return []byte{0, 0, badVersion} }

// NotStream refuses a stream to a port that is forwarded as UDP.
func NotStream() []byte { return []byte{0, 0, notStream} }

// NotDatagrams refuses datagrams to a port that is forwarded as TCP.
func NotDatagrams() []byte { return []byte{0, 0, notDatagrams} }

// ReadAnswer reads the answer to a preamble of the given mode, and not one byte
// more: data may follow in the same message.
func ReadAnswer(r io.Reader, mode byte) error {
	var b [3]byte
	n, err := io.ReadFull(r, b[:])
	switch {
	case n == 0 && err == io.EOF:
		return ErrName
	case err != nil:
		return fmt.Errorf("read azbridge's answer: %w", err)
	case b == [3]byte{major, minor, mode}:
		return nil
	case b == [3]byte{0, 0, badVersion}:
		return ErrVersion
	case b == [3]byte{0, 0, notStream}:
		return ErrNotStream
	case b == [3]byte{0, 0, notDatagrams}:
		return ErrNotDatagrams
	}
	return fmt.Errorf("azbridge answered % x, not % x", b, Accept(mode))
}
