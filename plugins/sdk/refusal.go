package sdk

import (
	"net/http"
	"time"

	"github.com/tunneld/tunneld/internal/outbound"
)

// HTTPRefusal is the failure at a stage that an HTTP status other than the wanted
// one means (RFC 9110, section 15): reason, whether another try may succeed, and
// RetryAfter as the header has it (section 10.2.3: seconds or a date), an hour at
// most. Message and Hint are the protocol's to give; Excerpt is for what the far end
// said.
func HTTPRefusal(stage Stage, status int, header http.Header) *DialError {
	m := outbound.HTTPStatus(status)
	return &DialError{Stage: stage, Reason: m.Reason, Retryable: m.Retryable, RetryAfter: outbound.RetryAfter(header, time.Now())}
}
