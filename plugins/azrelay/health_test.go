package azrelay

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/tunneld/tunneld/plugins/sdk"
)

// TestJudge: the daemon passes a failing upstream over, so a client that leaves and a
// port that the bridge does not know must not make it one.
func TestJudge(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		want sdk.Health
	}{
		{"a success", nil, sdk.HealthOK},
		{"a service that refuses", &sdk.DialError{Stage: sdk.StageHandshake, Reason: sdk.ReasonUnavailable, Message: "503"}, sdk.HealthFailing},
		{"a service that is slow", &sdk.DialError{Stage: sdk.StageHandshake, Reason: sdk.ReasonTimeout, Message: "late"}, sdk.HealthFailing},
		{"any other error", errors.New("odd"), sdk.HealthFailing},
		{"a client that has left", &sdk.DialError{Stage: sdk.StageHandshake, Reason: sdk.ReasonCanceled, Message: "given up"}, sdk.HealthUnknown},
		{"a client that has left, untyped", fmt.Errorf("connect: %w", context.Canceled), sdk.HealthUnknown},
		{"a port that the bridge refuses", &sdk.DialError{Stage: sdk.StageRequest, Reason: sdk.ReasonRefused, Message: "no such port"}, sdk.HealthUnknown},
	} {
		got := sdk.HealthUnknown
		conf := &Config{}
		if err := conf.Start(&sdk.Env{Report: func(s sdk.Status) { got = s.Health }}); err != nil {
			t.Fatal(err)
		}
		if conf.reportHealth(c.err); got != c.want {
			t.Errorf("%s: reported %s, want %s", c.name, got, c.want)
		}
	}
}
