package engine

import (
	"context"
	"errors"
	"regexp"
	"testing"
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

// TestDirectNeedsAPort: no upstream of the kind carries a label, so that another
// is not tried.
func TestDirectNeedsAPort(t *testing.T) {
	_, err := direct{id: "direct.x"}.Dial(t.Context(), tunnel.Dial{Target: tunnel.Target{Host: "label"}})
	var d *tunnel.DialError
	if !errors.As(err, &d) || d.Reason != pluginv1.Reason_REASON_UNREACHABLE || d.Retryable {
		t.Errorf("%+v", err)
	}
}
