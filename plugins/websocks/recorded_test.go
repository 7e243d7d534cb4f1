package websocks

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/websocks/internal/wire"
)

// recordedAnswer was recorded from the protocol's original server, of vproxy's
// commit 5501c711 (2021-06-06), but for the value of ACCEPT.
const recordedAnswer = "HTTP/1.1 101 Switching Protocols\r\n" +
	"Server: vproxy/1.0.0-BETA-12-dev\r\n" +
	"Date: Sun Nov 29 09:39:09 UTC 2026\r\n" +
	"Upgrade: websocket\r\n" +
	"Connection: Upgrade\r\n" +
	"Sec-Websocket-Accept: ACCEPT\r\n" +
	"Sec-WebSocket-Protocol: socks5\r\n" +
	"\r\n"

// TestRecordedConversations has the plugin send what the original agent sent for
// the same targets, and answers as the original server did: in the same pieces.
func TestRecordedConversations(t *testing.T) {
	for name, tt := range map[string]struct {
		target, sent string
		answers      []string
		refusal      sdk.Reason // 0: the tunnel is up
	}{
		"IPv4": {
			target:  "127.0.0.1:21501",
			sent:    frame + "\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01\x53\xfd",
			answers: []string{frame, "\x05\x00", "\x05\x00\x00\x01\x00\x00\x00\x00\x53\xfd"},
		},
		"a name": {
			target:  "localhost:21501",
			sent:    frame + "\x05\x01\x00\x05\x01\x00\x03\x09localhost\x53\xfd",
			answers: []string{frame + "\x05\x00", "\x05\x00\x00\x01\x00\x00\x00\x00\x53\xfd"},
		},
		"a name that is not found": {
			target:  "nosuch.invalid:80",
			sent:    frame + "\x05\x01\x00\x05\x01\x00\x03\x0enosuch.invalid\x00\x50",
			answers: []string{frame, "\x05\x00", "\x05\x02\x00\x01\x00\x00\x00\x00\x00\x50"},
			refusal: sdk.ReasonNotFound,
		},
	} {
		t.Run(name, func(t *testing.T) {
			url := script(t, func(c net.Conn) {
				r := bufio.NewReader(c)
				q, err := http.ReadRequest(r)
				if err != nil {
					t.Errorf("read request: %v", err)
					return
				}
				send(t, c, strings.Replace(recordedAnswer, "ACCEPT", wire.Accept(q.Header.Get("Sec-WebSocket-Key")), 1))
				got := make([]byte, len(tt.sent))
				if n, err := io.ReadFull(r, got); err != nil || string(got) != tt.sent {
					t.Errorf("the plugin sent %q (%v), the agent %q", got[:n], err, tt.sent)
				}
				for _, answer := range tt.answers {
					send(t, c, answer)
				}
				_, _ = io.Copy(c, r)
			})
			c, err := dial(t, values{"url": url}, tt.target)
			if tt.refusal != 0 {
				if e := dialError(t, err); e.Reason != tt.refusal {
					t.Errorf("%s, want %s: %v", e.Reason, tt.refusal, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			send(t, c, "ping one")
			expect(t, c, "ping one")
			_ = c.Close()
		})
	}
}
