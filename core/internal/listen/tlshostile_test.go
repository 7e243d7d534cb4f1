package listen

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/nettest"
)

// inPieces writes what a client sends first in another form: the record in records of some
// bytes, or everything byte by byte.
type inPieces struct {
	net.Conn
	records  int // the size of the first records; 0: as it is
	bytewise bool
	begun    bool
}

func (c *inPieces) Write(b []byte) (int, error) {
	n := len(b)
	if !c.begun && c.records > 0 {
		var split []byte
		for content := b[5:]; len(content) > 0; {
			part := content[:min(c.records, len(content))]
			content = content[len(part):]
			split = append(append(split, b[0], b[1], b[2], 0, byte(len(part))), part...)
		}
		b = split
	}
	c.begun = true
	piece := len(b)
	if c.bytewise {
		piece = 1
	}
	for len(b) > 0 {
		if _, err := c.Conn.Write(b[:min(piece, len(b))]); err != nil {
			return 0, err
		}
		b = b[min(piece, len(b)):]
	}
	return n, nil
}

// TestTLSInPieces: a client may send its first message in many records, and all of its
// handshake byte by byte, a certificate included.
func TestTLSInPieces(t *testing.T) {
	r := newTLSRig(t)
	r.options.ClientCAFile = r.authority.File(t)
	for name, c := range map[string]inPieces{"records": {records: 7}, "bytes": {bytewise: true}, "both": {records: 100, bytewise: true}} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(name+", "+tls.VersionName(version), func(t *testing.T) {
				t.Parallel()
				raw, done := r.begin(KindSOCKS5, patience)
				c := c
				c.Conn = raw
				config := r.client("web.corp")
				config.MaxVersion = version
				if _, err := io.WriteString(tls.Client(&c, config), "\x05\x01\x00"+socksToDB); err != nil {
					t.Fatal(err)
				}
				o := await(t, done)
				if o.err != nil || o.client.User != "web.corp" {
					t.Fatal(o.err)
				}
				o.client.Reset()
			})
		}
	}
}

// withExtension is a ClientHello, in one record, with one more extension at its end.
func withExtension(hello string, kind uint16, content string) string {
	b := []byte(hello)
	at := 5 + 4 + 2 + 32
	at += 1 + int(b[at])                           // session id
	at += 2 + int(binary.BigEndian.Uint16(b[at:])) // cipher suites
	at += 1 + int(b[at])                           // compression
	more := 4 + len(content)                       // bytes
	grow := func(b []byte) { binary.BigEndian.PutUint16(b, binary.BigEndian.Uint16(b)+uint16(more)) }
	grow(b[3:])  // the record
	grow(b[7:])  // the message, of which the first byte of three is 0
	grow(b[at:]) // the extensions
	b = binary.BigEndian.AppendUint16(b, kind)
	b = binary.BigEndian.AppendUint16(b, uint16(len(content)))
	return string(append(b, content...))
}

// TestNoEarlyData: a client that has a ticket of another server, and sends data with it
// before the handshake (RFC 8446, section 4.2.10), is refused and told so.
func TestNoEarlyData(t *testing.T) {
	r := newTLSRig(t)
	hello := withExtension(nettest.ClientHello(t, r.client()), 42, "")
	c, done := r.begin(KindTCP, patience)
	send(t, c, hello+"\x17\x03\x03\x00\x10"+strings.Repeat("e", 16), inOnePiece)
	got, err := io.ReadAll(c)
	if err != nil || len(got) != 7 || got[0] != 0x15 {
		t.Errorf("read % x, %v; want an alert", got, err)
	}
	_ = c.Close()
	if o := await(t, done); Reason(o.err) != "tls" || !strings.Contains(o.err.Error(), "early data") {
		t.Errorf("error %v", o.err)
	}
}

// TestTLSAfterTheHello: what is no TLS any more, or too much of it, ends the handshake.
func TestTLSAfterTheHello(t *testing.T) {
	r := newTLSRig(t)
	r.options.ClientCAFile = r.authority.File(t)
	hello := nettest.ClientHello(t, r.client())
	for name, tt := range map[string]struct{ send, err string }{
		"garbage":             {"GET / HTTP/1.1\r\n\r\n", "TLS for \"proxy.example\": "},
		"an oversized record": {"\x17\x03\x03\xff\xff", "oversized record"},
		"many empty alerts":   {strings.Repeat("\x14\x03\x03\x00\x01\x01", 40), "too many ignored records"},
		"an alert":            {"\x15\x03\x03\x00\x02\x02\x30", "remote error: tls: unknown certificate authority"},
		"a second hello":      {hello, "TLS for \"proxy.example\": "},
	} {
		t.Run(name, func(t *testing.T) {
			c, done := r.begin(KindTCP, patience)
			send(t, c, hello+tt.send, inOnePiece)
			_, _ = io.ReadAll(c)
			_ = c.Close()
			if o := await(t, done); Reason(o.err) != "tls" || !strings.Contains(o.err.Error(), tt.err) {
				t.Errorf("error %v", o.err)
			}
		})
	}
}
