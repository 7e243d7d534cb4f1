package listen

import (
	"strings"
	"testing"
)

// Replies of RFC 1928, section 6, that say nothing of an address.
const (
	noMethod           = "\x05\xff"
	generalFailure     = "\x05\x01\x00\x01\x00\x00\x00\x00\x00\x00"
	commandUnsupported = "\x05\x07\x00\x01\x00\x00\x00\x00\x00\x00"
	typeUnsupported    = "\x05\x08\x00\x01\x00\x00\x00\x00\x00\x00"
	greeted            = "\x05\x00"
)

var socks5Cases = map[string]handshakeCase{
	"a name, which nobody resolves": {
		send:   "\x05\x01\x00\x05\x01\x00\x03\x0eorders-db.corp\x15\x38",
		answer: greeted, target: "orders-db.corp:5432",
	},
	"IPv4":             {send: "\x05\x01\x00\x05\x01\x00\x01\x0a\x00\x00\x07\x15\x38", answer: greeted, target: "10.0.0.7:5432"},
	"IPv6":             {send: "\x05\x01\x00\x05\x01\x00\x04\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x15\x38", answer: greeted, target: "[2001:db8::1]:5432"},
	"IPv4 as IPv6":     {send: "\x05\x01\x00\x05\x01\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x0a\x00\x00\x07\x15\x38", answer: greeted, target: "10.0.0.7:5432"},
	"several methods":  {send: "\x05\x04\x02\x01\x00\x80\x05\x01\x00\x03\x02db\x00\x50", answer: greeted, target: "db:80"},
	"RSV is not 0":     {send: "\x05\x01\x00\x05\x01\x07\x03\x02db\x00\x50", answer: greeted, target: "db:80"},
	"the longest name": {send: "\x05\x01\x00\x05\x01\x00\x03\xff" + strings.Repeat("n", 255) + "\x00\x50", answer: greeted, target: strings.Repeat("n", 255) + ":80"},
	"bytes pipelined behind the request": {
		send:   "\x05\x01\x00\x05\x01\x00\x03\x02db\x00\x50GET / HTTP/1.0\r\n\r\n",
		answer: greeted, target: "db:80", ahead: "GET / HTTP/1.0\r\n\r\n",
	},
	"more pipelined than the buffer takes": {
		send:   "\x05\x01\x00\x05\x01\x00\x03\x02db\x00\x50" + strings.Repeat("0123456789abcdef", 2000),
		answer: greeted, target: "db:80", ahead: strings.Repeat("0123456789abcdef", 2000),
	},

	"no method at all":         {send: "\x05\x00", err: "no method without authentication", answer: noMethod},
	"only a password":          {send: "\x05\x01\x02", err: "no method without authentication (02)", hint: "remove it from the client's settings", answer: noMethod},
	"only SAP's method":        {send: "\x05\x01\x80", err: "no method without authentication (80)", answer: noMethod},
	"BIND":                     {send: "\x05\x01\x00\x05\x02\x00\x01\x0a\x00\x00\x07\x15\x38", err: "command 2", answer: greeted + commandUnsupported},
	"UDP ASSOCIATE":            {send: "\x05\x01\x00\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00", err: "command 3", hint: "carries neither", answer: greeted + commandUnsupported},
	"Tor's RESOLVE":            {send: "\x05\x01\x00\x05\xf0\x00\x03\x02db\x00\x00", err: "command 240", answer: greeted + commandUnsupported},
	"address type 0":           {send: "\x05\x01\x00\x05\x01\x00\x00\x02db\x00\x50", err: "address type 0x00", answer: greeted + typeUnsupported},
	"address type 2":           {send: "\x05\x01\x00\x05\x01\x00\x02", err: "address type 0x02", answer: greeted + typeUnsupported},
	"address type ff, and on":  {send: "\x05\x01\x00\x05\x01\x00\xff" + strings.Repeat("x", 100_000), err: "address type 0xff", answer: greeted + typeUnsupported},
	"port 0":                   {send: "\x05\x01\x00\x05\x01\x00\x03\x02db\x00\x00", err: "port 0", hint: "check the port", answer: greeted + generalFailure},
	"an empty name":            {send: "\x05\x01\x00\x05\x01\x00\x03\x00\x00\x50", err: "host name of 0 bytes", answer: greeted + generalFailure},
	"a name with a line break": {send: "\x05\x01\x00\x05\x01\x00\x03\x04d\r\nb\x00\x50", err: "byte 0x0d", answer: greeted + generalFailure},
	"a name with a zero":       {send: "\x05\x01\x00\x05\x01\x00\x03\x03d\x00b\x00\x50", err: "byte 0x00", answer: greeted + generalFailure},
	"a request of version 4":   {send: "\x05\x01\x00\x04\x01\x00\x50\x0a\x00\x00\x07\x00", err: "not version 5", answer: greeted + generalFailure},

	"SOCKS4":           {send: "\x04\x01\x00\x50\x0a\x00\x00\x07user\x00", err: "SOCKS4 on a listener of kind socks5", hint: "set it to SOCKS5", answer: "\x00\x5b\x00\x00\x00\x00\x00\x00"},
	"HTTP":             {send: "GET http://example/ HTTP/1.1\r\nHost: example\r\n\r\n", err: "HTTP on a listener of kind socks5", hint: "set it to SOCKS5", answer: "HTTP/1.1 400 Bad Request"},
	"CONNECT":          {send: "CONNECT db:80 HTTP/1.1\r\n\r\n", err: "HTTP on a listener of kind socks5", hint: "set it to SOCKS5", answer: "HTTP/1.1 400 Bad Request"},
	"TLS":              {send: "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", err: "TLS on a listener of kind socks5", hint: "not https://", answer: "\x15\x03\x01\x00\x02\x02\x0a"},
	"SSH":              {send: "SSH-2.0-OpenSSH_9.2\r\n", err: "on a listener of kind socks5", answer: "HTTP/1.1 400 Bad Request"},
	"another protocol": {send: "\x00\x00\x00\x08\x04\xd2\x16\x2f", err: "an unknown protocol (its first byte is 0x00)", answer: noMethod},
}

func TestSOCKS5(t *testing.T) {
	for name, tt := range socks5Cases {
		for manner, how := range manners {
			if how == bytewise && len(tt.send) > 10_000 {
				continue // a matter of minutes
			}
			t.Run(name+", "+manner, func(t *testing.T) { tt.run(t, KindSOCKS5, how) })
		}
	}
}

// TestSOCKS5CutOff: a handshake that ends anywhere before its end is answered,
// and never taken for a whole one.
func TestSOCKS5CutOff(t *testing.T) {
	const greeting, request = "\x05\x01\x00", "\x05\x01\x00\x03\x02db\x00\x50"
	whole := greeting + request
	for n := 1; n < len(whole); n++ {
		tt := handshakeCase{send: whole[:n], err: "EOF", answer: greeted + generalFailure}
		if n < len(greeting) {
			tt.answer = noMethod
		}
		tt.run(t, KindSOCKS5, thenEOF)
	}
}
