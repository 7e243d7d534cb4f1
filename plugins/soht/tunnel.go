package soht

import (
	"context"
	"net"
	"sync"
	"time"
)

const (
	// lingerTime is for how long a write waits for more to go with it. The
	// timer's resolution makes it up to a millisecond.
	lingerTime = 500 * time.Microsecond
	// lingerFrom is the time of an exchange from which waiting pays: below it,
	// more can follow in the next request just as well.
	lingerFrom = 5 * time.Millisecond
)

// tunnel is what the streams of both modes share.
type tunnel struct {
	client *client
	id     string
	out    *outbox
	cancel context.CancelCauseFunc
	done   <-chan struct{} // closed by cancel
	cause  func() error    // after done
	pace   time.Duration   // smoothed time of an exchange; the sender's

	mu    sync.Mutex
	ended bool
	wait  sync.WaitGroup // the goroutines; not added to once ended
}

func newTunnel(c *client, id string, writeSize int) (*tunnel, context.Context) {
	ctx, cancel := context.WithCancelCause(context.Background())
	return &tunnel{
		client: c,
		id:     id,
		out:    newOutbox(writeSize),
		cancel: cancel,
		done:   ctx.Done(),
		cause:  func() error { return context.Cause(ctx) },
	}, ctx
}

// spawn starts a goroutine that the end waits for.
func (t *tunnel) spawn(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ended {
		t.wait.Go(f)
	}
	return !t.ended
}

// Write returns once p is buffered: at most write_size bytes wait while as
// many are in flight. That they did not arrive is the error of a later call,
// of Read as well.
func (t *tunnel) Write(p []byte) (int, error) {
	select {
	case <-t.done:
		return 0, t.cause()
	default:
	}
	n := t.out.write(p, t.done)
	if n < len(p) {
		return n, t.cause()
	}
	return n, nil
}

// CloseWrite returns once everything written has arrived at the server. The
// protocol cannot tell the target that no more comes.
func (t *tunnel) CloseWrite() error {
	t.out.end()
	select {
	case <-t.out.flushed:
		return nil
	case <-t.done:
		return t.cause()
	}
}

// Close ends what is under way, waits for the goroutines and sends close, for at
// most closeTimeout. Its error says that the server may not have freed the id.
func (t *tunnel) Close() error {
	t.mu.Lock()
	again := t.ended
	t.ended = true
	t.mu.Unlock()
	if again {
		return net.ErrClosed
	}
	t.cancel(net.ErrClosed)
	t.wait.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	return t.client.close(ctx, t.id)
}

// Abort is Close, and drops what is not sent yet. The protocol has one close
// alone: the target sees the same end of file after either.
func (t *tunnel) Abort(string) { _ = t.Close() }

// linger is how long a first small write waits for others.
func (t *tunnel) linger() time.Duration {
	if t.pace < lingerFrom {
		return 0
	}
	return lingerTime
}

// took smooths the time of an exchange, an eighth at a time as TCP does
// (RFC 6298, section 2).
func (t *tunnel) took(d time.Duration) {
	if t.pace == 0 {
		t.pace = d
		return
	}
	t.pace += (d - t.pace) / 8
}
