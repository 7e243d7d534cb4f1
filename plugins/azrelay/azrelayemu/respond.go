package azrelayemu

import (
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// acceptGUID is RFC 6455's (1.3).
const acceptGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

// refuse answers with a status and, in the status line, the service's text.
func (s *Server) refuse(p *peer, path string, status int, text string) {
	host := s.options.Namespace
	if host == "" {
		host = "localhost"
	}
	s.respond(p, status, fmt.Sprintf("%s. TrackingId:%s_G0, SystemTracker:%s:%s, Timestamp:%s",
		strings.TrimSuffix(text, "."), newID(), host, entityPath(path), s.options.Now().UTC().Format("2006-01-02T15:04:05")))
}

// respond writes a response without a body; reason is the status line's text.
func (s *Server) respond(p *peer, status int, reason string) {
	reason = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, reason)
	s.log.Debug("refused", "status", status, "reason", reason)
	_ = p.conn.SetWriteDeadline(time.Now().Add(headTime))
	fmt.Fprintf(p.bw, "HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
		status, reason, s.options.Now().UTC().Format(http.TimeFormat))
	_ = p.bw.Flush()
}

// upgrade answers the opening handshake. protocol may be empty.
func (s *Server) upgrade(p *peer, req *http.Request, protocol string, f Faults) error {
	sum := sha1.Sum([]byte(req.Header.Get("Sec-WebSocket-Key") + acceptGUID))
	if f.BadAccept {
		sum[0] ^= 1
	}
	_ = p.conn.SetWriteDeadline(time.Now().Add(headTime))
	fmt.Fprintf(p.bw, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n",
		base64.StdEncoding.EncodeToString(sum[:]))
	if protocol != "" {
		fmt.Fprintf(p.bw, "Sec-WebSocket-Protocol: %s\r\n", protocol)
	}
	if f.Extension {
		fmt.Fprint(p.bw, "Sec-WebSocket-Extensions: permessage-deflate\r\n")
	}
	fmt.Fprint(p.bw, "\r\n")
	if err := p.bw.Flush(); err != nil {
		return fmt.Errorf("write upgrade: %w", err)
	}
	return p.conn.SetWriteDeadline(time.Time{})
}

// newID returns a random identifier in the form of a GUID.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
