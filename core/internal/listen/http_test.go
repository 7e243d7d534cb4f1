package listen

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

const (
	status400 = "HTTP/1.1 400 Bad Request"
	status431 = "HTTP/1.1 431 Request Header Fields Too Large"
	status505 = "HTTP/1.1 505 HTTP Version Not Supported"
)

var httpCases = map[string]handshakeCase{
	"a name, which nobody resolves": {send: "CONNECT orders-db.corp:5432 HTTP/1.1\r\nHost: orders-db.corp:5432\r\n\r\n", target: "orders-db.corp:5432"},
	"IPv4":                          {send: "CONNECT 10.0.0.7:5432 HTTP/1.1\r\n\r\n", target: "10.0.0.7:5432"},
	"IPv6":                          {send: "CONNECT [2001:db8::1]:5432 HTTP/1.1\r\n\r\n", target: "[2001:db8::1]:5432"},
	"IPv4 as IPv6":                  {send: "CONNECT [::ffff:10.0.0.7]:5432 HTTP/1.1\r\n\r\n", target: "10.0.0.7:5432"},
	"HTTP/1.0":                      {send: "CONNECT db:80 HTTP/1.0\r\n\r\n", target: "db:80"},
	"headers that nobody needs":     {send: "CONNECT db:80 HTTP/1.1\r\nUser-Agent: x\r\nProxy-Authorization: Basic eDp5\r\nProxy-Connection: keep-alive\r\n\r\n", target: "db:80"},
	"another Host":                  {send: "CONNECT db:80 HTTP/1.1\r\nHost: elsewhere:1\r\n\r\n", target: "db:80"},
	"bare line feeds":               {send: "CONNECT db:80 HTTP/1.1\nHost: db:80\n\n", target: "db:80"},
	"lengths that disagree":         {send: "CONNECT db:80 HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", target: "db:80"},
	"empty lines before":            {send: "\r\n\nCONNECT db:80 HTTP/1.1\r\n\r\n", target: "db:80"},
	"a length without a body":       {send: "CONNECT db:80 HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", target: "db:80", ahead: "hello"},
	"bytes pipelined behind it":     {send: "CONNECT db:80 HTTP/1.1\r\n\r\n\x16\x03\x01\x00hello", target: "db:80", ahead: "\x16\x03\x01\x00hello"},
	"more than the buffer takes":    {send: "CONNECT db:80 HTTP/1.1\r\n\r\n" + strings.Repeat("0123456789abcdef", 9000), target: "db:80", ahead: strings.Repeat("0123456789abcdef", 9000)},
	"headers just within the limit": {send: "CONNECT db:80 HTTP/1.1\r\nX: " + strings.Repeat("x", maxHeader-40) + "\r\n\r\n", target: "db:80"},

	"GET":                    {send: "GET http://example/ HTTP/1.1\r\nHost: example\r\n\r\n", plain: true},
	"GET behind empty lines": {send: "\r\n\r\nGET http://example/ HTTP/1.1\r\nHost: example\r\n\r\n", plain: true},
	"HEAD":                   {send: "HEAD http://example/ HTTP/1.1\r\nHost: example\r\n\r\n", plain: true},
	"POST with a body":       {send: "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("b", 100_000), plain: true},
	"HTTP/2":                 {send: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", plain: true},
	"HTTP/0.9":               {send: "GET /\r\n\r\n", plain: true},
	"a method of another":    {send: "CONNECTED http://example/ HTTP/1.1\r\n\r\n", plain: true},
	"a method too late":      {send: strings.Repeat("\r\n", headPiece/2) + "GET http://example/ HTTP/1.1\r\nHost: example\r\n\r\n", err: "no method comes within the first 1024 bytes", hint: "what the client sends", answer: status400},
	"HTTP/3.0":               {send: "CONNECT db:80 HTTP/3.0\r\n\r\n", err: "only HTTP/1", answer: status505},
	"no port":                {send: "CONNECT db HTTP/1.1\r\n\r\n", err: "host:port", hint: "a port from 1 to 65535", answer: status400},
	"port 0":                 {send: "CONNECT db:0 HTTP/1.1\r\n\r\n", err: "host:port", hint: "a port from 1 to 65535", answer: status400},
	"port 65536":             {send: "CONNECT db:65536 HTTP/1.1\r\n\r\n", err: "host:port", hint: "a port from 1 to 65535", answer: status400},
	"port by name":           {send: "CONNECT db:https HTTP/1.1\r\n\r\n", err: "host:port", hint: "a port from 1 to 65535", answer: status400},
	"no host":                {send: "CONNECT :80 HTTP/1.1\r\n\r\n", err: "host:port", hint: "a port from 1 to 65535", answer: status400},
	"a URL":                  {send: "CONNECT http://db:80/ HTTP/1.1\r\n\r\n", err: "host:port", hint: "a port from 1 to 65535", answer: status400},
	"a path":                 {send: "CONNECT /path HTTP/1.1\r\n\r\n", err: "host:port", hint: "a port from 1 to 65535", answer: status400},
	"a user":                 {send: "CONNECT user@db:80 HTTP/1.1\r\n\r\n", err: "host:port", hint: "a port from 1 to 65535", answer: status400},
	"a name in brackets":     {send: "CONNECT [db]:80 HTTP/1.1\r\n\r\n", err: "host:port", hint: "a port from 1 to 65535", answer: status400},
	"IPv4 in brackets":       {send: "CONNECT [10.0.0.1]:80 HTTP/1.1\r\n\r\n", err: "host:port", hint: "a port from 1 to 65535", answer: status400},
	"an empty zone":          {send: "CONNECT [fe80::1%]:80 HTTP/1.1\r\n\r\n", err: "host:port", hint: "a port from 1 to 65535", answer: status400},
	"IPv6 without brackets":  {send: "CONNECT ::1:80 HTTP/1.1\r\n\r\n", err: "host:port", hint: "a port from 1 to 65535", answer: status400},
	"a name of 256 bytes":    {send: "CONNECT " + strings.Repeat("n", 256) + ":80 HTTP/1.1\r\n\r\n", err: "host:port", hint: "a port from 1 to 65535", answer: status400},
	"percent":                {send: "CONNECT d%62:80 HTTP/1.1\r\n\r\n", err: "host:port", hint: "a port from 1 to 65535", answer: status400},
	"a header without colon": {send: "CONNECT db:80 HTTP/1.1\r\nHost\r\n\r\n", err: "not an HTTP request", hint: "set to an HTTP proxy", answer: status400},
	"a space before a colon": {send: "CONNECT db:80 HTTP/1.1\r\nHost : x\r\n\r\n", err: "not an HTTP request", hint: "set to an HTTP proxy", answer: status400},
	"a folded header":        {send: "CONNECT db:80 HTTP/1.1\r\nX: y\r\n z\r\n\r\n", err: "not an HTTP request", hint: "set to an HTTP proxy", answer: status400},
	"two spaces":             {send: "CONNECT  db:80 HTTP/1.1\r\n\r\n", err: "not an HTTP request", hint: "set to an HTTP proxy", answer: status400},
	"a carriage return":      {send: "CONNECT d\rb:80 HTTP/1.1\r\n\r\n", err: "host:port", hint: "a port from 1 to 65535", answer: status400},
	"a tab":                  {send: "CONNECT d\tb:80 HTTP/1.1\r\n\r\n", err: "host:port", hint: "a port from 1 to 65535", answer: status400},
	"headers beyond":         {send: "CONNECT db:80 HTTP/1.1\r\n" + strings.Repeat("X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n", 5000), err: "larger than", hint: "see what the client sends", answer: status431},
	"one header beyond":      {send: "CONNECT db:80 HTTP/1.1\r\nX: " + strings.Repeat("x", 1<<20), err: "larger than", hint: "see what the client sends", answer: status431},
	"a line beyond":          {send: "CONNECT " + strings.Repeat("x", 1<<20), err: "larger than", hint: "see what the client sends", answer: status431},

	"SOCKS5":           {send: "\x05\x01\x00", err: "SOCKS5 on a listener of kind http", hint: "set it to an HTTP proxy", answer: "\x05\xff"},
	"SOCKS4":           {send: "\x04\x01\x00\x50\x0a\x00\x00\x07\x00", err: "SOCKS4 on a listener of kind http", hint: "set it to SOCKS5", answer: "\x00\x5b\x00\x00\x00\x00\x00\x00"},
	"TLS":              {send: "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", err: "TLS on a listener of kind http", hint: "not https://", answer: "\x15\x03\x01\x00\x02\x02\x0a"},
	"SSH":              {send: "SSH-2.0-OpenSSH_9.2\r\n\r\n", err: "not an HTTP request", hint: "set to an HTTP proxy", answer: status400},
	"another protocol": {send: "\x00\x00\x00\x08\x04\xd2\x16\x2f", err: "an unknown protocol (its first byte is 0x00)", hint: "check what connects", answer: status400},
	"small letters":    {send: "connect db:80 HTTP/1.1\r\n\r\n", err: "an unknown protocol (its first byte is 0x63)", answer: status400},
}

func TestHTTP(t *testing.T) {
	for name, tt := range httpCases {
		for manner, how := range manners {
			if how == bytewise && len(tt.send) > 10_000 {
				continue // a matter of minutes
			}
			t.Run(name+", "+manner, func(t *testing.T) { tt.run(t, KindHTTP, how) })
		}
	}
}

// TestHTTPCutOff: a request that ends anywhere before its end is answered, and
// never taken for a whole one.
func TestHTTPCutOff(t *testing.T) {
	const whole = "CONNECT db:80 HTTP/1.1\r\nHost: db:80\r\n\r\n"
	for n := 1; n < len(whole); n++ {
		handshakeCase{send: whole[:n], err: "EOF", answer: status400}.run(t, KindHTTP, thenEOF)
	}
}

// TestHTTPRefusal: what programs and people read of a failed dial.
func TestHTTPRefusal(t *testing.T) {
	err := &tunnel.DialError{
		Stage:      pluginv1.Stage_STAGE_REQUEST,
		Reason:     pluginv1.Reason_REASON_UNAVAILABLE,
		Message:    "the proxy says \"no\\\" – and\r\nSet-Cookie: x=1",
		Hint:       "look at the Cloud Connector",
		RetryAfter: 1500 * time.Millisecond,
	}
	res, readErr := http.ReadResponse(bufio.NewReader(bytes.NewReader(httpRefusal(err))), nil)
	if readErr != nil {
		t.Fatal(readErr)
	}
	defer res.Body.Close()
	body, readErr := io.ReadAll(res.Body)
	if readErr != nil {
		t.Fatal(readErr)
	}
	if res.StatusCode != 503 || !res.Close || len(res.Cookies()) != 0 {
		t.Errorf("%+v", res)
	}
	want := `tunneld; error=destination_unavailable; details="the proxy says \"no\\\" ? and??Set-Cookie: x=1"`
	if got := res.Header.Get("Proxy-Status"); got != want {
		t.Errorf("Proxy-Status: %s\nwant %s", got, want)
	}
	if got := res.Header.Get("Retry-After"); got != "2" {
		t.Errorf("Retry-After: %s", got)
	}
	for _, part := range []string{"stage: request\n", "reason: unavailable\n", err.Message, err.Hint} {
		if !strings.Contains(string(body), part) {
			t.Errorf("%q is not in the body: %s", part, body)
		}
	}
}
