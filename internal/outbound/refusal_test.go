package outbound

import (
	"net/http"
	"testing"
	"time"

	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

func TestRetryAfter(t *testing.T) {
	now := time.Unix(1_700_000_000, 0) // Tue, 14 Nov 2023 22:13:20 GMT
	for _, tt := range []struct {
		value, date string
		want        time.Duration
	}{
		{"", "", 0},
		{"7", "", 7 * time.Second},
		{"0", "", 0},
		{"-7", "", 0},
		{"7.5", "", 0},
		{"999999", "", time.Hour},
		{"18446744073709551615", "", time.Hour},
		{"99999999999999999999", "", 0},
		{"soon", "", 0},
		{"Tue, 14 Nov 2023 22:13:50 GMT", "", 30 * time.Second},
		{"Tuesday, 14-Nov-23 22:13:50 GMT", "", 30 * time.Second},
		{"Tue Nov 14 22:13:50 2023", "", 30 * time.Second},
		{"Tue, 14 Nov 2023 22:00:00 GMT", "", 0},
		{"Tue, 14 Nov 2033 22:00:00 GMT", "", time.Hour},
		// The far end's clock is ten minutes ahead.
		{"Tue, 14 Nov 2023 22:23:50 GMT", "Tue, 14 Nov 2023 22:23:20 GMT", 30 * time.Second},
	} {
		h := http.Header{}
		h.Set("Retry-After", tt.value)
		if tt.date != "" {
			h.Set("Date", tt.date)
		}
		if got := RetryAfter(h, now); got != tt.want {
			t.Errorf("%q at %q: %s, want %s", tt.value, tt.date, got, tt.want)
		}
	}
	if got := RetryAfter(nil, now); got != 0 {
		t.Errorf("without a header: %s", got)
	}
}

func TestHTTPStatus(t *testing.T) {
	for want, statuses := range map[pluginv1.Reason][]int{
		pluginv1.Reason_REASON_UNAUTHENTICATED: {401, 407},
		pluginv1.Reason_REASON_DENIED:          {403},
		pluginv1.Reason_REASON_NOT_FOUND:       {404, 410},
		pluginv1.Reason_REASON_TIMEOUT:         {408, 504},
		pluginv1.Reason_REASON_UNAVAILABLE:     {429, 500, 502, 503, 507, 599},
		pluginv1.Reason_REASON_PROTOCOL:        {100, 200, 204, 302, 400, 405, 413, 418, 501, 505},
	} {
		for _, status := range statuses {
			m := HTTPStatus(status)
			retryable := want == pluginv1.Reason_REASON_TIMEOUT || want == pluginv1.Reason_REASON_UNAVAILABLE
			if m.Reason != want || m.Retryable != retryable {
				t.Errorf("%d: %v, retryable %v", status, m.Reason, m.Retryable)
			}
		}
	}
}
