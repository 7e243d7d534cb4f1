package nettest

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	_ "crypto/sha256" // for crypto.SHA256
	_ "crypto/sha512" // for crypto.SHA384
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/crypto/cryptobyte"
)

// The types of records (RFC 8446, section 5.1).
const (
	RecordAlert     = 21
	RecordHandshake = 22
	RecordData      = 23
)

// keyUpdate is the message without its last byte, which is 1 where it asks for one in return
// (RFC 8446, section 4.6.3).
const keyUpdate = "\x18\x00\x00\x01"

// Records writes records of TLS 1.3 as a client that crypto/tls has none of: of any type and
// content. One goroutine may use it.
type Records struct {
	t      testing.TB
	conn   io.Writer
	new    func([]byte) (cipher.AEAD, error)
	key    int // its length, in bytes
	hash   func() hash.Hash
	secret []byte
	aead   cipher.AEAD
	iv     []byte
	number uint64 // of the next record
}

// HandshakeRecords does the handshake of a client on conn. From then on the result writes and
// the client reads.
func HandshakeRecords(t testing.TB, conn net.Conn, config *tls.Config) (*Records, *tls.Conn) {
	t.Helper()
	var keys bytes.Buffer
	config = config.Clone()
	config.KeyLogWriter, config.MinVersion = &keys, tls.VersionTLS13
	client := tls.Client(conn, config)
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	r := &Records{t: t, conn: conn, key: 16, hash: crypto.SHA256.New, new: withAES}
	switch client.ConnectionState().CipherSuite {
	case tls.TLS_AES_256_GCM_SHA384:
		r.key, r.hash = 32, crypto.SHA384.New
	case tls.TLS_CHACHA20_POLY1305_SHA256:
		r.key, r.new = chacha20poly1305.KeySize, chacha20poly1305.New
	}
	for line := range strings.Lines(keys.String()) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "CLIENT_TRAFFIC_SECRET_0" {
			secret, err := hex.DecodeString(f[2])
			if err != nil {
				t.Fatal(err)
			}
			r.use(secret)
			return r, client
		}
	}
	t.Fatal("no secret of the client's")
	return nil, nil
}

func withAES(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// expand is HKDF-Expand-Label without a context (RFC 8446, section 7.1).
func (r *Records) expand(label string, length int) []byte {
	r.t.Helper()
	var info cryptobyte.Builder
	info.AddUint16(uint16(length))
	info.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte("tls13 " + label)) })
	info.AddUint8(0)
	out, err := hkdf.Expand(r.hash, r.secret, string(info.BytesOrPanic()), length)
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

// use takes the keys of a secret.
func (r *Records) use(secret []byte) {
	r.t.Helper()
	r.secret, r.number = secret, 0
	aead, err := r.new(r.expand("key", r.key))
	if err != nil {
		r.t.Fatal(err)
	}
	r.aead, r.iv = aead, r.expand("iv", aead.NonceSize())
}

// Seal returns a record with so many bytes of padding (RFC 8446, section 5.4).
func (r *Records) Seal(kind byte, content string, padding int) []byte {
	nonce := slices.Clone(r.iv)
	last := nonce[len(nonce)-8:]
	binary.BigEndian.PutUint64(last, binary.BigEndian.Uint64(last)^r.number)
	r.number++
	inner := append(append([]byte(content), kind), make([]byte, padding)...)
	header := binary.BigEndian.AppendUint16([]byte{RecordData, 3, 3}, uint16(len(inner)+r.aead.Overhead()))
	return r.aead.Seal(slices.Clone(header), nonce, inner, header)
}

// Write writes a record. It fails where the peer has gone.
func (r *Records) Write(kind byte, content string) error {
	_, err := r.conn.Write(r.Seal(kind, content, 0))
	return err
}

// UpdateKeys writes KeyUpdate in a record, and goes on with the next keys.
func (r *Records) UpdateKeys(answer bool) error {
	r.t.Helper()
	message := keyUpdate + "\x00"
	if answer {
		message = keyUpdate + "\x01"
	}
	err := r.Write(RecordHandshake, message)
	r.use(r.expand("traffic upd", r.hash().Size()))
	return err
}
