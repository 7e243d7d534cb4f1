// Package socks5 encodes and decodes the messages of SOCKS version 5 (RFC 1928)
// and of its username and password method (RFC 1929), for both sides. It opens
// no connection, keeps no state and sets no deadline: those are up to the caller.
//
// The Append functions add one message to a buffer, so that several can leave
// in one packet. The Read functions read exactly one message and not a byte of
// what follows it, however it is split; the format's own length bytes bound what a
// peer may send.
package socks5

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
)

// Version is the first byte of each message of RFC 1928.
const Version = 5

// Method is an authentication method (RFC 1928, section 3).
type Method byte

// The methods. 0x80 to 0xfe are for private use: see the plugins that have one.
const (
	MethodNone         Method = 0x00
	MethodGSSAPI       Method = 0x01
	MethodUserPass     Method = 0x02
	MethodUnacceptable Method = 0xff
)

// Command is what a request asks for (RFC 1928, section 4).
type Command byte

// The commands.
const (
	Connect      Command = 1
	Bind         Command = 2
	UDPAssociate Command = 3
)

// Code is the REP byte of a reply (RFC 1928, section 6).
type Code byte

// The codes.
const (
	Succeeded               Code = 0
	GeneralFailure          Code = 1
	NotAllowed              Code = 2
	NetworkUnreachable      Code = 3
	HostUnreachable         Code = 4
	ConnectionRefused       Code = 5
	TTLExpired              Code = 6
	CommandNotSupported     Code = 7
	AddressTypeNotSupported Code = 8
)

// Text returns RFC 1928's words for the code, or "unassigned code 0x…".
func (c Code) Text() string {
	texts := [...]string{
		Succeeded:               "succeeded",
		GeneralFailure:          "general SOCKS server failure",
		NotAllowed:              "connection not allowed by ruleset",
		NetworkUnreachable:      "network unreachable",
		HostUnreachable:         "host unreachable",
		ConnectionRefused:       "connection refused",
		TTLExpired:              "TTL expired",
		CommandNotSupported:     "command not supported",
		AddressTypeNotSupported: "address type not supported",
	}
	if int(c) < len(texts) {
		return texts[c]
	}
	return fmt.Sprintf("unassigned code 0x%02x", byte(c))
}

// ErrMalformed is wrapped by every error that is the peer's fault, and by none of
// the connection.
var ErrMalformed = errors.New("malformed SOCKS message")

// VersionError is a message that begins with another byte than its version: the
// peer speaks another protocol.
type VersionError struct {
	// Message names what was expected, "greeting".
	Message string
	Got     byte
	Want    byte
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("%s begins with 0x%02x, not version %d", e.Message, e.Got, e.Want)
}

// Unwrap returns ErrMalformed.
func (e *VersionError) Unwrap() error { return ErrMalformed }

// AddressTypeError is an address of a type that RFC 1928 does not know. Its
// length is unknown, so nothing behind it can be read; a server answers with
// AddressTypeNotSupported.
type AddressTypeError struct{ Type byte }

func (e *AddressTypeError) Error() string {
	return fmt.Sprintf("unknown address type 0x%02x", e.Type)
}

// Unwrap returns ErrMalformed.
func (e *AddressTypeError) Unwrap() error { return ErrMalformed }

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// The address types of RFC 1928, section 5.
const (
	typeIPv4   = 1
	typeDomain = 3
	typeIPv6   = 4
)

// Address is a host and a port as they stand in requests and replies.
type Address struct {
	// Host is an IP literal without brackets and zone, or a name of 1 to 255
	// bytes, which nobody has resolved. Which of them it is decides the address
	// type on the wire.
	Host string
	Port uint16
}

// String returns "host:port", with brackets around an IPv6 literal.
func (a Address) String() string {
	host := a.Host
	if ip, err := netip.ParseAddr(host); err == nil && ip.Is6() {
		host = "[" + host + "]"
	}
	return host + ":" + strconv.Itoa(int(a.Port))
}

func (a Address) append(b []byte) ([]byte, error) {
	switch ip, err := netip.ParseAddr(a.Host); {
	case err == nil && ip.Zone() != "":
		return nil, fmt.Errorf("address %q: SOCKS cannot carry an IPv6 zone", a.Host)
	case err == nil && ip.Is4():
		b = append(append(b, typeIPv4), ip.AsSlice()...)
	case err == nil:
		b = append(append(b, typeIPv6), ip.AsSlice()...)
	default:
		if err := checkName(a.Host); err != nil {
			return nil, err
		}
		b = append(append(b, typeDomain, byte(len(a.Host))), a.Host...)
	}
	return append(b, byte(a.Port>>8), byte(a.Port)), nil
}

// checkName refuses what no host name holds and what would let a peer write
// into a log or into the next protocol's header. The encoding is left alone:
// some clients send UTF-8.
func checkName(name string) error {
	if name == "" || len(name) > 255 {
		return malformed("host name of %d bytes, not 1 to 255", len(name))
	}
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c == 0x7f {
			return malformed("host name with byte 0x%02x", c)
		}
	}
	return nil
}
