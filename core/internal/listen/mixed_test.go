package listen

import (
	"bufio"
	"errors"
	"io"
	"maps"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/bare"
	"github.com/tunneld/tunneld/internal/socks5"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// refused4 is a refusal as SOCKS4's document has it.
const refused4 = "\x00\x5b\x00\x00\x00\x00\x00\x00"

var socks4Cases = map[string]handshakeCase{
	"IPv4":                         {send: "\x04\x01\x15\x38\x0a\x00\x00\x07\x00", target: "10.0.0.7:5432"},
	"a user id, which proves none": {send: "\x04\x01\x15\x38\x0a\x00\x00\x07alice\x00", target: "10.0.0.7:5432"},
	"the longest user id":          {send: "\x04\x01\x15\x38\x0a\x00\x00\x07" + strings.Repeat("u", 255) + "\x00", target: "10.0.0.7:5432"},
	"SOCKS4a":                      {send: "\x04\x01\x15\x38\x00\x00\x00\x01\x00orders-db.corp\x00", target: "orders-db.corp:5432"},
	"SOCKS4a with a user id":       {send: "\x04\x01\x15\x38\x00\x00\x00\xffalice\x00orders-db.corp\x00", target: "orders-db.corp:5432"},
	"SOCKS4a of an address":        {send: "\x04\x01\x15\x38\x00\x00\x00\x01\x0010.0.0.7\x00", target: "10.0.0.7:5432"},
	"the longest name":             {send: "\x04\x01\x00\x50\x00\x00\x00\x01\x00" + strings.Repeat("n", 255) + "\x00", target: strings.Repeat("n", 255) + ":80"},
	"0.0.0.0 is an address":        {send: "\x04\x01\x15\x38\x00\x00\x00\x00\x00", target: "0.0.0.0:5432"},
	"0.0.1.0 is an address":        {send: "\x04\x01\x15\x38\x00\x00\x01\x00\x00", target: "0.0.1.0:5432"},
	"bytes pipelined behind":       {send: "\x04\x01\x15\x38\x0a\x00\x00\x07\x00GET / HTTP/1.0\r\n\r\n", target: "10.0.0.7:5432", ahead: "GET / HTTP/1.0\r\n\r\n"},
	"bytes pipelined behind a name": {
		send:   "\x04\x01\x00\x50\x00\x00\x00\x01u\x00db\x00" + strings.Repeat("0123456789abcdef", 2000),
		target: "db:80", ahead: strings.Repeat("0123456789abcdef", 2000),
	},

	"BIND":                     {send: "\x04\x02\x15\x38\x0a\x00\x00\x07\x00", err: "SOCKS4 command 2", hint: "incoming connection", answer: refused4},
	"an unknown command":       {send: "\x04\xff\x15\x38\x0a\x00\x00\x07\x00", err: "SOCKS4 command 255", answer: refused4},
	"port 0":                   {send: "\x04\x01\x00\x00\x0a\x00\x00\x07\x00", err: "10.0.0.7:0, and port 0", hint: "check the port", answer: refused4},
	"port 0 of a name":         {send: "\x04\x01\x00\x00\x00\x00\x00\x01\x00db\x00", err: "db:0, and port 0", answer: refused4},
	"a user id beyond":         {send: "\x04\x01\x15\x38\x0a\x00\x00\x07" + strings.Repeat("u", 256) + "\x00", err: "user id of the client's SOCKS4 request has more than 255", hint: "SOCKS5", answer: refused4},
	"megabytes of user id":     {send: "\x04\x01\x15\x38\x0a\x00\x00\x07" + strings.Repeat("u", 4<<20), err: "more than 255", answer: refused4},
	"a name beyond":            {send: "\x04\x01\x15\x38\x00\x00\x00\x01\x00" + strings.Repeat("n", 256) + "\x00", err: "name of the client's SOCKS4 request has more than 255", answer: refused4},
	"an empty name":            {send: "\x04\x01\x15\x38\x00\x00\x00\x01\x00\x00", err: `asks for ""`, hint: "check the address", answer: refused4},
	"a name with a line break": {send: "\x04\x01\x15\x38\x00\x00\x00\x01\x00d\r\nb\x00", err: `"d\r\nb"`, answer: refused4},
	"a name with a port":       {send: "\x04\x01\x15\x38\x00\x00\x00\x01\x00a/b\x00", err: `"a/b"`, answer: refused4},
}

// othersCases are the clients that none of the mixed protocols knows.
var othersCases = map[string]handshakeCase{
	"TLS":                {send: "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", err: "TLS on a listener of kind mixed", hint: "not https://", answer: "\x15\x03\x01\x00\x02\x02\x0a"},
	"another protocol":   {send: "\x00\x00\x00\x08\x04\xd2\x16\x2f", err: "an unknown protocol (its first byte is 0x00)", hint: "check what connects", answer: status400},
	"small letters":      {send: "connect db:80 HTTP/1.1\r\n\r\n", err: "an unknown protocol (its first byte is 0x63)", answer: status400},
	"behind empty lines": {send: "\r\n\x05\x01\x00", err: "SOCKS5 on a listener of kind mixed", answer: "\x05\xff"},
}

// mixedCases are what a mixed listener takes: all that the others do, but for clients of a
// protocol that one of them does not speak.
func mixedCases() map[string]handshakeCase {
	all := map[string]handshakeCase{}
	for protocol, cases := range map[string]map[string]handshakeCase{"SOCKS5": socks5Cases, "HTTP": httpCases, "SOCKS4": socks4Cases, "others": othersCases} {
		for name, tt := range cases {
			if protocol == "others" || recognised(tt.send[0], nil).Speaks == protocol && !strings.Contains(tt.err, "on a listener of kind") {
				all[protocol+", "+name] = tt
			}
		}
	}
	return all
}

func TestMixed(t *testing.T) {
	for name, tt := range mixedCases() {
		for manner, how := range manners {
			if how == bytewise && len(tt.send) > 10_000 {
				continue // a matter of minutes
			}
			t.Run(name+", "+manner, func(t *testing.T) { tt.run(t, KindMixed, how) })
		}
	}
}

// TestMixedLogin: a client proves who it is as with the other kinds, and one of SOCKS4, which
// cannot, does not come in.
func TestMixedLogin(t *testing.T) {
	all := map[string]handshakeCase{
		"SOCKS4":           {send: "\x04\x01\x15\x38\x0a\x00\x00\x07\x00", err: "SOCKS4, which has no password", hint: "set the client to SOCKS5", answer: refused4, login: neverAsked(t)},
		"SOCKS4, the user": {send: "\x04\x01\x15\x38\x0a\x00\x00\x07alice\x00hello", err: "SOCKS4, which has no password", answer: refused4, login: neverAsked(t)},
	}
	maps.Copy(all, socks5Logins)
	maps.Copy(all, httpLogins)
	delete(all, "another protocol all along")
	for name, tt := range all {
		if tt.login == nil {
			tt.login = alice
		}
		t.Run(name, func(t *testing.T) { tt.run(t, KindMixed, inOnePiece) })
	}
}

// TestSOCKS4CutOff: a request that ends anywhere before its end is answered, and never taken
// for a whole one.
func TestSOCKS4CutOff(t *testing.T) {
	const whole = "\x04\x01\x00\x50\x00\x00\x00\x01u\x00db\x00"
	for n := 1; n < len(whole); n++ {
		handshakeCase{send: whole[:n], err: "EOF", answer: refused4}.run(t, KindMixed, thenEOF)
	}
}

// TestMixedSilence: what nobody knows the protocol of is not answered, and what has begun one
// is answered in it.
func TestMixedSilence(t *testing.T) {
	for begun, answer := range map[string]string{
		"": "", "\x04\x01": refused4, "\x05\x02\x00": noMethod, "GET": "HTTP/1.1 408 Request Timeout", "\r\n": "HTTP/1.1 408 Request Timeout",
	} {
		c, done := begin(t, KindMixed, brief)
		send(t, c, begun, inOnePiece)
		got, err := io.ReadAll(c)
		checkAnswer(t, got, err, answer)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if o := await(t, done); o.err == nil || Reason(o.err) != "timeout" || !strings.Contains(Hint(o.err), "timeouts.handshake") {
			t.Errorf("%q: %v", begun, o.err)
		}
	}
}

// TestMixedGone: a client that leaves before it has begun a protocol was a probe.
func TestMixedGone(t *testing.T) {
	for name, leave := range map[string]func(*testing.T, bare.HalfCloser){
		"closed": func(t *testing.T, c bare.HalfCloser) {
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
		},
		"reset": func(_ *testing.T, c bare.HalfCloser) { bare.Reset(c) },
	} {
		c, done := begin(t, KindMixed, patience)
		leave(t, c)
		if o := await(t, done); !errors.Is(o.err, ErrNothing) {
			t.Errorf("%s: %v", name, o.err)
		}
	}
}

// TestMixedRefusals: a client whose dial has failed, and one beyond a limit, read so in the
// protocol that they began.
func TestMixedRefusals(t *testing.T) {
	requests := map[string]struct {
		send, failed, beyond string
		login                Login
	}{
		"SOCKS4":                   {send: "\x04\x01\x00\x50\x0a\x00\x00\x07\x00", failed: refused4, beyond: refused4},
		"SOCKS5":                   {send: "\x05\x01\x00\x05\x01\x00\x03\x02db\x00\x50", failed: greeted + "\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00", beyond: greeted + generalFailure},
		"HTTP":                     {send: "CONNECT db:80 HTTP/1.1\r\n\r\n", failed: "HTTP/1.1 403 Forbidden", beyond: status503},
		"TLS":                      {send: "\x16\x03\x01\x02\x00", beyond: "\x15\x03\x01\x00\x02\x02\x0a"},
		"nothing":                  {},
		"SOCKS5, with a password":  {send: "\x05\x01\x02\x01\x05alice\x01x" + socksToDB, beyond: "\x05\x02\x01\x00" + generalFailure, login: neverAsked(t)},
		"SOCKS4, where one has to": {send: "\x04\x01\x00\x50\x0a\x00\x00\x07\x00", beyond: refused4, login: neverAsked(t)},
	}
	for name, tt := range requests {
		if tt.failed != "" {
			t.Run(name+", failed", func(t *testing.T) {
				c, done := begin(t, KindMixed, patience)
				send(t, c, tt.send, thenEOF)
				o := await(t, done)
				if o.err != nil {
					t.Fatal(o.err)
				}
				o.client.Refuse(t.Context(), &tunnel.DialError{Reason: pluginv1.Reason_REASON_DENIED, Message: "m"})
				got, err := io.ReadAll(c)
				checkAnswer(t, got, err, tt.failed)
			})
		}
		t.Run(name+", beyond a limit", func(t *testing.T) {
			c, _ := refuseBeyondALimit(t, t.Context(), KindMixed, tt.login)
			send(t, c, tt.send, thenEOF)
			got, err := io.ReadAll(c)
			checkAnswer(t, got, err, tt.beyond)
		})
	}
}

func FuzzMixedHandshake(f *testing.F) {
	wellFormed := func(sent, answer []byte) error {
		switch {
		case isForeign(sent, answer):
			return nil
		case sent[0] == socks5.Version:
			return socks5Refusal(answer)
		}
		return httpRefused(sent, answer)
	}
	fuzz(f, maxHeader+headPiece, mixedCases(), asks(headPiece, nil, readMixed), wellFormed)
}

func socks5Refusal(answer []byte) error {
	return readAll(answer, func(r *bufio.Reader) error {
		m, err := socks5.ReadMethod(r)
		if err != nil || m == socks5.MethodUnacceptable {
			return err
		}
		var reply [10]byte
		if _, err := io.ReadFull(r, reply[:]); err != nil || reply[0] != socks5.Version || reply[1] == 0 {
			return errors.Join(errors.New("no refusal"), err)
		}
		return nil
	})
}
