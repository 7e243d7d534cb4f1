package engine

import (
	"context"
	"errors"
	"log/slog"
	"regexp"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/core/internal/metrics"
	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/core/status"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// silent is an upstream that never answers.
type silent struct{}

func (silent) Dial(ctx context.Context, _ tunnel.Dial) (*tunnel.Conn, error) {
	<-ctx.Done()
	return nil, &tunnel.DialError{Reason: pluginv1.Reason_REASON_TIMEOUT, Message: context.Cause(ctx).Error()}
}

// TestOvertime: an upstream that got a share of the listener's time does not say
// that it had all of it.
func TestOvertime(t *testing.T) {
	for _, c := range []struct {
		allowed time.Duration
		want    string
	}{
		{50 * time.Millisecond, `^listener tcp\.a allows 50ms for dialing$`},
		{time.Hour, `^listener tcp\.a allows 1h0m0s for dialing, \d+ms of it were this upstream's$`},
	} {
		l := &listener{id: "tcp.a"}
		l.Timeout.Dial = c.allowed
		conn := &connection{
			engine:   &Engine{metrics: metrics.New("", func() status.Status { return status.Status{} })},
			listener: l,
		}
		_, err := conn.attempt(t.Context(), upstream{id: config.DirectType + ".x", dialer: silent{}, gate: new(gate)}, tunnel.Dial{}, time.Now().Add(100*time.Millisecond))
		if err == nil || !regexp.MustCompile(c.want).MatchString(err.Message) {
			t.Errorf("%+v, want %s", err, c.want)
		}
	}
}

// TestShare: what is left of a listener's time is divided evenly, but such that each far end
// has its own time to answer, if there is enough.
func TestShare(t *testing.T) {
	const relay = 35 // as azrelay has it
	for name, tt := range map[string]struct {
		rest time.Duration
		left []int // their times for the answer, in seconds; 0: not known
		want time.Duration
	}{
		"the last gets all":               {35 * time.Second, []int{0}, 35 * time.Second},
		"evenly":                          {30 * time.Second, []int{0, 0, 0}, 10 * time.Second},
		"more than they need":             {time.Minute, []int{0, 5, 10}, 20 * time.Second},
		"a shorter answer":                {30 * time.Second, []int{9, 0, 0}, 10 * time.Second},
		"a longer answer":                 {30 * time.Second, []int{12, 0, 0}, 12 * time.Second},
		"Azure's refusal after 30s":       {35 * time.Second, []int{relay, relay}, 33 * time.Second},
		"a relay behind another":          {time.Minute, []int{0, relay}, 25 * time.Second},
		"a relay behind two":              {time.Minute, []int{10, 10, relay}, 15 * time.Second},
		"just enough for both":            {45 * time.Second, []int{0, relay}, 10 * time.Second},
		"too little for a relay behind":   {40 * time.Second, []int{0, relay}, 20 * time.Second},
		"an answer beyond the whole":      {10 * time.Second, []int{3600, 0, 0}, 6 * time.Second},
		"an answer at once":               {4 * time.Second, []int{1, 3600}, 2 * time.Second},
		"too little for two":              {3 * time.Second, []int{3600, 0}, 2 * time.Second},
		"less than the least of one":      {time.Second, []int{3600, 0}, time.Second},
		"a time that is over is no share": {-time.Second, []int{3600, 0}, -time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var left []upstream
				for _, seconds := range tt.left {
					left = append(left, upstream{answer: time.Duration(seconds) * time.Second})
				}
				if got := time.Until(share(time.Now().Add(tt.rest), left)); got != tt.want {
					t.Errorf("%s, want %s", got, tt.want)
				}
			})
		})
	}
	if !share(time.Time{}, make([]upstream, 2)).IsZero() {
		t.Error("no limit became one")
	}
}

// TestAnswerBeforeTheNext: of two upstreams the first, whose far end takes half a minute to
// say why it refuses, is heard before the second one is tried.
func TestAnswerBeforeTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		records := upstreamRecords{gates: newGates(), availabilities: newAvailabilities(nil, 0)}
		refused := &tunnel.DialError{Reason: pluginv1.Reason_REASON_TIMEOUT, Retryable: true, Message: "504 TrackingId:7"}
		slow := dialerFunc(func(ctx context.Context) error {
			select {
			case <-time.After(30 * time.Second):
				return refused
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
		var next time.Duration
		start := time.Now()
		last := dialerFunc(func(context.Context) error { next = time.Since(start); return refused })
		conn := &connection{
			engine:   &Engine{metrics: metrics.New("", func() status.Status { return status.Status{} }), repeats: newRepeats(slog.New(slog.DiscardHandler))},
			listener: &listener{id: "tcp.a"},
		}
		conn.listener.Timeout.Dial = 35 * time.Second
		to := routing{upstreams: []upstream{
			records.upstream(config.Upstream{Type: "relay", Name: "a", Answer: 35 * time.Second}, nil, slow),
			records.upstream(config.Upstream{Type: "relay", Name: "b", Answer: 35 * time.Second}, nil, last),
		}}
		if _, _, err := conn.dial(t.Context(), to); err == nil || next != 30*time.Second {
			t.Errorf("the second one was tried after %s, %v", next, err)
		}
	})
}

// dialerFunc is an upstream that only fails.
type dialerFunc func(context.Context) error

func (f dialerFunc) Dial(ctx context.Context, _ tunnel.Dial) (*tunnel.Conn, error) {
	return nil, f(ctx)
}

// TestDirectNeedsAPort: no upstream of the kind carries a label, so that another
// is not tried.
func TestDirectNeedsAPort(t *testing.T) {
	_, err := direct{id: "direct.x"}.Dial(t.Context(), tunnel.Dial{Target: tunnel.Target{Host: "label"}})
	var d *tunnel.DialError
	if !errors.As(err, &d) || d.Reason != pluginv1.Reason_REASON_UNREACHABLE || d.Retryable {
		t.Errorf("%+v", err)
	}
}
