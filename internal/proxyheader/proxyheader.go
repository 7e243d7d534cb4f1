// Package proxyheader reads and writes the header of the PROXY protocol, versions 1 and 2, by
// which a load balancer says whose connection it passes on:
// https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt, of which the sections in this
// package are. Parsing and formatting are go-proxyproto's. What is here is where a header ends
// in a socket from which no byte more may be taken, its bounds, its checksum, and what it
// means. It passes no bytes on, and wraps no connection.
package proxyheader

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"net/netip"
	"strings"

	"github.com/pires/go-proxyproto"
)

const (
	// maxLine is how long a header of version 1 can be, in bytes (section 2.1).
	maxLine = 107
	// maxBlock bounds what follows the first 16 bytes of a header of version 2: addresses and
	// TLVs. Its length field could say 64 KiB, which are then held. A client certificate, the
	// largest that is sent, has 1 to 2 KiB. The parser has the same bound.
	maxBlock = 4 << 10
)

// Header says whose connection another one is.
type Header struct {
	// Source and Destination are the ends of that connection. Both are zero where it is the
	// sender's own, or where the sender cannot say: UNKNOWN of version 1, and LOCAL and the
	// family UNSPEC of version 2.
	Source, Destination netip.AddrPort
}

// IsLocal says whether the header names no other connection: the ends of the one that it
// came on count.
func (h Header) IsLocal() bool { return !h.Source.IsValid() }

// AbsentError is of bytes that begin no header.
type AbsentError struct{ First byte }

// Error names the first byte.
func (e *AbsentError) Error() string {
	return fmt.Sprintf("no PROXY header: the first byte is 0x%02x", e.First)
}

// MalformedError is of bytes that begin like a header and go on otherwise, or of a header
// that is not for a TCP connection.
type MalformedError struct{ text string }

// Error says what is wrong.
func (e *MalformedError) Error() string { return "PROXY header: " + e.text }

// What a header of version 2 has at fixed places (section 2.2).
const (
	v2Signature = "\r\n\r\n\x00\r\nQUIT\n"
	v2Family    = 13
	v2Length    = 14
	v2Fixed     = 16 // what precedes the block
)

const v1Signature = "PROXY "

// Beginning is how many bytes are enough for Begins.
const Beginning = len(v1Signature)

// Begins says whether b begins with a header, by so many of its bytes that nothing else is
// likely to begin so: six of version 1, and five of version 2. maybe says, where it does
// not, that b is shorter than that, and no byte of it is wrong.
func Begins(b []byte) (is, maybe bool) {
	for _, start := range []string{v1Signature, v2Signature[:5]} {
		if agree(b, start) {
			return len(b) >= len(start), len(b) < len(start)
		}
	}
	return false, false
}

// end returns the size of the header that b begins with, which may be longer than b; 0: b
// is too short to tell.
func end(b []byte) (int, error) {
	switch {
	case agree(b, v2Signature):
		if len(b) < v2Fixed {
			return 0, nil
		}
		block := int(binary.BigEndian.Uint16(b[v2Length:]))
		if block > maxBlock {
			return 0, &MalformedError{fmt.Sprintf("it says that it has %d bytes, and at most %d are read", v2Fixed+block, v2Fixed+maxBlock)}
		}
		return v2Fixed + block, nil
	case agree(b, v1Signature):
		if n := bytes.IndexByte(b[:min(len(b), maxLine)], '\n'); n >= 0 {
			return n + 1, nil
		}
		if len(b) >= maxLine {
			return 0, &MalformedError{fmt.Sprintf("its line does not end within %d bytes", maxLine)}
		}
		return 0, nil
	}
	return 0, &AbsentError{b[0]}
}

// agree says whether b and the signature are equal as far as both go.
func agree(b []byte, signature string) bool {
	n := min(len(b), len(signature))
	return string(b[:n]) == signature[:n]
}

// parse reads a header, which is whole and has nothing behind it.
func parse(b []byte) (Header, error) {
	h, err := proxyproto.Read(bufio.NewReaderSize(bytes.NewReader(b), len(b)))
	unspec := agree(b, v2Signature) && b[v2Family] == byte(proxyproto.UNSPEC)
	switch {
	case unspec && errors.Is(err, proxyproto.ErrUnsupportedAddressFamilyAndProtocol):
		return Header{}, nil // the command is PROXY: the parser takes this family with LOCAL alone
	case err != nil:
		return Header{}, &MalformedError{strings.ReplaceAll(err.Error(), "proxyproto: ", "")}
	case h.Command.IsLocal():
		return Header{}, nil // whatever its block says (section 2.2)
	}
	source, destination, ok := h.TCPAddrs()
	if !ok {
		return Header{}, &MalformedError{"it is not for a TCP connection, but for one of UDP or of a unix socket"}
	}
	if h.Version == 2 {
		if err := checkTLVs(b, v2Fixed+addresses[h.TransportProtocol]); err != nil {
			return Header{}, err
		}
	}
	return Header{Source: addrPort(source), Destination: addrPort(destination)}, nil
}

// addresses is the size of a block's addresses, by family.
var addresses = map[proxyproto.AddressFamilyAndProtocol]int{proxyproto.TCPv4: 12, proxyproto.TCPv6: 36}

func addrPort(a *net.TCPAddr) netip.AddrPort {
	p := a.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checkTLVs checks the framing of the TLVs of a header, which begin at an offset, and the
// checksum that one of them may be (section 2.2.3): the parser looks at neither.
func checkTLVs(header []byte, offset int) error {
	const typeAndLength, checksum = 3, 4
	for left := header[offset:]; len(left) > 0; {
		if len(left) < typeAndLength {
			return &MalformedError{"its last TLV is cut off"}
		}
		kind, size := proxyproto.PP2Type(left[0]), int(binary.BigEndian.Uint16(left[1:]))
		left = left[typeAndLength:]
		if len(left) < size {
			return &MalformedError{fmt.Sprintf("a TLV of type 0x%02x says that it has %d bytes, and %d are left", byte(kind), size, len(left))}
		}
		value := left[:size]
		left = left[size:]
		if kind != proxyproto.PP2_TYPE_CRC32C {
			continue
		}
		if size != checksum {
			return &MalformedError{fmt.Sprintf("its checksum has %d bytes, not %d", size, checksum)}
		}
		at := len(header) - len(left) - checksum
		sum := crc32.Update(0, castagnoli, header[:at])
		sum = crc32.Update(sum, castagnoli, make([]byte, checksum))
		if crc32.Update(sum, castagnoli, left) != binary.BigEndian.Uint32(value) {
			return &MalformedError{"its checksum is wrong"}
		}
	}
	return nil
}
