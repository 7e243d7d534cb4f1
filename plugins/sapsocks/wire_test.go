package sapsocks_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/plugins/sapsocks"
	"github.com/tunneld/tunneld/plugins/sdk"
)

// turn is one exchange as the proxy sees it: it reads so many bytes and
// answers. The bytes are written out here, apart from the code's own codec.
type turn struct{ want, answer string }

// script is a proxy that plays turns, then an echo service unless it ends, and
// tells what it saw.
func script(t *testing.T, end bool, turns ...turn) (address string, errs <-chan error) {
	out := make(chan error, 8)
	return nettest.Serve(t, func(c *net.TCPConn) {
		for i, turn := range turns {
			got := make([]byte, len(turn.want))
			if n, err := io.ReadFull(c, got); err != nil || string(got) != turn.want {
				out <- fmt.Errorf("turn %d: the client sent % x (%w), want % x", i, got[:n], err, turn.want)
				return
			}
			if _, err := io.WriteString(c, turn.answer); err != nil {
				out <- err
				return
			}
		}
		out <- nil
		if !end {
			_, _ = io.Copy(c, c)
			_ = c.CloseWrite()
		}
	}), out
}

// auth is the message of method 0x80, written out.
func auth(jwt, location string) string {
	n := make([]byte, 4)
	binary.BigEndian.PutUint32(n, uint32(len(jwt)))
	return "\x01" + string(n) + jwt + string([]byte{byte(len(location))}) + location
}

const (
	ok       = "\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x07"
	askEcho  = "\x05\x01\x00\x03\x09echo.corp\x00\x07"
	greeting = "\x05\x01\x80"
)

// Notes, "Bytes": the messages as they stand there.
func TestBytes(t *testing.T) {
	huge := strings.Repeat("j", 20<<10)
	tests := []struct {
		name   string
		values values
		target string
		turns  []turn
	}{
		{"05 01 80, no location id is 00 and nothing", values{"token": "jwt"}, "echo.corp:7",
			[]turn{{greeting, "\x05\x80"}, {auth("jwt", ""), "\x01\x00"}, {askEcho, ok}}},
		{"LOC is the padded standard base64 of the location id", values{"token": "jwt", "location_id": "berlin"}, "echo.corp:7",
			[]turn{{greeting, "\x05\x80"}, {auth("jwt", "YmVybGlu"), "\x01\x00"}, {askEcho, ok}}},
		{"padded, standard alphabet", values{"token": "jwt", "location_id": "a?>b~ü"}, "echo.corp:7",
			[]turn{{greeting, "\x05\x80"}, {auth("jwt", "YT8+Yn7DvA=="), "\x01\x00"}, {askEcho, ok}}},
		{"a location id of 189 bytes just fits", values{"token": "jwt", "location_id": strings.Repeat("a", 189)}, "echo.corp:7",
			[]turn{{greeting, "\x05\x80"}, {auth("jwt", strings.Repeat("YWFh", 63)), "\x01\x00"}, {askEcho, ok}}},
		{"a JWT of 20 KB is normal", values{"token": huge}, "echo.corp:7",
			[]turn{{greeting, "\x05\x80"}, {auth(huge, ""), "\x01\x00"}, {askEcho, ok}}},
		{"a given token is opaque, but for a file's line feed", values{"token": "not a JWT!\n"}, "echo.corp:7",
			[]turn{{greeting, "\x05\x80"}, {auth("not a JWT!", ""), "\x01\x00"}, {askEcho, ok}}},
		{"an IPv4 literal goes as ATYP 1", values{"token": "jwt"}, "10.0.0.1:5432",
			[]turn{{greeting, "\x05\x80"}, {auth("jwt", ""), "\x01\x00"}, {"\x05\x01\x00\x01\x0a\x00\x00\x01\x15\x38", ok}}},
		{"an IPv4-mapped literal is IPv4", values{"token": "jwt"}, "[::ffff:10.0.0.1]:5432",
			[]turn{{greeting, "\x05\x80"}, {auth("jwt", ""), "\x01\x00"}, {"\x05\x01\x00\x01\x0a\x00\x00\x01\x15\x38", ok}}},
		{"a name goes out unresolved", values{"token": "jwt"}, "no.such.host.invalid:1",
			[]turn{{greeting, "\x05\x80"}, {auth("jwt", ""), "\x01\x00"}, {"\x05\x01\x00\x03\x14no.such.host.invalid\x00\x01", ok}}},
		{"trusted mode: exactly 00 is offered, and no token sent", values{"auth": "none"}, "echo.corp:7",
			[]turn{{"\x05\x01\x00", "\x05\x00"}, {askEcho, ok}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			address, errs := script(t, false, tt.turns...)
			tt.values["proxy"] = address
			u := configure(t, tt.values)
			c, err := u.Dial(within(t), tt.target)
			if proxy := <-errs; proxy != nil || err != nil {
				t.Fatalf("dial: %v; proxy: %v", err, proxy)
			}
			if c.Path != "direct" || len(c.ReadAhead) != 0 {
				t.Errorf("path %s with %d bytes read ahead; want direct and 0", c.Path, len(c.ReadAhead))
			}
			exchange(t, c, "hello")
		})
	}
}

