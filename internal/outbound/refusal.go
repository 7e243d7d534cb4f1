package outbound

import (
	"net/http"
	"strconv"
	"time"

	"github.com/tunneld/tunneld/internal/neterr"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// maxRetryAfter bounds what a far end may say of its own recovery.
const maxRetryAfter = time.Hour

// HTTPStatus is what a status other than the one that was wanted means for a dial
// (RFC 9110, section 15). The hint is the protocol's to give.
func HTTPStatus(status int) neterr.Meaning {
	switch {
	case status == http.StatusUnauthorized, status == http.StatusProxyAuthRequired:
		return neterr.Meaning{Reason: pluginv1.Reason_REASON_UNAUTHENTICATED}
	case status == http.StatusForbidden:
		return neterr.Meaning{Reason: pluginv1.Reason_REASON_DENIED}
	case status == http.StatusNotFound, status == http.StatusGone:
		return neterr.Meaning{Reason: pluginv1.Reason_REASON_NOT_FOUND}
	case status == http.StatusRequestTimeout, status == http.StatusGatewayTimeout:
		return neterr.Meaning{Reason: pluginv1.Reason_REASON_TIMEOUT, Retryable: true}
	case status == http.StatusNotImplemented, status == http.StatusHTTPVersionNotSupported:
		return neterr.Meaning{Reason: pluginv1.Reason_REASON_PROTOCOL}
	case status == http.StatusTooManyRequests, status/100 == 5:
		return neterr.Meaning{Reason: pluginv1.Reason_REASON_UNAVAILABLE, Retryable: true}
	}
	return neterr.Meaning{Reason: pluginv1.Reason_REASON_PROTOCOL}
}

// RetryAfter reads the header of that name in both of its forms (RFC 9110, section
// 10.2.3), up to an hour; 0 where there is none, or it lies in the past. A date is
// taken by the answer's own Date, where it has one: the clocks may disagree.
func RetryAfter(h http.Header, now time.Time) time.Duration {
	text := h.Get("Retry-After")
	if seconds, err := strconv.ParseUint(text, 10, 64); err == nil {
		return time.Duration(min(seconds, uint64(maxRetryAfter/time.Second))) * time.Second
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		now = date
	}
	return min(max(at.Sub(now), 0), maxRetryAfter)
}
