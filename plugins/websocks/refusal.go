package websocks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/tunneld/tunneld/internal/socks5"
	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/websocks/internal/wire"
)

const (
	// maxBody bounds what is read of a refusal's body, bodyTime how long that
	// may take: what is there by then has to do. The words of a page come behind its
	// styles. With the head it is within maxAnswer.
	maxBody  = 32 << 10
	bodyTime = time.Second
	// maxExcerpt bounds what is shown of a text of the server's, in bytes.
	maxExcerpt = 200
)

// refusal is the error of an HTTP answer other than 101.
func (h *handshake) refusal(ctx context.Context, resp *http.Response) error {
	_ = h.socket.SetReadDeadline(time.Now().Add(bodyTime))
	if ctx.Err() != nil {
		_ = h.socket.SetReadDeadline(time.Unix(1, 0)) // it may have been overwritten
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	e := sdk.HTTPRefusal(sdk.StageHandshake, resp.StatusCode, resp.Header)
	e.Message, e.Hint = "the server answered "+h.config.excerpt(resp.Status), statusHint(resp.StatusCode)
	if text := h.config.excerpt(string(body)); text != "" {
		e.Message += fmt.Sprintf(": %q", text)
	}
	switch {
	case resp.StatusCode == http.StatusUnauthorized && h.config.Username == "":
		e.Hint = "the server wants a user: set username and password, or those of a proxy in front of it in via"
	case resp.StatusCode == http.StatusUnauthorized:
		e.Hint += clockHint(resp.Header.Get("Date"), h.config.clock())
	case resp.StatusCode/100 == 3 && resp.Header.Get("Location") != "":
		e.Hint = "set url to the server's new address: " + h.config.excerpt(resp.Header.Get("Location"))
	}
	return e
}

// statusHint is what to check at an HTTP status.
func statusHint(status int) string {
	switch {
	case status == http.StatusUnauthorized:
		return "check username and password (a proxy's belong in via), and this machine's clock: the password is salted with the minute, and a clock that is two minutes off is refused"
	case status == http.StatusProxyAuthRequired:
		return "a proxy in front of the server wants a login: set its address, user and password in via"
	case status == http.StatusForbidden:
		return "the gateway or the server does not allow this client: check its rules"
	case status == http.StatusNotFound, status == http.StatusGone:
		return "check the url's path, and the Host header that the gateway routes by"
	case status == http.StatusBadRequest:
		return "the server is strict about the upgrade: check that the gateway in front of it passes Upgrade and Connection on unchanged and adds no body, and that the url's scheme fits the port"
	case status == http.StatusRequestTimeout, status == http.StatusGatewayTimeout:
		return "the gateway had no answer from the server behind it: check that the server runs"
	case status == http.StatusTooManyRequests:
		return "the gateway limits how often clients may connect"
	case status == http.StatusNotImplemented, status == http.StatusHTTPVersionNotSupported:
		return "the gateway does not pass WebSocket on"
	case status >= 500:
		return "the gateway does not reach the server behind it: check that the server runs"
	case status >= 400:
		return "the gateway or the server does not take the upgrade: check url and headers"
	case status >= 300:
		return "the server is elsewhere, or requires a login: check the url"
	}
	return "the server there does not speak WebSocket: check the url's path"
}

// errTarget is behind the refusal of a target by a server that works.
var errTarget = errors.New("the server works, but refuses the target")

// replyError is the meaning of a refusal of CONNECT (RFC 1928, section 6).
func replyError(code socks5.Code) *sdk.DialError {
	e := &sdk.DialError{
		Stage:   sdk.StageRequest,
		Reason:  sdk.ReasonProtocol,
		Message: fmt.Sprintf("the server refused CONNECT: %s (%d)", code.Text(), byte(code)),
	}
	switch code {
	case socks5.GeneralFailure:
		e.Reason, e.Retryable, e.Hint = sdk.ReasonUnavailable, true, "the server's own log may say why"
	case socks5.NotAllowed:
		// The original has no rules: it is its word for a failed lookup.
		e.Err = errTarget
		e.Message = fmt.Sprintf("the server refused CONNECT: it could not resolve the target's name (%d)", byte(code))
		e.Reason, e.Retryable, e.Hint = sdk.ReasonNotFound, true, "check the name: the server looks it up, in its own network"
	case socks5.NetworkUnreachable, socks5.HostUnreachable, socks5.TTLExpired:
		e.Err = errTarget
		e.Reason, e.Retryable, e.Hint = sdk.ReasonUnreachable, true, "check that the server's network reaches the target"
	case socks5.ConnectionRefused:
		e.Err = errTarget
		e.Reason, e.Retryable, e.Hint = sdk.ReasonRefused, true, "nothing listens at the target, as the server sees it"
	case socks5.AddressTypeNotSupported:
		e.Err = errTarget
		e.Hint = "the server may not accept IPv6 addresses, or no IP addresses at all: use a name"
	default:
		e.Hint = noWebSocks
	}
	return e
}

// dateLayouts are the forms of the Date header: HTTP's, which a gateway writes,
// and the one of the original server, where it can be understood.
var dateLayouts = []string{http.TimeFormat, "Mon Jan 02 15:04:05 UTC 2006", "Mon Jan 02 15:04:05 GMT 2006"}

// clockHint compares the clocks, where the server tells its own.
func clockHint(date string, now time.Time) string {
	for _, layout := range dateLayouts {
		t, err := time.Parse(layout, date)
		if err != nil {
			continue
		}
		off := now.Sub(t).Round(time.Second)
		switch {
		case off >= time.Minute:
			return fmt.Sprintf("; it is %s ahead of the server's", off)
		case off <= -time.Minute:
			return fmt.Sprintf("; it is %s behind the server's", -off)
		default:
			return "; it agrees with the server's"
		}
	}
	return ""
}

// secrets are what the server is sent in confidence: there are servers that
// answer with the request.
func (c *Config) secrets() []string {
	var all []string
	if c.Username != "" {
		// The minute may have passed since.
		for _, at := range []time.Time{c.clock(), c.clock().Add(-wire.SaltInterval)} {
			all = append(all, c.credentials(at), wire.SaltPassword(c.Password.Reveal(), at))
		}
	}
	return append(all, sdk.HeaderSecrets(c.Headers)...)
}

// excerpt makes a line of a server's text, without the secrets that it may
// repeat, and cut short.
func (c *Config) excerpt(s string) string { return sdk.Excerpt(s, maxExcerpt, c.secrets()...) }
