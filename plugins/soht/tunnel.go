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
//
// It has two ends of life. done is closed when the tunnel breaks or is to end,
// and ends every wait. The context of the requests is cancelled when a request
// does not end by itself after that, since cancelling one that is just being
// answered without a body costs another tunnel its connection: net/http (1.26)
// gives such a connection back before it looks whether the caller is gone, and
// then closes it, in use again or not.
type tunnel struct {
	client   *client
	id       string
	out      *outbox
	cancel   context.CancelCauseFunc
	done     <-chan struct{} // closed by cancel
	cause    func() error    // after done
	requests context.CancelFunc
	pace     time.Duration // smoothed time of an exchange; the sender's

	mu    sync.Mutex
	ended bool
	wait  sync.WaitGroup // the goroutines; not added to once ended
}

// newTunnel returns a tunnel, the context that ends with done and the one of the
// requests.
func newTunnel(c *client, id string, writeSize int) (t *tunnel, life, requests context.Context) {
	life, cancel := context.WithCancelCause(context.Background())
	requests, cancelRequests := context.WithCancel(context.Background())
	return &tunnel{
		client:   c,
		id:       id,
		out:      newOutbox(writeSize),
		cancel:   cancel,
		done:     life.Done(),
		cause:    func() error { return context.Cause(life) },
		requests: cancelRequests,
	}, life, requests
}

// over says whether done is closed.
func (t *tunnel) over() bool {
	select {
	case <-t.done:
		return true
	default:
		return false
	}
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
	if t.over() {
		return 0, t.cause()
	}
	n := t.out.write(p, t.done)
	if n < len(p) {
		return n, t.cause()
	}
	return n, nil
}

// send sends what is written, one request at a time: the protocol has no
// sequence numbers. wake, unless nil, is called before each, and once all is sent.
func (t *tunnel) send(ctx context.Context, wake func()) {
	for {
		data, last := t.out.take(t.linger(), t.done)
		if t.over() {
			return
		}
		if len(data) > 0 {
			if wake != nil {
				wake()
			}
			start := time.Now()
			if err := t.client.write(ctx, t.id, data); err != nil {
				t.cancel(err)
				return
			}
			t.took(time.Since(start))
		}
		if last {
			t.out.sentAll()
			if wake != nil {
				wake()
			}
			return
		}
	}
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

// Close sends close, which also lets the server end what is under way, and waits
// for that, for at most closeTimeout in all. Its error says that the server may
// not have freed the id yet.
func (t *tunnel) Close() error {
	t.mu.Lock()
	again := t.ended
	t.ended = true
	t.mu.Unlock()
	if again {
		return net.ErrClosed
	}
	t.cancel(net.ErrClosed)
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	defer context.AfterFunc(ctx, t.requests)()
	err := t.client.release(ctx, t.id)
	t.wait.Wait()
	t.requests()
	return err
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
