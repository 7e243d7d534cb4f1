package listen

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/bare"
	"github.com/tunneld/tunneld/internal/socks5"
)

// alice lets in alice with her password, and nobody else.
func alice(_ context.Context, user, password string) (bool, error) {
	return proveAlice(user, password) == nil, nil
}

// proveAlice is what becomes of alice within the reader of a protocol.
func proveAlice(user, password string) error {
	if user == "alice" && password == "se:cret" {
		return nil
	}
	return &LoginError{User: user}
}

// busy checks nobody.
func busy(context.Context, string, string) (bool, error) {
	return false, errors.New("too many wait")
}

// neverAsked is a Login of a listener whose clients are refused anyway.
func neverAsked(t *testing.T) Login {
	return func(context.Context, string, string) (bool, error) {
		t.Error("a password is checked")
		return true, nil
	}
}

// Of RFC 1929.
const (
	withPassword = "\x05\x02"
	letIn        = "\x01\x00"
	notLetIn     = "\x01\x01"
	login        = "\x01\x05alice\x07se:cret"
	socksToDB    = "\x05\x01\x00\x03\x02db\x00\x50"
)

var socks5Logins = map[string]handshakeCase{
	"as it should be":            {send: "\x05\x01\x02" + login + socksToDB, answer: withPassword + letIn, user: "alice", target: "db:80"},
	"any method":                 {send: "\x05\x03\x00\x01\x02" + login + socksToDB, answer: withPassword + letIn, user: "alice", target: "db:80"},
	"with bytes behind":          {send: "\x05\x01\x02" + login + socksToDB + "hello", answer: withPassword + letIn, user: "alice", target: "db:80", ahead: "hello"},
	"no password offered":        {send: "\x05\x01\x00" + socksToDB, err: "does not offer to send a password (00)", hint: "the listener has an auth block", answer: noMethod},
	"GSSAPI":                     {send: "\x05\x02\x00\x01", err: "does not offer to send a password (0001)", answer: noMethod},
	"a wrong password":           {send: "\x05\x01\x02\x01\x05alice\x06secret" + socksToDB, err: "wrong user or password", hint: "check user and password", answer: withPassword + notLetIn},
	"a wrong user":               {send: "\x05\x01\x02\x01\x03bob\x07se:cret", err: "wrong user or password", answer: withPassword + notLetIn},
	"both of 255 bytes":          {send: "\x05\x01\x02\x01\xff" + strings.Repeat("u", 255) + "\xff" + strings.Repeat("p", 255), err: "wrong user or password", answer: withPassword + notLetIn},
	"neither":                    {send: "\x05\x01\x02\x01\x00\x00", err: "wrong user or password", answer: withPassword + notLetIn},
	"megabytes behind it":        {send: "\x05\x01\x02\x01\x01a\x01b" + strings.Repeat("x", 4<<20), err: "wrong user or password", answer: withPassword + notLetIn},
	"another version":            {send: "\x05\x01\x02\x05\x05alice\x07se:cret", err: "begins with 0x05", answer: withPassword + notLetIn},
	"what is wrong behind it":    {send: "\x05\x01\x02" + login + "\x05\x02\x00\x03\x02db\x00\x50", err: "command 2", answer: withPassword + letIn + commandUnsupported},
	"not checked":                {send: "\x05\x01\x02" + login, err: "not checked: too many wait", hint: "the client can try again", answer: withPassword + notLetIn, login: busy},
	"another protocol all along": {send: "GET http://example/ HTTP/1.1\r\nHost: example\r\n\r\n", err: "HTTP on a listener of kind socks5", answer: "HTTP/1.1 400 Bad Request"},
}

func TestSOCKS5Login(t *testing.T) {
	for name, tt := range socks5Logins {
		if tt.login == nil {
			tt.login = alice
		}
		for manner, how := range manners {
			if how == bytewise && len(tt.send) > 10_000 {
				continue // a matter of minutes
			}
			t.Run(name+", "+manner, func(t *testing.T) { tt.run(t, KindSOCKS5, how) })
		}
	}
}

// TestSOCKS5LoginCutOff: a login that ends anywhere before its end lets nobody in.
func TestSOCKS5LoginCutOff(t *testing.T) {
	const greeting = "\x05\x01\x02"
	for n := range len(login) {
		handshakeCase{send: greeting + login[:n], err: "EOF", answer: withPassword + notLetIn, login: neverAsked(t)}.run(t, KindSOCKS5, thenEOF)
	}
}

