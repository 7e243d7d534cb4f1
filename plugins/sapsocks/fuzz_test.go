package sapsocks

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
	"time"

	"github.com/tunneld/tunneld/internal/socks5"
	"github.com/tunneld/tunneld/plugins/sdk"
)

// FuzzHandshake lets a proxy answer anything: the conversation ends with
// success or with a failure of the table, whatever the pieces are, and takes
// nothing of what follows a success.
func FuzzHandshake(f *testing.F) {
	f.Add(false, []byte("\x05\x80\x01\x00\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00data"))
	f.Add(false, []byte("\x05\x80\x01\x00\x05\x02"))
	f.Add(false, []byte("\x05\x80\x01\x01"))
	f.Add(true, []byte("\x05\x00\x05\x00\x00\x03\x01a\x00\x00data"))
	f.Add(true, []byte("HTTP/1.1 400 Bad Request"))
	f.Fuzz(func(t *testing.T, trusted bool, answer []byte) {
		whole := bytes.NewReader(answer)
		err := converse(trusted, whole)
		pieces := converse(trusted, iotest.OneByteReader(bytes.NewReader(answer)))
		if (err == nil) != (pieces == nil) || err != nil && err.Error() != pieces.Error() {
			t.Fatalf("whole: %v; in pieces: %v", err, pieces)
		}
		if err != nil {
			var e *sdk.DialError
			if !errors.As(err, &e) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("%v", err)
			}
			return
		}
		taken := len(answer) - whole.Len()
		if converse(trusted, bytes.NewReader(answer[:taken-1])) == nil {
			t.Fatalf("% x: the last byte that was taken is not of the handshake", answer[:taken])
		}
	})
}

func converse(trusted bool, answer io.Reader) error {
	h := handshake{
		settings: settings{trusted: trusted},
		address:  socks5.Address{Host: "orders-db", Port: 5432},
		jwt:      "jwt",
		limits:   sdk.Timeouts{Handshake: time.Second},
	}
	conn := struct {
		io.Reader
		io.Writer
	}{answer, io.Discard}
	if err := h.authenticate(conn); err != nil {
		return err
	}
	return h.request(conn)
}

// FuzzVCAP reads any document: each error says what to do next, and a proxy
// always has a port.
func FuzzVCAP(f *testing.F) {
	f.Add(`{"connectivity":[{"name":"a","credentials":{"clientid":"id","onpremise_socks5_proxy_port":"20004"}}]}`, "a")
	f.Add(`{"connectivity":[{"credentials":{"onpremise_proxy_host":"p","onpremise_socks5_proxy_port":1}}]}`, "")
	f.Add(`{"connectivity":[{"credentials":7}]}`, "")
	f.Add(`{"connectivity":{}}`, "")
	f.Fuzz(func(t *testing.T, document, instance string) {
		b, err := parseVCAP(document, instance)
		if err == nil {
			if _, portErr := parsePort(b.port); b.host != "" && portErr != nil {
				t.Errorf("a proxy without a port: %+v", b)
			}
			return
		}
		var v *errVCAP
		if !errors.As(err, &v) || v.detail == "" {
			t.Errorf("%v says no next step", err)
		}
	})
}
