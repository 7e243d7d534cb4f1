package outbound

import (
	"context"
	"errors"
	"os"
	"time"
)

// Bound calls f, which reads and writes conn, and ends what f does there when ctx
// is done: f's error is then ctx's cause. After an error conn is unusable. It sets
// conn's deadline, and leaves the one that was set where all went well.
func Bound(ctx context.Context, conn interface{ SetDeadline(time.Time) error }, f func() error) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	err := f()
	if !stop() && (err == nil || errors.Is(err, os.ErrDeadlineExceeded)) {
		return context.Cause(ctx)
	}
	return err
}