const (
	status407 = "HTTP/1.1 407 Proxy Authentication Required"
	status503 = "HTTP/1.1 503 Service Unavailable"
)

// basic is a CONNECT request with fields.
func basic(fields ...string) string {
	return "CONNECT db:80 HTTP/1.1\r\nHost: db:80\r\n" + strings.Join(append(fields, ""), "\r\n") + "\r\n"
}

func base(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

var httpLogins = map[string]handshakeCase{
	"as it should be":           {send: basic("Proxy-Authorization: Basic " + base("alice:se:cret")), user: "alice", target: "db:80"},
	"in other cases":            {send: basic("pRoXy-aUtHoRiZaTiOn:bAsIc   " + base("alice:se:cret") + " \t"), user: "alice", target: "db:80"},
	"bare line feeds":           {send: "CONNECT db:80 HTTP/1.1\nProxy-Authorization: Basic " + base("alice:se:cret") + "\n\n", user: "alice", target: "db:80"},
	"with bytes behind":         {send: basic("Proxy-Authorization: Basic "+base("alice:se:cret")) + "\x16hello", user: "alice", target: "db:80", ahead: "\x16hello"},
	"behind many others":        {send: basic(strings.Repeat("X: 0123456789\r\n", 1000) + "Proxy-Authorization: Basic " + base("alice:se:cret")), user: "alice", target: "db:80"},
	"none":                      {send: basic(), err: "was asked for them", answer: status407},
	"for the server":            {send: basic("Authorization: Basic " + base("alice:se:cret")), err: "was asked for them", answer: status407},
	"another scheme":            {send: basic("Proxy-Authorization: Negotiate YII="), err: "was asked for them", answer: status407},
	"nothing in it":             {send: basic("Proxy-Authorization:"), err: "was asked for them", answer: status407},
	"a wrong password":          {send: basic("Proxy-Authorization: Basic " + base("alice:secret")), err: "wrong user or password", hint: "check user and password", answer: status407},
	"a wrong user":              {send: basic("Proxy-Authorization: Basic " + base("bob:se:cret")), err: "wrong user or password", answer: status407},
	"both empty":                {send: basic("Proxy-Authorization: Basic " + base(":")), err: "wrong user or password", answer: status407},
	"both of 255 bytes":         {send: basic("Proxy-Authorization: Basic " + base(strings.Repeat("u", 255)+":"+strings.Repeat("p", 255))), err: "wrong user or password", answer: status407},
	"no colon":                  {send: basic("Proxy-Authorization: Basic " + base("alice")), err: "not base64 of USER:PASSWORD", hint: "takes Basic", answer: status400},
	"no base64":                 {send: basic("Proxy-Authorization: Basic alice:se:cret"), err: "not base64 of USER:PASSWORD", answer: status400},
	"two of it":                 {send: basic("Proxy-Authorization: Basic "+base("alice:se:cret"), "Proxy-Authorization: Basic "+base("alice:se:cret")), err: "several Proxy-Authorization fields", answer: status400},
	"two, one of them empty":    {send: basic("Proxy-Authorization: Basic "+base("alice:se:cret"), "Proxy-Authorization:"), err: "several Proxy-Authorization fields", answer: status400},
	"too much":                  {send: basic("Proxy-Authorization: Basic " + strings.Repeat("A", 40_000)), err: "too long for a user and a password", answer: status400},
	"not checked":               {send: basic("Proxy-Authorization: Basic " + base("alice:se:cret")), err: "not checked: too many wait", hint: "the client can try again", answer: status503, login: busy},
	"folded":                    {send: basic("Proxy-Authorization:\r\n Basic " + base("alice:se:cret")), err: "line 3 of its headers is not a header field", answer: status400},
	"a space before the colon":  {send: basic("Proxy-Authorization : Basic " + base("alice:se:cret")), err: "line 2 of its headers is not a header field", answer: status400},
	"another method":            {send: "GET http://example/ HTTP/1.1\r\nHost: example\r\n\r\n", plain: true},
	"no target":                 {send: "CONNECT db HTTP/1.1\r\nProxy-Authorization: Basic " + base("alice:se:cret") + "\r\n\r\n", err: "host:port", answer: status400},
	"a target that nobody gets": {send: "CONNECT 127.1:80 HTTP/1.1\r\n\r\n", err: "was asked for them", answer: status407},
}

func TestHTTPLogin(t *testing.T) {
	for name, tt := range httpLogins {
		if tt.login == nil {
			tt.login = alice
		}
		for manner, how := range manners {
			if how == bytewise && len(tt.send) > 10_000 {
				continue // a matter of minutes
			}
			t.Run(name+", "+manner, func(t *testing.T) { tt.run(t, KindHTTP, how) })
		}
	}
}

// TestHTTPLoginAnswers: what clients go by.
func TestHTTPLoginAnswers(t *testing.T) {
	for request, want := range map[string]map[string]string{
		basic(): {"Proxy-Authenticate": `Basic realm="tunneld", charset="UTF-8"`, "Proxy-Status": "tunneld; error=http_request_denied"},
		basic("Proxy-Authorization: Basic " + base("alice:wrong")): {"Proxy-Authenticate": `Basic realm="tunneld", charset="UTF-8"`, "Proxy-Status": "tunneld; error=http_request_denied"},
		basic("Proxy-Authorization: Basic " + base("busy:x")):      {"Proxy-Authenticate": "", "Retry-After": "1", "Proxy-Status": "tunneld; error=proxy_internal_error"},
	} {
		_, fail := readHTTPOnly(bufio.NewReader(strings.NewReader(request)), nil, func(user, _ string) error {
			if user == "busy" {
				return &LoginError{user, errors.New("too many wait")}
			}
			return &LoginError{user, nil}
		})
		if fail == nil {
			t.Fatalf("%q is let in", request)
		}
		res, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(fail.Answer)), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		for name, value := range want {
			if got := res.Header.Get(name); got != value {
				t.Errorf("%s is %q, want %q", name, got, value)
			}
		}
		body, err := io.ReadAll(res.Body)
		if err != nil || !res.Close || len(body) == 0 {
			t.Errorf("%+v, %q, %v", res, body, err)
		}
	}
}

