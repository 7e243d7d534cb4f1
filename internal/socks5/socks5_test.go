package socks5

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// read is one of the Read functions, its result made comparable.
type read func(io.Reader) (any, error)

var (
	greeting = read(func(r io.Reader) (any, error) { return ReadGreeting(r) })
	method   = read(func(r io.Reader) (any, error) { return ReadMethod(r) })
	request  = read(func(r io.Reader) (any, error) { return ReadRequest(r) })
	reply    = read(func(r io.Reader) (any, error) { return ReadReply(r) })
	userPass = read(func(r io.Reader) (any, error) { return ReadUserPass(r) })
	status   = read(func(r io.Reader) (any, error) { return ReadUserPassStatus(r) })
)

func TestMessages(t *testing.T) {
	name := strings.Repeat("n", 255)
	tests := []struct {
		name string
		wire string // as the RFCs have it, byte by byte
		made []byte // what the Append function makes; nil: it cannot
		read read
		want any
	}{
		{"greeting", "\x05\x01\x80", must(AppendGreeting(nil, 0x80)), greeting, []Method{0x80}},
		{"greeting of four", "\x05\x04\x00\x01\x02\x80", must(AppendGreeting(nil, 0, 1, 2, 0x80)), greeting, []Method{0, 1, 2, 0x80}},
		{"greeting of none", "\x05\x00", nil, greeting, []Method{}},
		{"method", "\x05\x80", AppendMethod(nil, 0x80), method, Method(0x80)},
		{"no method", "\x05\xff", AppendMethod(nil, MethodUnacceptable), method, MethodUnacceptable},
		{"request by IPv4", "\x05\x01\x00\x01\x0a\x00\x00\x01\x15\x38", must(AppendRequest(nil, Request{Connect, Address{"10.0.0.1", 5432}})), request, Request{Connect, Address{"10.0.0.1", 5432}}},
		{"request by IPv6", "\x05\x01\x00\x04" + strings.Repeat("\x00", 15) + "\x01\x00\x16", must(AppendRequest(nil, Request{Connect, Address{"::1", 22}})), request, Request{Connect, Address{"::1", 22}}},
		{"request by name", "\x05\x01\x00\x03\x09orders-db\x15\x38", must(AppendRequest(nil, Request{Connect, Address{"orders-db", 5432}})), request, Request{Connect, Address{"orders-db", 5432}}},
		{"request by the longest name", "\x05\x01\x00\x03\xff" + name + "\xff\xff", must(AppendRequest(nil, Request{Connect, Address{name, 65535}})), request, Request{Connect, Address{name, 65535}}},
		{"unknown command", "\x05\x09\x00\x03\x01a\x00\x01", must(AppendRequest(nil, Request{9, Address{"a", 1}})), request, Request{9, Address{"a", 1}}},
		{"RSV is not looked at", "\x05\x01\xff\x03\x01a\x00\x01", nil, request, Request{Connect, Address{"a", 1}}},
		{"reply with IPv4", "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00", must(AppendReply(nil, Reply{})), reply, Reply{Bound: Address{"0.0.0.0", 0}}},
		{"reply with IPv6", "\x05\x00\x00\x04" + strings.Repeat("\x00", 15) + "\x01\x00\x16", must(AppendReply(nil, Reply{Bound: Address{"::1", 22}})), reply, Reply{Bound: Address{"::1", 22}}},
		{"reply with a name", "\x05\x00\x00\x03\x01a\x00\x01", must(AppendReply(nil, Reply{Bound: Address{"a", 1}})), reply, Reply{Bound: Address{"a", 1}}},
		{"reply with an empty name", "\x05\x00\x00\x03\x00\x00\x01", nil, reply, Reply{Bound: Address{"", 1}}},
		{"refusal of two bytes", "\x05\x02", nil, reply, Reply{Code: NotAllowed}},
		{"unassigned refusal", "\x05\x63", nil, reply, Reply{Code: 0x63}},
		{"username and password", "\x01\x05alice\x02pw", must(AppendUserPass(nil, UserPass{"alice", "pw"})), userPass, UserPass{"alice", "pw"}},
		{"empty password", "\x01\x01a\x00", must(AppendUserPass(nil, UserPass{"a", ""})), userPass, UserPass{"a", ""}},
		{"accepted", "\x01\x00", AppendUserPassStatus(nil, true), status, byte(0)},
		{"refused", "\x01\x01", AppendUserPassStatus(nil, false), status, byte(1)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.made != nil && string(tt.made) != tt.wire {
				t.Errorf("made % x, want % x", tt.made, tt.wire)
			}
			for _, form := range []string{"at once", "a byte at a time"} {
				whole := strings.NewReader(tt.wire + "first data")
				var r io.Reader = whole
				if form != "at once" {
					r = iotest.OneByteReader(whole)
				}
				got, err := tt.read(r)
				if err != nil || !reflect.DeepEqual(got, tt.want) {
					t.Fatalf("read %s: %#v, %v; want %#v", form, got, err, tt.want)
				}
				if rest, _ := io.ReadAll(whole); string(rest) != "first data" {
					t.Errorf("read %s: %q is left behind the message", form, rest)
				}
			}
			for n := range len(tt.wire) {
				_, err := tt.read(strings.NewReader(tt.wire[:n]))
				want := io.ErrUnexpectedEOF
				if n == 0 {
					want = io.EOF
				}
				if !errors.Is(err, want) {
					t.Errorf("%d of %d bytes: %v, want %v", n, len(tt.wire), err, want)
				}
			}
		})
	}
}