// Notes, "Bytes": "Accept ATYP 1, 3 and 4 in a reply. A reply may arrive a byte at
// a time, or together with the first data."
func TestReplies(t *testing.T) {
	tests := map[string]string{
		"ATYP 1":             ok,
		"ATYP 3":             "\x05\x00\x00\x03\x04host\x00\x07",
		"ATYP 3, empty name": "\x05\x00\x00\x03\x00\x00\x07",
		"ATYP 4":             "\x05\x00\x00\x04" + strings.Repeat("\x01", 16) + "\x00\x07",
	}
	for name, reply := range tests {
		t.Run(name, func(t *testing.T) {
			address, errs := script(t, true, turn{greeting, "\x05\x80"}, turn{auth("jwt", ""), "\x01\x00"}, turn{askEcho, reply + "first data"})
			c, err := configure(t, values{"proxy": address, "token": "jwt"}).Dial(within(t), "echo.corp:7")
			if proxy := <-errs; proxy != nil || err != nil {
				t.Fatalf("dial: %v; proxy: %v", err, proxy)
			}
			defer c.Close()
			if got, err := io.ReadAll(c); err != nil || string(got) != "first data" {
				t.Errorf("%q, %v; want the data that came with the reply", got, err)
			}
		})
	}
}

// Notes, "Bytes": "Error replies come as two bytes then EOF as well as in full:
// report REP even when the rest never comes."
func TestRefusalOfTwoBytes(t *testing.T) {
	for name, end := range map[string]bool{"then EOF": true, "and nothing more": false} {
		t.Run(name, func(t *testing.T) {
			address, errs := script(t, end, turn{greeting, "\x05\x80"}, turn{auth("jwt", ""), "\x01\x00"}, turn{askEcho, "\x05\x02"})
			fails(t, configure(t, values{"proxy": address, "token": "jwt"}), "echo.corp:7", sapsocks.ReplyNoMapping)
			if err := <-errs; err != nil {
				t.Error(err)
			}
		})
	}
}

// What a proxy may answer instead, each in its place.
func TestAnswers(t *testing.T) {
	tests := []struct {
		name  string
		auth  string
		turns []turn
		kind  sapsocks.Kind
	}{
		{"notes: the server may answer the greeting with ff", "jwt", []turn{{greeting, "\x05\xff"}}, sapsocks.ProxyNoJWT},
		{"notes: or 00, which was not offered", "jwt", []turn{{greeting, "\x05\x00"}}, sapsocks.ProxyTrusted},
		{"a method that nobody offered", "jwt", []turn{{greeting, "\x05\x02"}}, sapsocks.ProxyOddMethod},
		{"trusted mode wanted, authentication asked for", "none", []turn{{"\x05\x01\x00", "\x05\xff"}}, sapsocks.ProxyWantsAuth},
		{"trusted mode wanted, 80 chosen", "none", []turn{{"\x05\x01\x00", "\x05\x80"}}, sapsocks.ProxyOddMethod},
		{"a web server", "jwt", []turn{{greeting, "HTTP/1.1 400 Bad Request\r\n\r\n"}}, sapsocks.ProxyNotSOCKS},
		{"closed at the greeting", "jwt", []turn{{greeting, ""}}, sapsocks.HandshakeBroken},
		{"closed within the method", "jwt", []turn{{greeting, "\x05"}}, sapsocks.HandshakeBroken},
		{"notes: 01 xx, then close (refused)", "jwt", []turn{{greeting, "\x05\x80"}, {auth("jwt", ""), "\x01\x17"}}, sapsocks.AuthRefused},
		{"another version of the authentication", "jwt", []turn{{greeting, "\x05\x80"}, {auth("jwt", ""), "\x05\x00"}}, sapsocks.HandshakeMalformed},
		{"closed instead of a status", "jwt", []turn{{greeting, "\x05\x80"}, {auth("jwt", ""), ""}}, sapsocks.HandshakeBroken},
		{"closed instead of a reply", "jwt", []turn{{greeting, "\x05\x80"}, {auth("jwt", ""), "\x01\x00"}, {askEcho, ""}}, sapsocks.RequestBroken},
		{"closed within a good reply", "jwt", []turn{{greeting, "\x05\x80"}, {auth("jwt", ""), "\x01\x00"}, {askEcho, ok[:7]}}, sapsocks.RequestBroken},
		{"a good reply with an unknown address type", "jwt", []turn{{greeting, "\x05\x80"}, {auth("jwt", ""), "\x01\x00"}, {askEcho, "\x05\x00\x00\x05"}}, sapsocks.RequestMalformed},
		{"another version of the reply", "jwt", []turn{{greeting, "\x05\x80"}, {auth("jwt", ""), "\x01\x00"}, {askEcho, "\x04\x5a"}}, sapsocks.RequestMalformed},
		{"a reply of no meaning", "jwt", []turn{{greeting, "\x05\x80"}, {auth("jwt", ""), "\x01\x00"}, {askEcho, "\x05\x09"}}, sapsocks.ReplyUnassigned},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			address, errs := script(t, true, tt.turns...)
			v := values{"proxy": address, "auth": tt.auth}
			if tt.auth == "jwt" {
				v["token"] = "jwt"
			}
			fails(t, configure(t, v), "echo.corp:7", tt.kind)
			if err := <-errs; err != nil {
				t.Error(err)
			}
		})
	}
}

