package sapsocks

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/oauth2"

	"github.com/tunneld/tunneld/plugins/sdk"
)

// The times of a token's life.
const (
	// renewAhead is how long before its end a token is renewed, or a fifth of
	// its life where that is shorter.
	renewAhead = 5 * time.Minute
	// spare is how long before its end a token is used no more, or a twentieth
	// of its life: the way to the proxy takes time, and clocks differ.
	spare = 10 * time.Second
	// Between failed renewals in the background, if the token service has not told
	// to come back later; dials try at once.
	firstRetry = time.Second
	lastRetry  = time.Minute
)

// errClosed is a dial that outlives its upstream.
var errClosed = errors.New("the upstream is no longer configured")

// token is an access token that was granted.
type token struct {
	value   string
	renewed time.Time
	expires time.Time // zero: not told
	stale   time.Time // from when it is not used
	renew   time.Time // from when it is renewed; zero: when it is asked for
}

func newToken(t *oauth2.Token, now time.Time) *token {
	// Round(0): by the wall clock, since the monotonic one stands still while
	// the machine is suspended.
	k := &token{value: t.AccessToken, renewed: now, expires: t.Expiry.Round(0), stale: t.Expiry.Round(0)}
	if life := t.Expiry.Sub(now); !t.Expiry.IsZero() && life > 0 {
		k.stale = k.expires.Add(-min(spare, life/20))
		k.renew = k.expires.Add(-min(renewAhead, life/5))
	}
	return k
}

func (k *token) usable(now time.Time) bool {
	return k.expires.IsZero() || now.Before(k.stale)
}

// tokens keeps one token at hand. Its one goroutine does all the fetching, so
// there is never more than one fetch however many dials wait for it, and a
// renewal goes on beside the dials that use the token in hand. (The token
// sources of golang.org/x/oauth2 renew within the call that finds the token
// expired, let every caller wait meanwhile, and cannot drop a token that was
// refused.)
type tokens struct {
	fetch func(context.Context) (*oauth2.Token, error)
	// report is called after each fetch, from the goroutine: with the new token,
	// or with the error and whether the token in hand will still do.
	report func(k *token, usable bool, err error)

	wake   chan struct{} // of capacity 1
	cancel context.CancelFunc
	done   chan struct{} // the goroutine has ended

	mu      sync.Mutex
	current *token
	waiting *fetch // nil: no dial waits
	due     bool
	closed  bool
}

// fetch is what dials wait for.
type fetch struct {
	done  chan struct{}
	token *token
	err   error
}

func newTokens(get func(context.Context) (*oauth2.Token, error), report func(*token, bool, error)) *tokens {
	return &tokens{fetch: get, report: report, wake: make(chan struct{}, 1), done: make(chan struct{})}
}

// start begins with a fetch at once: the first dial need not wait, and what is
// wrong with the credentials is known before it. It is called once, before any
// other method.
func (t *tokens) start() {
	ctx, cancel := context.WithCancel(context.Background())
	t.cancel = cancel
	go t.run(ctx)
}

// close ends a fetch under way and waits for the goroutine. It may be called
// more than once.
func (t *tokens) close() {
	t.cancel()
	<-t.done
}

// get returns a usable token and whether it was at hand; if it was not, get has
// waited for a fetch.
func (t *tokens) get(ctx context.Context) (k *token, cached bool, err error) {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil, false, errClosed
	}
	if t.current != nil && t.current.usable(time.Now()) {
		defer t.mu.Unlock()
		return t.current, true, nil
	}
	if t.waiting == nil {
		t.waiting = &fetch{done: make(chan struct{})}
		t.signal()
	}
	w := t.waiting
	t.mu.Unlock()
	select {
	case <-w.done:
		return w.token, false, w.err
	case <-ctx.Done():
		return nil, false, context.Cause(ctx)
	}
}

// drop forgets a token that was refused, unless it was replaced meanwhile.
func (t *tokens) drop(k *token) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.current == k {
		t.current = nil
	}
}

// renewNow begins a renewal in the background: the credentials have changed.
func (t *tokens) renewNow() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.due = true
	t.signal()
}

func (t *tokens) signal() {
	select {
	case t.wake <- struct{}{}:
	default: // it will wake anyway
	}
}

func (t *tokens) run(ctx context.Context) {
	defer close(t.done)
	defer t.end()
	timer := time.NewTimer(0)
	defer timer.Stop()
	retry := firstRetry
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-t.wake:
			if !t.wanted() {
				continue // a fetch has served it meanwhile
			}
		}
		got, err := t.fetch(ctx)
		if ctx.Err() != nil {
			return
		}
		k, usable := t.finish(got, err)
		t.report(k, usable, err)
		if err != nil {
			wait := retry/2 + rand.N(retry/2)
			if told := (*sdk.DialError)(nil); errors.As(err, &told) {
				wait = max(wait, told.RetryAfter)
			}
			timer.Reset(wait)
			retry = min(2*retry, lastRetry)
			continue
		}
		retry = firstRetry
		if k.renew.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(max(time.Until(k.renew), firstRetry))
		}
	}
}

// wanted says whether somebody needs a fetch now.
func (t *tokens) wanted() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.due || t.waiting != nil
}

// finish keeps what was fetched and lets the dials go on.
func (t *tokens) finish(got *oauth2.Token, err error) (k *token, usable bool) {
	now := time.Now()
	if err == nil {
		k = newToken(got, now)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.due = false
	if k != nil {
		t.current = k
	}
	t.release(k, err)
	return k, t.current != nil && t.current.usable(now)
}

// end lets the dials go that still wait.
func (t *tokens) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	t.release(nil, errClosed)
}

// release answers the dials that wait. It is called with mu held.
func (t *tokens) release(k *token, err error) {
	if w := t.waiting; w != nil {
		t.waiting = nil
		w.token, w.err = k, err
		close(w.done)
	}
}