// A refusal is told after two bytes; what a server sends behind them is left.
func TestRefusalInFull(t *testing.T) {
	r := bytes.NewReader(must(AppendReply(nil, Reply{Code: HostUnreachable})))
	if p, err := ReadReply(r); err != nil || p.Code != HostUnreachable || r.Len() != 8 {
		t.Errorf("%+v, %v, %d bytes left; want host unreachable and 8", p, err, r.Len())
	}
}

// Everything here is told without waiting for another byte: the reader fails
// the test when it is asked for one.
func TestMalformed(t *testing.T) {
	tests := []struct {
		name, wire string
		read       read
		want       string
	}{
		{"HTTP at the greeting", "G", greeting, "SOCKS greeting begins with 0x47, not version 5"},
		{"SOCKS4 at the greeting", "\x04", greeting, "SOCKS greeting begins with 0x04, not version 5"},
		{"HTTP at the method", "HT", method, "SOCKS method begins with 0x48, not version 5"},
		{"version of the request", "\x04", request, "SOCKS request begins with 0x04, not version 5"},
		{"version of the reply", "\x00", reply, "SOCKS reply begins with 0x00, not version 5"},
		{"version of the username", "\x05", userPass, "SOCKS username and password begins with 0x05, not version 1"},
		{"version of the status", "\x05", status, "SOCKS authentication status begins with 0x05, not version 1"},
		{"address type of the request", "\x05\x01\x00\x02", request, "read SOCKS request: unknown address type 0x02"},
		{"address type of the reply", "\x05\x00\x00\x00", reply, "read SOCKS reply: unknown address type 0x00"},
		{"empty name", "\x05\x01\x00\x03\x00\x00\x01", request, "read SOCKS request: malformed SOCKS message: host name of 0 bytes, not 1 to 255"},
		{"line feed in a name", "\x05\x01\x00\x03\x03a\nb\x00\x01", request, "read SOCKS request: malformed SOCKS message: host name with byte 0x0a"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			waits := errors.New("waits for more")
			_, err := tt.read(io.MultiReader(strings.NewReader(tt.wire), iotest.ErrReader(waits)))
			if !errors.Is(err, ErrMalformed) || err.Error() != tt.want {
				t.Errorf("%v, want %s", err, tt.want)
			}
		})
	}
}

func TestErrorTypes(t *testing.T) {
	_, err := ReadGreeting(strings.NewReader("\x04\x01"))
	var version *VersionError
	if !errors.As(err, &version) || version.Got != 4 || version.Want != 5 {
		t.Errorf("%v, want a VersionError", err)
	}
	_, err = ReadRequest(strings.NewReader("\x05\x01\x00\x07"))
	var address *AddressTypeError
	if !errors.As(err, &address) || address.Type != 7 {
		t.Errorf("%v, want an AddressTypeError", err)
	}
}

func TestConnectionErrorIsNotMalformed(t *testing.T) {
	broken := errors.New("broken")
	for i, f := range []read{greeting, method, request, reply, userPass, status} {
		_, err := f(io.MultiReader(strings.NewReader(""), iotest.ErrReader(broken)))
		if !errors.Is(err, broken) || errors.Is(err, ErrMalformed) {
			t.Errorf("%d: %v", i, err)
		}
	}
}

func TestRefusedToAppend(t *testing.T) {
	long := strings.Repeat("x", 256)
	tests := map[string]func() ([]byte, error){
		"no methods":        func() ([]byte, error) { return AppendGreeting(nil) },
		"256 methods":       func() ([]byte, error) { return AppendGreeting(nil, make([]Method, 256)...) },
		"no name":           func() ([]byte, error) { return AppendRequest(nil, Request{Connect, Address{"", 1}}) },
		"name too long":     func() ([]byte, error) { return AppendRequest(nil, Request{Connect, Address{long, 1}}) },
		"space in a name":   func() ([]byte, error) { return AppendRequest(nil, Request{Connect, Address{"a b", 1}}) },
		"IPv6 with a zone":  func() ([]byte, error) { return AppendRequest(nil, Request{Connect, Address{"fe80::1%eth0", 1}}) },
		"empty username":    func() ([]byte, error) { return AppendUserPass(nil, UserPass{"", "x"}) },
		"username too long": func() ([]byte, error) { return AppendUserPass(nil, UserPass{long, "x"}) },
		"password too long": func() ([]byte, error) { return AppendUserPass(nil, UserPass{"x", long}) },
	}
	for name, f := range tests {
		if b, err := f(); err == nil {
			t.Errorf("%s: made % x", name, b)
		} else if strings.Contains(err.Error(), long) {
			t.Errorf("%s: the value is in the error", name)
		}
	}
}

// A message is added to what is in the buffer, so that several leave together.
func TestAppendKeepsTheBuffer(t *testing.T) {
	b := must(AppendGreeting(nil, MethodUserPass))
	b = must(AppendUserPass(b, UserPass{"u", "p"}))
	b = must(AppendRequest(b, Request{Connect, Address{"h", 1}}))
	if want := "\x05\x01\x02\x01\x01u\x01p\x05\x01\x00\x03\x01h\x00\x01"; string(b) != want {
		t.Errorf("% x, want % x", b, want)
	}
}

func TestText(t *testing.T) {
	for text, got := range map[string]string{
		"TTL expired":          TTLExpired.Text(),
		"unassigned code 0x09": Code(9).Text(),
		"[::1]:22":             Address{"::1", 22}.String(),
		"a.corp:22":            Address{"a.corp", 22}.String(),
		"alice":                fmt.Sprintf("%v", UserPass{"alice", "secret"}),
	} {
		if got != text {
			t.Errorf("%q, want %q", got, text)
		}
	}
	if s := fmt.Sprintf("%#v %+v", UserPass{"a", "secret"}, &UserPass{"a", "secret"}); strings.Contains(s, "secret") {
		t.Errorf("the password is printed: %s", s)
	}
}
