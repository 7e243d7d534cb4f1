package engine

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/tunneld/tunneld/core/internal/listen"
)

// errLeft ends the dial of a client that has reset its connection.
var errLeft = errors.New("the client has left")

// clientCheck is how often a dial looks for its client.
const clientCheck = time.Second

// clientWatch cancels a dial whose client has left, so that it does not keep its
// slot, and a far end its connection, for as long as a dial may take.
type clientWatch struct {
	client *listen.Client
	cancel context.CancelCauseFunc

	mu    sync.Mutex
	timer *time.Timer
	over  bool
}

// watchClient returns a context that ends with errLeft once client has left,
// and the watch, which is stopped before client is used again.
func watchClient(ctx context.Context, client *listen.Client) (context.Context, *clientWatch) {
	d := &clientWatch{client: client}
	ctx, d.cancel = context.WithCancelCause(ctx)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.timer = time.AfterFunc(clientCheck, d.check)
	return ctx, d
}

func (d *clientWatch) check() {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.over:
	case d.client.Gone():
		d.cancel(errLeft)
	default:
		d.timer.Reset(clientCheck)
	}
}

func (d *clientWatch) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.over = true
	d.timer.Stop()
	d.cancel(nil)
}