// Notes, "REP, as SAP means it": the table, line by line. None of them is tried
// again with a token that was given.
func TestREP(t *testing.T) {
	tests := []struct {
		rep       byte
		kind      sapsocks.Kind
		reason    string
		retryable bool
		says      string
	}{
		{1, sapsocks.ReplyGeneral, "unavailable", true, "the backend closed the connection, or a general failure"},
		{2, sapsocks.ReplyNoMapping, "denied", false, "the Cloud Connector has no mapping for echo.corp:7"},
		{3, sapsocks.ReplyNoConnector, "unavailable", true, "not connected to the subaccount, or its location id is not known"},
		{4, sapsocks.ReplyUnreachable, "unreachable", true, "the Cloud Connector cannot reach the host behind echo.corp:7"},
		{5, sapsocks.ReplyAuthRefused, "unauthenticated", false, "authentication failure"},
		{6, sapsocks.ReplyUnused, "protocol", false, "SAP does not use"},
		{7, sapsocks.ReplyCommand, "protocol", false, "only CONNECT is supported"},
		{8, sapsocks.ReplyAddressType, "protocol", false, "only host names and IPv4 addresses are supported"},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%02x", tt.rep), func(t *testing.T) {
			refusal := bytes.Clone([]byte(ok))
			refusal[1] = tt.rep
			address, errs := script(t, true, turn{greeting, "\x05\x80"}, turn{auth("jwt", "YmVybGlu"), "\x01\x00"}, turn{askEcho, string(refusal)})
			u := configure(t, values{"proxy": address, "token": "jwt", "location_id": "berlin"})
			e := fails(t, u, "echo.corp:7", tt.kind)
			if e.Reason.String() != tt.reason || e.Retryable != tt.retryable || !strings.Contains(e.Message, tt.says) || e.Hint == "" {
				t.Errorf("%s, retryable %v: %q (%q); want %s, %v: %q", e.Reason, e.Retryable, e.Message, e.Hint, tt.reason, tt.retryable, tt.says)
			}
			if tt.rep == 3 && !strings.Contains(e.Hint, `"berlin"`) {
				t.Errorf("the hint does not name the location id: %q", e.Hint)
			}
			if err := <-errs; err != nil {
				t.Error(err)
			}
		})
	}
}

// Notes, "Bytes": "There is no IPv6 and no UDP: say so clearly." The proxy is not
// even asked: it listens nowhere.
func TestTargets(t *testing.T) {
	u := configure(t, values{"proxy": "127.0.0.1:1", "token": "jwt"})
	e := fails(t, u, "[2001:db8::1]:5432", sapsocks.IPv6Target)
	if !strings.Contains(e.Message, "[2001:db8::1]:5432 is an IPv6 address") {
		t.Errorf("%q", e.Message)
	}
	for _, e := range []*sdk.DialError{
		e,
		fails(t, u, "a-label", sapsocks.BadTarget),
		fails(t, u, strings.Repeat("n", 256)+":1", sapsocks.BadTarget),
		fails(t, u, "two words:1", sapsocks.BadTarget),
	} {
		// No upstream of the kind carries it.
		if e.Reason != sdk.ReasonUnreachable || e.Retryable {
			t.Errorf("%s, retryable %v: %s", e.Reason, e.Retryable, e.Message)
		}
	}
}
