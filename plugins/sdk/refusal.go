package sdk

import (
	"net/http"
	"time"

	"github.com/tunneld/tunneld/internal/outbound"
)

// HTTPRefusal says what an HTTP status means that is not the one which was wanted (RFC
// 9110, section 15): reason, whether another try may succeed, and RetryAfter as the header
// has it (section 10.2.3: seconds or a date), an hour at most. The caller sets Message, for
// which Excerpt shortens what the far end said, and Hint.
func HTTPRefusal(stage Stage, status int, header http.Header) *DialError {
	m := outbound.HTTPStatus(status)
	return &DialError{Stage: stage, Reason: Reason(m.Reason), Retryable: m.Retryable, RetryAfter: outbound.RetryAfter(header, time.Now())}
}