// TestNoSecretIsQuoted: whatever is wrong with the field that has it, or near it.
func TestNoSecretIsQuoted(t *testing.T) {
	secret := base("alice:c4n4ry-of-alice")
	for _, field := range []string{
		"Proxy-Authorization : Basic " + secret, "Proxy-Authorization Basic " + secret, " Basic " + secret, secret, "Proxy-Authorization: Basic " + secret + "!",
		"Proxy-Authorization: Basic " + secret + "\r\nProxy-Authorization: Basic " + secret, "Proxy-Authorization: Basic " + secret + strings.Repeat("A", 2000),
		"Proxy-Authorization: Basic " + secret, "X: y\r\n" + secret, "Proxy-Authorization: Bearer " + secret,
	} {
		_, fail := readHTTPOnly(bufio.NewReader(strings.NewReader(basic(field))), nil, func(user, _ string) error { return &LoginError{User: user} })
		if fail == nil {
			t.Fatalf("%q is let in", field)
		}
		if told := fmt.Sprintf("%v %+v %s %s", fail.Err, fail, fail.Answer, Hint(fail.Err)); strings.Contains(told, secret[:8]) || strings.Contains(told, "c4n4ry") {
			t.Errorf("%q: %s", field, told)
		}
	}
}

// TestReasonsOfLogins: those of the log.
func TestReasonsOfLogins(t *testing.T) {
	for want, err := range map[string]error{
		"login": &LoginError{User: "a"},
		"busy":  &LoginError{User: "a", Unchecked: errors.New("x")},
		"asked": ErrAsked,
		"left":  ErrLeft,
	} {
		if got := Reason(fmt.Errorf("client handshake: %w", err)); got != want {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
}

// patiently is a Login that waits for as long as it may.
func patiently(ctx context.Context, _, _ string) (bool, error) {
	<-ctx.Done()
	return false, context.Cause(ctx)
}

// TestLoginTime: it is that of the handshake, and the client is told when it is over.
func TestLoginTime(t *testing.T) {
	for kind, tt := range map[string]struct{ send, answer string }{
		KindSOCKS5: {"\x05\x01\x02" + login, withPassword + notLetIn},
		KindHTTP:   {basic("Proxy-Authorization: Basic " + base("alice:se:cret")), status503},
	} {
		t.Run(kind, func(t *testing.T) {
			c, done := beginWith(t, speaking(t, kind), HandshakeOptions{Timeout: brief, Login: patiently})
			send(t, c, tt.send, inOnePiece)
			got, err := io.ReadAll(c)
			checkAnswer(t, got, err, tt.answer)
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			if o := await(t, done); Reason(o.err) != "busy" || !strings.Contains(o.err.Error(), "longer than timeouts.handshake") {
				t.Errorf("%v", o.err)
			}
		})
	}
}

// TestLoginOfSomebodyGone: its wait ends when the client has reset its connection, and
// when it is broken off.
func TestLoginOfSomebodyGone(t *testing.T) {
	request := basic("Proxy-Authorization: Basic " + base("alice:se:cret"))
	t.Run("reset", func(t *testing.T) {
		asked := make(chan struct{})
		c, done := beginWith(t, speaking(t, KindHTTP), HandshakeOptions{Login: func(ctx context.Context, user, password string) (bool, error) {
			close(asked)
			return patiently(ctx, user, password)
		}})
		send(t, c, request, inOnePiece)
		<-asked
		bare.Reset(c)
		if o := await(t, done); !errors.Is(o.err, ErrLeft) {
			t.Errorf("%v", o.err)
		}
	})
	t.Run("broken off", func(t *testing.T) {
		c, socket := pair(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("it gave way")
		send(t, c, request, inOnePiece)
		_, err := Handshake(ctx, speaking(t, KindHTTP), NewConn(socket), HandshakeOptions{Timeout: patience, Login: func(ctx context.Context, _, _ string) (bool, error) {
			cancel(why)
			return patiently(ctx, "", "")
		}})
		if !errors.Is(err, why) {
			t.Errorf("%v", err)
		}
	})
}

// TestLoginWithoutTime: a listener may give its clients all the time that they want.
func TestLoginWithoutTime(t *testing.T) {
	c, done := beginWith(t, speaking(t, KindHTTP), HandshakeOptions{Login: func(ctx context.Context, user, _ string) (bool, error) {
		_, bounded := ctx.Deadline()
		return !bounded, nil
	}})
	send(t, c, basic("Proxy-Authorization: Basic "+base("alice:x")), inOnePiece)
	if o := await(t, done); o.err != nil || o.client.User != "alice" {
		t.Errorf("%v", o.err)
	} else {
		o.client.Reset()
	}
}

// TestTimeAfterTheLogin: what a login has waited for is of the handshake's time, not more.
func TestTimeAfterTheLogin(t *testing.T) {
	c, done := beginWith(t, speaking(t, KindSOCKS5), HandshakeOptions{Timeout: time.Second / 2, Login: alice})
	send(t, c, "\x05\x01\x02"+login, inOnePiece)
	got, err := io.ReadAll(c)
	checkAnswer(t, got, err, withPassword+letIn+generalFailure)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if o := await(t, done); Reason(o.err) != "timeout" {
		t.Errorf("%v", o.err)
	}
}

func FuzzSOCKS5Login(f *testing.F) {
	const bound = 2 + 255 + 3 + 255 + 255 + 4 + 255 + 2 + socksBuffer
	fuzz(f, bound, socks5Logins, asks(socksBuffer, proveAlice, readSOCKS5), func(sent, answer []byte) error {
		if isForeign(sent, answer) {
			return nil
		}
		if sent[0] != socks5.Version && sent[0] >= 'A' && sent[0] <= 'Z' {
			return readAll(answer, isResponse)
		}
		return readAll(answer, func(r *bufio.Reader) error {
			m, err := socks5.ReadMethod(r)
			if err != nil || m == socks5.MethodUnacceptable {
				return err
			}
			status, err := socks5.ReadUserPassStatus(r)
			if err != nil || status != 0 {
				return err
			}
			reply := make([]byte, 10)
			if _, err := io.ReadFull(r, reply); err != nil || reply[1] == 0 {
				return errors.Join(errors.New("no refusal"), err)
			}
			return nil
		})
	})
}

func FuzzHTTPLogin(f *testing.F) {
	fuzz(f, maxHeader+headPiece, httpLogins, asks(headPiece, proveAlice, readHTTPOnly), httpRefused)
}
