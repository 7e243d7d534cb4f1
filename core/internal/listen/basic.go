package listen

import (
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
)

// authorization is the field by which a client proves to a proxy who it is (RFC 9110,
// section 11.7.2).
const authorization = "Proxy-Authorization"

// maxCredentials bounds what is kept of that field: users and passwords of 255 bytes each
// take 690 of it.
const maxCredentials = 1 << 10

// credentials are what a request says in Proxy-Authorization.
type credentials struct {
	fields int
	value  []byte // of the first ones, without what is beyond maxCredentials
	long   bool   // there is more
}

func (c *credentials) take(b byte) {
	if len(c.value) == maxCredentials {
		c.long = true
		return
	}
	c.value = append(c.value, b)
}

// The challenge has clients send UTF-8 (RFC 7617, section 2.1). RFC 9209 has no type of
// error for it but that of a refusal (section 2.3.22).
const challenge = "Proxy-Authenticate: Basic realm=\"tunneld\", charset=\"UTF-8\"\r\nProxy-Status: tunneld; error=http_request_denied\r\n"

const (
	sendPassword = "this proxy wants a user and a password"
	putPassword  = "put user and password into the client's settings: the listener has an auth block, and takes Basic"
)

// prove checks the credentials by HTTP's Basic scheme (RFC 7617), and returns the user.
func (c credentials) prove(prove prover) (user string, fail *Failure) {
	bad := func(text string) *Failure {
		return &Failure{Err: &mistake{text, putPassword}, Answer: httpAnswer(http.StatusBadRequest, requestError, text)}
	}
	scheme, encoded, _ := strings.Cut(strings.Trim(string(c.value), " \t\r"), " ")
	switch {
	case c.fields > 1:
		return "", bad("the request has several " + authorization + " fields")
	case c.long:
		return "", bad("the request's " + authorization + " is too long for a user and a password")
	case c.fields == 0 || !strings.EqualFold(scheme, "Basic"):
		// A client that can do more asks first what is wanted, or tries what it prefers.
		return "", &Failure{Err: ErrAsked, Answer: httpAnswer(http.StatusProxyAuthRequired, challenge, sendPassword)}
	}
	text, err := base64.StdEncoding.DecodeString(strings.TrimLeft(encoded, " "))
	user, password, found := strings.Cut(string(text), ":")
	if err != nil || !found {
		return "", bad("the request's " + authorization + " is not base64 of USER:PASSWORD")
	}
	err = prove(user, password)
	if err == nil {
		return user, nil
	}
	status, headers := http.StatusProxyAuthRequired, challenge
	if Reason(err) == reasonBusy {
		status, headers = http.StatusServiceUnavailable, "Retry-After: 1\r\nProxy-Status: tunneld; error=proxy_internal_error\r\n"
	}
	return "", &Failure{Err: err, Answer: httpAnswer(status, headers, err.Error()+"\n"+Hint(err)), Reset: errors.Is(err, errNobody)}
}
