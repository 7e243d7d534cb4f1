// Package wire has the bytes of the WebSocks protocol that both ends agree on: the
// salted password, the key's acceptance, the ten-byte frame. The SOCKS messages behind
// the frame are in internal/socks5. It opens no connection.
package wire

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"strconv"
	"time"
)

// Subprotocol is the Sec-WebSocket-Protocol that stands for SOCKS5 in plain
// bytes behind the frame. The protocol knows no other.
const Subprotocol = "socks5"

// FrameSize is the length of what each end sends once after the upgrade, in
// bytes. What is in them does not matter to either.
const FrameSize = 10

// Frame returns the ten bytes: the header of an unmasked final binary frame of
// 2^63-1 bytes (RFC 6455, section 5.2), so that a gateway which follows frames
// takes everything behind it as that frame's payload.
func Frame() [FrameSize]byte {
	return [FrameSize]byte{0x82, 0x7f, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
}

// Pong returns the unsolicited PONG (RFC 6455, section 5.5.3) that keeps a
// pooled connection alive between the upgrade and the frame.
func Pong() [2]byte { return [2]byte{0x8a, 0x00} }

// Accept returns the Sec-WebSocket-Accept for a Sec-WebSocket-Key (RFC 6455,
// section 1.3).
func Accept(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// SaltInterval is how long a salted password is the same.
const SaltInterval = time.Minute

// SaltPassword returns what is sent for the password in the minute of at.
func SaltPassword(password string, at time.Time) string {
	minute := at.Unix() / 60 * 60_000
	return hash(hash(password) + strconv.FormatInt(minute, 10))
}

func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return base64.StdEncoding.EncodeToString(sum[:])
}
