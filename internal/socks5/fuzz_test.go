package socks5

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"reflect"
	"testing"
	"testing/iotest"
)

// fuzz checks of any input: the same is read from it whole and in pieces, no
// byte behind the message is taken, and what again makes from the result is
// read as the same result.
func fuzz[T any](f *testing.F, read func(io.Reader) (T, error), again func(T) ([]byte, error), seeds ...string) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		whole := bytes.NewReader(b)
		got, err := read(whole)
		pieces, piecesErr := read(iotest.OneByteReader(bytes.NewReader(b)))
		if (err == nil) != (piecesErr == nil) || !reflect.DeepEqual(got, pieces) {
			t.Fatalf("whole: %#v, %v; in pieces: %#v, %v", got, err, pieces, piecesErr)
		}
		if err != nil {
			return
		}
		taken := b[:len(b)-whole.Len()]
		if _, err := read(bytes.NewReader(taken[:len(taken)-1])); err == nil {
			t.Fatalf("% x: the last byte that was taken is not of the message", taken)
		}
		made, err := again(got)
		if err != nil {
			return // sent by a peer, but nothing that this side would send
		}
		if second, err := read(bytes.NewReader(made)); err != nil || !reflect.DeepEqual(second, got) {
			t.Fatalf("%#v is written as % x and read as %#v, %v", got, made, second, err)
		}
	})
}

// canonical says whether an IP address that came as a name is spelt as it would
// be when it came as an address.
func canonical(a Address) bool {
	ip, err := netip.ParseAddr(a.Host)
	return err != nil || ip.String() == a.Host
}

func FuzzReadGreeting(f *testing.F) {
	fuzz(f, ReadGreeting, func(m []Method) ([]byte, error) { return AppendGreeting(nil, m...) },
		"\x05\x01\x80", "\x05\x04\x00\x01\x02\x80", "\x05\x00", "GET / HTTP/1.1\r\n")
}

func FuzzReadMethod(f *testing.F) {
	fuzz(f, ReadMethod, func(m Method) ([]byte, error) { return AppendMethod(nil, m), nil }, "\x05\x80", "\x05\xff")
}

func FuzzReadRequest(f *testing.F) {
	fuzz(f, ReadRequest, func(q Request) ([]byte, error) {
		if !canonical(q.Address) {
			return nil, errors.New("an IP address sent as a name, in a form of its own")
		}
		return AppendRequest(nil, q)
	},
		"\x05\x01\x00\x01\x0a\x00\x00\x01\x15\x38", "\x05\x01\x00\x03\x04a.be\x00\x01",
		"\x05\x01\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x0a\x00\x00\x01\x00\x16")
}

func FuzzReadReply(f *testing.F) {
	fuzz(f, ReadReply, func(p Reply) ([]byte, error) {
		if !canonical(p.Bound) || p.Code == Succeeded && p.Bound.Host == "" {
			return nil, errors.New("an empty name, or an IP address in a form of its own")
		}
		made, err := AppendReply(nil, p)
		if p.Code != Succeeded && err == nil {
			made = made[:2]
		}
		return made, err
	},
		"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00", "\x05\x02", "\x05\x00\x00\x03\x00\x00\x01")
}

func FuzzReadUserPass(f *testing.F) {
	fuzz(f, ReadUserPass, func(u UserPass) ([]byte, error) { return AppendUserPass(nil, u) },
		"\x01\x05alice\x02pw", "\x01\x00\x00")
}

func FuzzReadUserPassStatus(f *testing.F) {
	fuzz(f, ReadUserPassStatus, func(status byte) ([]byte, error) {
		if status > 1 {
			return nil, errors.New("a refusal, but not this side's")
		}
		return AppendUserPassStatus(nil, status == 0), nil
	},
		"\x01\x00", "\x01\x01")
}
