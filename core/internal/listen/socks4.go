package listen

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"github.com/tunneld/tunneld/core/internal/tunnel"
)

// SOCKS version 4 is as "SOCKS: A protocol for TCP proxy across firewalls" and "SOCKS 4A: A
// Simple Extension to SOCKS 4 Protocol" have it, both by Ying-Da Lee.
const (
	socks4Version  = 4
	socks4Connect  = 1
	socks4Granted  = 0x5a
	socks4Rejected = 0x5b

	// maxSOCKS4Text bounds the user id and the name of a request, in bytes: a zero ends
	// them, and nothing says how long they are.
	maxSOCKS4Text = 255
)

// socks4Kind is spoken by mixed listeners alone.
var socks4Kind = Kind{
	Speaks:  "SOCKS4",
	Begins:  func(first byte) bool { return first == socks4Version },
	Astray:  "the client is set to SOCKS4: set it to SOCKS5 (socks5h:// leaves names unresolved) and to the port of a socks5 listener, or leave it as it is and set it to that of a mixed one",
	Foreign: func(string) []byte { return socks4Reply(socks4Rejected) },
}

var socks4Replies = replies{
	ready:   socks4Reply(socks4Granted),
	refusal: func(*tunnel.DialError) []byte { return socks4Reply(socks4Rejected) },
}

// socks4Reply is a reply that says nothing of port and address: they are only of interest
// to who has asked for an incoming connection.
func socks4Reply(code byte) []byte { return []byte{0, code, 0, 0, 0, 0, 0, 0} }

// readSOCKS4 reads a request. There is no password: the user id is whatever the client says
// that it is, and is not looked at. So nobody comes in who has to prove who he is.
func readSOCKS4(r *bufio.Reader, prove prover) (Request, *Failure) {
	if prove != nil {
		return Request{}, rejected(&mistake{"the client speaks SOCKS4, which has no password",
			"the listener has an auth block: set the client to SOCKS5 (socks5h:// leaves names unresolved) or HTTP, with user and password"})
	}
	host, port, err := readSOCKS4Request(r)
	switch {
	case err != nil && broken(err):
		return Request{}, &Failure{Err: err}
	case err != nil:
		return Request{}, rejected(err)
	}
	return ask(host, port, buffered(r), socks4Replies), nil
}

func rejected(err error) *Failure { return &Failure{Err: err, Answer: socks4Reply(socks4Rejected)} }

// readSOCKS4Request returns where the client wants to go. Not a byte is taken of what it has
// sent behind that.
func readSOCKS4Request(r *bufio.Reader) (host string, port uint16, err error) {
	var head [8]byte // VN, CD, DSTPORT, DSTIP
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return "", 0, inSOCKS4(err)
	}
	if command := head[1]; command != socks4Connect {
		return "", 0, &mistake{fmt.Sprintf("the client asks for SOCKS4 command %d, and only CONNECT is supported", command), "the client wants an incoming connection (2): tunneld carries none"}
	}
	if _, err := readSOCKS4Text(r, "user id"); err != nil {
		return "", 0, err
	}
	ip := netip.AddrFrom4([4]byte(head[4:]))
	host, port = ip.String(), binary.BigEndian.Uint16(head[2:])
	if byName(ip) {
		if host, err = readSOCKS4Text(r, "name"); err != nil {
			return "", 0, err
		}
		if !validHost(host, false) {
			return "", 0, &mistake{fmt.Sprintf("the client asks for %q, which is neither a name nor an IP address", host), "check the address that the client asks for"}
		}
	}
	if port == 0 {
		return "", 0, &mistake{fmt.Sprintf("the client asks for %s:0, and port 0 is not a target", host), "check the port that the client asks for"}
	}
	return host, port, nil
}

// byName says whether an address stands for a name that follows: 0.0.0.x with x other than 0,
// by SOCKS 4A.
func byName(ip netip.Addr) bool {
	b := ip.As4()
	return b[0] == 0 && b[1] == 0 && b[2] == 0 && b[3] != 0
}

// readSOCKS4Text reads up to a zero.
func readSOCKS4Text(r *bufio.Reader, what string) (string, error) {
	var text []byte
	for {
		switch c, err := r.ReadByte(); {
		case err != nil:
			return "", inSOCKS4(err)
		case c == 0:
			return string(text), nil
		case len(text) == maxSOCKS4Text:
			return "", &mistake{fmt.Sprintf("the %s of the client's SOCKS4 request has more than %d bytes", what, maxSOCKS4Text), "check what the client sends: SOCKS5 bounds both by itself"}
		default:
			text = append(text, c)
		}
	}
}

// inSOCKS4 is the error of a read within a request, where an end of file is unexpected.
func inSOCKS4(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read SOCKS4 request: %w", err)
}
