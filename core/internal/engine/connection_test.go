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
	"github.com/tunneld/tunneld/core/internal/route"
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

// TestShare: what is left of a listener's time is divided evenly, but for an upstream whose
// far end may take longer to answer.
func TestShare(t *testing.T) {
	for name, tt := range map[string]struct {
		rest   time.Duration
		left   int
		answer time.Duration
		want   time.Duration
	}{
		"the last gets all":               {35 * time.Second, 1, 0, 35 * time.Second},
		"evenly":                          {30 * time.Second, 3, 0, 10 * time.Second},
		"a shorter answer":                {30 * time.Second, 3, 9 * time.Second, 10 * time.Second},
		"a longer answer":                 {30 * time.Second, 3, 12 * time.Second, 12 * time.Second},
		"Azure's refusal after 30s":       {35 * time.Second, 2, 35 * time.Second, 33 * time.Second},
		"an answer beyond the whole":      {10 * time.Second, 3, time.Hour, 6 * time.Second},
		"too little for two":              {3 * time.Second, 2, time.Hour, 2 * time.Second},
		"less than the least of one":      {time.Second, 2, time.Hour, time.Second},
		"a time that is over is no share": {-time.Second, 2, time.Hour, -time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if got := time.Until(share(time.Now().Add(tt.rest), tt.left, tt.answer)); got != tt.want {
					t.Errorf("%s, want %s", got, tt.want)
				}
			})
		})
	}
	if !share(time.Time{}, 2, time.Second).IsZero() {
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
		g := &generation{
			table: route.New([]route.Rule{{}}),
			routes: []routing{{upstreams: []upstream{
				records.upstream(config.Upstream{Type: "relay", Name: "a", Answer: 35 * time.Second}, nil, slow),
				records.upstream(config.Upstream{Type: "relay", Name: "b", Answer: 35 * time.Second}, nil, last),
			}}},
		}
		if _, _, err := conn.dial(t.Context(), g); err == nil || next != 30*time.Second {
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
