package socks5

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
)

// readHead fills b with a message's first bytes, the first of which is its version.
// A wrong version is an error at once, without waiting for the rest, since another
// protocol may have sent all that it has to say. The error wraps io.EOF where the
// peer has closed before the first byte.
func readHead(r io.Reader, message string, version byte, b []byte) error {
	n, err := io.ReadAtLeast(r, b, 1)
	if err != nil {
		return fmt.Errorf("read %s: %w", message, err)
	}
	if b[0] != version {
		return &VersionError{Message: message, Got: b[0], Want: version}
	}
	return inMessage(message, readFull(r, b[n:]))
}

// readFull is io.ReadFull within a message, where an end of file is always
// unexpected.
func readFull(r io.Reader, b []byte) error {
	_, err := io.ReadFull(r, b)
	return unexpected(err)
}

func inMessage(message string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("read %s: %w", message, err)
}

// readAddress reads ATYP, ADDR and PORT. An unknown type is an error at once,
// without waiting for another byte. A name is whatever bytes were sent.
func readAddress(r io.Reader) (Address, error) {
	// The type, and the byte behind it: the first of an IP address or the
	// length of a name. No form is shorter than that.
	var head [2]byte
	n, err := io.ReadAtLeast(r, head[:], 1)
	if err != nil {
		return Address{}, unexpected(err)
	}
	if t := head[0]; t != typeIPv4 && t != typeDomain && t != typeIPv6 {
		return Address{}, &AddressTypeError{Type: t}
	}
	if err := readFull(r, head[n:]); err != nil {
		return Address{}, err
	}
	if head[0] == typeDomain {
		return readName(r, int(head[1]))
	}
	size := 4
	if head[0] == typeIPv6 {
		size = 16
	}
	var b [16 + 2]byte
	b[0] = head[1]
	if err := readFull(r, b[1:size+2]); err != nil {
		return Address{}, err
	}
	ip, _ := netip.AddrFromSlice(b[:size])
	return Address{Host: ip.String(), Port: port(b[size:])}, nil
}

// readName reads a name of n bytes and the port.
func readName(r io.Reader, n int) (Address, error) {
	var b [255 + 2]byte
	if err := readFull(r, b[:n+2]); err != nil {
		return Address{}, err
	}
	return Address{Host: string(b[:n]), Port: port(b[n:])}, nil
}

// readString reads a length byte and so many bytes.
func readString(r io.Reader) (string, error) {
	var n [1]byte
	if err := readFull(r, n[:]); err != nil {
		return "", err
	}
	var b [255]byte
	err := readFull(r, b[:n[0]])
	return string(b[:n[0]]), err
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func port(b []byte) uint16 { return uint16(b[0])<<8 | uint16(b[1]) }
