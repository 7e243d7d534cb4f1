package listen

import (
	"context"
	"errors"
	"sync"
	"time"
)

// ErrLeft ends what is done for a client that has reset its connection.
var ErrLeft = errors.New("the client has left")

// clientCheck is how often a Watch looks for its client.
const clientCheck = time.Second

// watch ends a context once its client has left, so that nothing is kept for it.
type watch struct {
	conn   *Conn
	cancel context.CancelCauseFunc

	mu    sync.Mutex
	timer *time.Timer
	over  bool
}

// Watch returns a context that ends, with ErrLeft, once the client has left. stop is
// called before the client is used again.
func (c *Client) Watch(ctx context.Context) (_ context.Context, stop func()) {
	return c.conn.watched(ctx)
}

func (c *Conn) watched(ctx context.Context) (context.Context, func()) {
	w := &watch{conn: c}
	ctx, w.cancel = context.WithCancelCause(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(clientCheck, w.check)
	return ctx, w.stop
}

func (w *watch) check() {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.over:
	case w.conn.Gone():
		w.cancel(ErrLeft)
	default:
		w.timer.Reset(clientCheck)
	}
}

func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	w.timer.Stop()
	w.cancel(nil)
}
