package websocksemu

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/tunneld/tunneld/plugins/websocks/internal/wire"
)

// maxHead bounds a request's head in bytes.
const maxHead = 64 << 10

// header is one line of a head. Its order and its case are kept, which is why
// net/http's map will not do.
type header struct{ name, value string }

type request struct {
	method  string
	headers []header
}

// readHead reads a head up to and with its empty line, and nothing behind it.
func readHead(r *bufio.Reader) (string, error) {
	var head strings.Builder
	for {
		line, err := r.ReadSlice('\n')
		if head.Len()+len(line) > maxHead {
			return "", fmt.Errorf("request of more than %d bytes", maxHead)
		}
		head.Write(line)
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			return "", err
		}
		if s := head.String(); strings.HasSuffix(s, "\r\n\r\n") || s == "\r\n" {
			return s, nil
		}
	}
}

// parseHead takes a head apart.
func parseHead(head string) (request, error) {
	lines := strings.Split(strings.TrimSuffix(head, "\r\n\r\n"), "\r\n")
	words := strings.Split(lines[0], " ")
	if len(words) != 3 || !strings.HasPrefix(words[2], "HTTP/1.") {
		return request{}, errors.New("malformed request line")
	}
	q := request{method: words[0]}
	for _, line := range lines[1:] {
		name, value, ok := strings.Cut(line, ":")
		if !ok || name == "" || strings.ContainsAny(name, " \t") {
			return request{}, errors.New("malformed header line")
		}
		q.headers = append(q.headers, header{name, strings.Trim(value, " \t")})
	}
	return q, nil
}

func (q request) values(name string) []string {
	var values []string
	for _, h := range q.headers {
		if strings.EqualFold(h.name, name) {
			values = append(values, h.value)
		}
	}
	return values
}

// upgrade says whether the request asks for the upgrade in the words that the
// original takes: no list in Upgrade or Connection, no body.
func (q request) upgrade() error {
	if q.method != http.MethodGet {
		return errors.New("unsupported method")
	}
	if len(q.values("Content-Length")) > 0 {
		return errors.New("the upgrade has a body")
	}
	for name, valid := range map[string]func(string) bool{
		"Upgrade":    func(v string) bool { return v == "websocket" },
		"Connection": func(v string) bool { return strings.EqualFold(v, "Upgrade") },
		"Sec-WebSocket-Key": func(v string) bool {
			_, err := base64.StdEncoding.DecodeString(v)
			return err == nil && v != ""
		},
	} {
		values := q.values(name)
		if len(values) == 0 {
			return errors.New("no header " + name)
		}
		for _, v := range values {
			if !valid(v) {
				return errors.New("unusable header " + name)
			}
		}
	}
	return nil
}

// socks says whether one of the offered protocols, each in a header of its own,
// is the one that the server speaks.
func (q request) socks() bool {
	for _, v := range q.values("Sec-WebSocket-Protocol") {
		if v == wire.Subprotocol {
			return true
		}
	}
	return false
}

// authorized says whether the request has a user's password, salted with the
// minute of at or of one before or after it.
func (q request) authorized(users map[string]string, at time.Time) bool {
	if users == nil {
		return true
	}
	values := q.values("Authorization")
	if len(values) == 0 {
		return false
	}
	encoded, ok := strings.CutPrefix(values[0], "Basic ")
	if !ok {
		return false
	}
	credentials, err := base64.StdEncoding.DecodeString(strings.TrimSpace(encoded))
	if err != nil {
		return false
	}
	parts := strings.Split(string(credentials), ":")
	if len(parts) != 2 {
		return false
	}
	password, ok := users[parts[0]]
	if !ok {
		return false
	}
	for _, minutes := range []time.Duration{-1, 0, 1} {
		if parts[1] == wire.SaltPassword(password, at.Add(minutes*wire.SaltInterval)) {
			return true
		}
	}
	return false
}

// check returns the status that the original answers a head with, and why.
func check(head string, users map[string]string, at time.Time) (q request, status int, why string) {
	q, err := parseHead(head)
	if err != nil {
		return q, http.StatusBadRequest, err.Error()
	}
	if err := q.upgrade(); err != nil {
		return q, http.StatusBadRequest, err.Error()
	}
	if !q.authorized(users, at) {
		return q, http.StatusUnauthorized, "auth failed"
	}
	if !q.socks() {
		return q, http.StatusBadRequest, "no supported protocol"
	}
	return q, http.StatusSwitchingProtocols, ""
}
