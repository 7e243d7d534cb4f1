package websocksemu

import (
	"strings"
	"testing"
	"time"
)

// The bytes of this file were recorded from the protocol's original agent and
// server, of vproxy's commit 5501c711 (2021-06-06).

const (
	recordedRequest = "GET / HTTP/1.1\r\n" +
		"Upgrade: websocket\r\n" +
		"Connection: Upgrade\r\n" +
		"Host: null\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" +
		"Sec-WebSocket-Version: 13\r\n" +
		"Sec-WebSocket-Protocol: socks5\r\n" +
		"Authorization: Basic YWxpY2U6amVLTlU1SElEbk82L0w2Z0hoUHBUM1NmY1RyczZGanBaU2loK3JGR2JUUT0=\r\n" +
		"\r\n"
	recordedAnswer = "HTTP/1.1 101 Switching Protocols\r\n" +
		"Server: vproxy/1.0.0-BETA-12-dev\r\n" +
		"Date: Sun Nov 29 09:39:09 UTC 2026\r\n" +
		"Upgrade: websocket\r\n" +
		"Connection: Upgrade\r\n" +
		"Sec-Websocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" +
		"Sec-WebSocket-Protocol: socks5\r\n" +
		"\r\n"
)

// TestRecordedConversations plays the agent's part, byte by byte, and wants the
// original server's answers, but for the name in Server.
func TestRecordedConversations(t *testing.T) {
	at := time.Date(2026, 11, 29, 9, 39, 9, 0, time.UTC)
	closed := closedPort(t)
	for name, tt := range map[string]struct{ send, want string }{
		"IPv4": {
			"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01\x53\xfd",
			"\x05\x00\x05\x00\x00\x01\x00\x00\x00\x00\x53\xfd",
		},
		"a name": {
			"\x05\x01\x00\x05\x01\x00\x03\x09localhost\x53\xfd",
			"\x05\x00\x05\x00\x00\x01\x00\x00\x00\x00\x53\xfd",
		},
		"a name that is not found": {
			"\x05\x01\x00\x05\x01\x00\x03\x0enosuch.invalid\x00\x50",
			"\x05\x00\x05\x02\x00\x01\x00\x00\x00\x00\x00\x50",
		},
		"a pooled connection": {
			"\x8a\x00\x8a\x00" + "\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01\x53\xfd",
			"\x05\x00\x05\x00\x00\x01\x00\x00\x00\x00\x53\xfd",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, start(t, Options{
				Users:   map[string]string{"alice": "pasSw0rD"},
				Targets: map[string]string{"127.0.0.1:21501": closed},
				Now:     func() time.Time { return at },
			}))
			c.send(recordedRequest)
			c.expect(strings.Replace(recordedAnswer, "vproxy/1.0.0-BETA-12-dev", "websocksemu", 1))
			pongs := strings.Count(tt.send, "\x8a\x00")
			c.send(tt.send[:2*pongs] + frame + tt.send[2*pongs:])
			c.expect(frame + tt.want)
			c.expectSilence()
		})
	}
}
