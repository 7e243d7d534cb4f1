package listen

import (
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/tunneld/tunneld/internal/bare"
	"github.com/tunneld/tunneld/internal/nettest"
)

// TestNoTLS: a client of another protocol is answered in it, and what only begins like TLS
// by an alert.
func TestNoTLS(t *testing.T) {
	r := newTLSRig(t)
	hello := nettest.ClientHello(t, r.client())
	const unexpected, decode, version = "\x15\x03\x01\x00\x02\x02\x0a", "\x15\x03\x01\x00\x02\x02\x32", "\x15\x03\x01\x00\x02\x02\x46"
	const postgres = "E\x00\x00\x00\xbdSFATAL\x00VFATAL\x00C08P01\x00Mthis port speaks TLS from the first byte\x00" +
		"HSet sslnegotiation=direct (libpq 17 or later), or connect by way of a TLS client such as stunnel, with sslmode=disable.\x00\x00"
	for name, tt := range map[string]struct{ send, answer, reason, err, hint string }{
		"HTTP":              {"GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 Bad Request", "protocol", "the client speaks HTTP without TLS", "https://"},
		"CONNECT":           {"CONNECT db:1 HTTP/1.1\r\n\r\n", "HTTP/1.1 400 Bad Request", "protocol", "the client speaks HTTP without TLS", "https://"},
		"SOCKS5":            {"\x05\x01\x00", "\x05\xff", "protocol", "the client speaks SOCKS5 without TLS", "remove the listener's tls block"},
		"SOCKS4":            {"\x04\x01\x00\x50\x00\x00\x00\x01a\x00", "\x00\x5b\x00\x00\x00\x00\x00\x00", "protocol", "SOCKS4 without TLS", "tls block"},
		"SSLRequest":        {"\x00\x00\x00\x08\x04\xd2\x16\x2f", postgres, "protocol", "PostgreSQL's own protocol", "sslnegotiation=direct"},
		"GSSENCRequest":     {"\x00\x00\x00\x08\x04\xd2\x16\x30", postgres, "protocol", "PostgreSQL's own protocol", `alpn = ["postgresql"]`},
		"StartupMessage":    {"\x00\x00\x00\x22\x00\x03\x00\x00user\x00alice\x00database\x00db\x00\x00", postgres, "protocol", "PostgreSQL's own protocol", "stunnel"},
		"Kafka's Metadata":  {"\x00\x00\x00\x15\x00\x03\x00\x00\x00\x00\x00\x01\x00\x03app\x00\x00\x00\x00", unexpected, "protocol", "its first byte is 0x00", "tls block"},
		"half a request":    {"\x00\x00\x00\x08", unexpected, "protocol", "its first byte is 0x00", "tls block"},
		"something":         {"\xff\xfe", unexpected, "protocol", "its first byte is 0xff", "tls block"},
		"SSL 2.0":           {"\x80\x1c\x01\x00\x02\x00\x03\x00\x00\x00\x10\x01\x00\x80" + strings.Repeat("r", 16), version, "tls", "it has the form of SSL 2.0", "TLS 1.2 or newer"},
		"TLS in its form":   {"\x80\x1c\x01\x03\x01\x00\x03\x00\x00\x00\x10\x00\x00\x2f" + strings.Repeat("r", 16), version, "tls", "it has the form of SSL 2.0", "SSLv2Hello"},
		"SSL 3.0":           {"\x16\x03\x00\x00\x2d\x01\x00\x00\x29\x03\x00" + strings.Repeat("r", 32) + "\x00\x00\x02\x00\x2f\x01\x00", version, "tls", "unsupported versions", "at most SSLv3, and the listener at least TLS 1.2"},
		"another version":   {"\x16\x02\x00\x00\x04", version, "tls", "that of SSL 3.0 and TLS is 3.x", "begins like TLS"},
		"another message":   {"\x16\x03\x01\x00\x04\x02\x00\x00\x00", unexpected, "tls", "first message is of type 2", "begins like TLS"},
		"a huge hello":      {"\x16\x03\x01\x40\x00\x01\x00\x40\x00", decode, "tls", "larger than 16384 bytes", "begins like TLS"},
		"no extensions":     {"\x16\x03\x03\x00\x2d\x01\x00\x00\x29\x03\x03" + strings.Repeat("r", 32) + "\x00\x00\x02\x13\x01\x01\x00", "\x15\x03\x03\x00\x02\x02\x28", "tls", "no cipher suite", "see the client's log"},
		"fields are broken": {"\x16\x03\x03\x00\x08\x01\x00\x00\x04\x03\x03rr", decode, "tls", "TLS: ", ""},
		"half a hello":      {hello[:100], "", "tls", "before its ClientHello was complete: unexpected EOF", ""},
	} {
		t.Run(name, func(t *testing.T) {
			c, done := r.begin(KindHTTP, patience)
			send(t, c, tt.send, thenEOF)
			got, err := io.ReadAll(c)
			if tt.answer != "" {
				checkAnswer(t, got, err, tt.answer)
			} else if !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("read %q, %v; want a reset", got, err)
			}
			_ = c.Close()
			if o := await(t, done); o.err == nil || !strings.Contains(o.err.Error(), tt.err) || Reason(o.err) != tt.reason || !strings.Contains(Hint(o.err), tt.hint) {
				t.Errorf("error %v, reason %s, hint %q", o.err, Reason(o.err), Hint(o.err))
			}
		})
	}
	for name, leave := range map[string]func(*net.TCPConn){"closed": func(c *net.TCPConn) { _ = c.CloseWrite() }, "reset": func(c *net.TCPConn) { bare.Reset(c) }} {
		c, done := r.begin(KindTCP, patience)
		leave(c)
		if o := await(t, done); !errors.Is(o.err, ErrNothing) {
			t.Errorf("%s without a byte: %v", name, o.err)
		}
	}
}
