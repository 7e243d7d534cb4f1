package sapsocks

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"

	"github.com/tunneld/tunneld/plugins/sdk"
)

// issuer is a token service without a network: each token is a number, and each
// fetch takes as long as slow.
type issuer struct {
	mu      sync.Mutex
	fetches int
	life    time.Duration // 0: not told
	slow    time.Duration
	err     error
}

func (i *issuer) fetch(ctx context.Context) (*oauth2.Token, error) {
	i.mu.Lock()
	i.fetches++
	n, life, slow, err := i.fetches, i.life, i.slow, i.err
	i.mu.Unlock()
	select {
	case <-time.After(slow):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	k := &oauth2.Token{AccessToken: string(rune('0' + n))}
	if life != 0 {
		k.Expiry = time.Now().Add(life)
	}
	return k, nil
}

func (i *issuer) set(f func(*issuer)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	f(i)
}

func (i *issuer) count() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.fetches
}

// keep runs tokens over an issuer in a bubble of fake time.
func keep(t *testing.T, i *issuer, f func(*testing.T, *tokens)) {
	synctest.Test(t, func(t *testing.T) {
		k := newTokens(i.fetch, func(*token, bool, error) {})
		k.start()
		defer k.close()
		f(t, k)
	})
}

func want(t *testing.T, k *tokens, value string, cached bool) *token {
	t.Helper()
	got, atHand, err := k.get(t.Context())
	if err != nil || got.value != value || atHand != cached {
		t.Fatalf("%+v, cached %v, %v; want token %s, cached %v", got, atHand, err, value, cached)
	}
	return got
}

// first waits for the fetch that the start begins with.
func first(t *testing.T, k *tokens) *token {
	t.Helper()
	synctest.Wait()
	return want(t, k, "1", true)
}

// Notes: "fetched once however many dials wait for it".
func TestFetchedOnce(t *testing.T) {
	i := &issuer{life: time.Hour, slow: time.Second}
	keep(t, i, func(t *testing.T, k *tokens) {
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { want(t, k, "1", false) })
		}
		wg.Wait()
		want(t, k, "1", true)
		if n := i.count(); n != 1 {
			t.Errorf("%d fetches, want 1", n)
		}
	})
}

// Notes: "renewed before it expires; a dial never waits for a renewal while a
// valid token is in hand."
func TestRenewedAhead(t *testing.T) {
	i := &issuer{life: time.Hour}
	keep(t, i, func(t *testing.T, k *tokens) {
		first(t, k)
		i.set(func(i *issuer) { i.slow = 4 * time.Minute })
		time.Sleep(55*time.Minute - time.Second)
		synctest.Wait()
		if n := i.count(); n != 1 {
			t.Fatalf("%d fetches before it is time", n)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n := i.count(); n != 2 {
			t.Fatalf("%d fetches when it is time, want 2", n)
		}
		begun := time.Now()
		want(t, k, "1", true) // the renewal is under way
		if waited := time.Since(begun); waited != 0 {
			t.Errorf("a dial waited %s for a renewal", waited)
		}
		time.Sleep(4 * time.Minute)
		synctest.Wait()
		want(t, k, "2", true)
	})
}

// A renewal that fails is tried again, and the token serves until its end.
func TestRenewalFails(t *testing.T) {
	broken := errors.New("broken")
	i := &issuer{life: time.Hour}
	keep(t, i, func(t *testing.T, k *tokens) {
		first(t, k)
		i.set(func(i *issuer) { i.err = broken })
		time.Sleep(time.Hour - 11*time.Second)
		want(t, k, "1", true)
		tries := i.count()
		if tries < 6 || tries > 20 {
			t.Errorf("%d fetches within five minutes of failing, want some with growing distance", tries)
		}
		time.Sleep(2 * time.Second)
		if _, _, err := k.get(t.Context()); !errors.Is(err, broken) {
			t.Errorf("%v after the token's end, want the failure", err)
		}
		i.set(func(i *issuer) { i.err = nil })
		if got, cached, err := k.get(t.Context()); err != nil || cached || got == nil {
			t.Errorf("%+v, %v, %v; want a fresh token", got, cached, err)
		}
	})
}

// TestRetryAfter: the background does not come back before it was told to, and a dial does.
func TestRetryAfter(t *testing.T) {
	i := &issuer{err: &sdk.DialError{Reason: sdk.ReasonUnavailable, RetryAfter: 30 * time.Second}}
	keep(t, i, func(t *testing.T, k *tokens) {
		time.Sleep(29 * time.Second)
		if n := i.count(); n != 1 {
			t.Errorf("%d fetches in the first 29 seconds", n)
		}
		if _, _, err := k.get(t.Context()); err == nil || i.count() != 2 {
			t.Errorf("a dial: %v, %d fetches", err, i.count())
		}
		i.set(func(i *issuer) { i.err = nil })
		time.Sleep(31 * time.Second)
		want(t, k, "3", true)
	})
}

// Without a dial the token is renewed all the same, so that the next dial after
// a quiet day does not wait.
func TestRenewedWhileIdle(t *testing.T) {
	i := &issuer{life: time.Hour}
	keep(t, i, func(t *testing.T, k *tokens) {
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if n := i.count(); n != 27 { // every 55 minutes
			t.Errorf("%d fetches in a day, want 27", n)
		}
		if _, cached, err := k.get(t.Context()); !cached || err != nil {
			t.Errorf("cached %v, %v", cached, err)
		}
	})
}

func TestDrop(t *testing.T) {
	i := &issuer{life: time.Hour}
	keep(t, i, func(t *testing.T, k *tokens) {
		first := first(t, k)
		k.drop(first)
		second := want(t, k, "2", false)
		k.drop(first) // late: somebody else's dial with the old token
		if got := want(t, k, "2", true); got != second {
			t.Error("the new token was dropped with the old one")
		}
	})
}

// A token whose end is not told serves until it is refused.
func TestNoExpiry(t *testing.T) {
	i := &issuer{}
	keep(t, i, func(t *testing.T, k *tokens) {
		first(t, k)
		time.Sleep(1000 * time.Hour)
		want(t, k, "1", true)
	})
}

// A token that is born expired serves those who waited for it, and does not set
// off an endless renewal.
func TestBornExpired(t *testing.T) {
	i := &issuer{life: -time.Second, slow: time.Second}
	keep(t, i, func(t *testing.T, k *tokens) {
		want(t, k, "1", false)
		time.Sleep(time.Hour)
		if n := i.count(); n != 1 {
			t.Errorf("%d fetches in an hour without a dial, want 1", n)
		}
		want(t, k, "2", false)
	})
}

// New credentials: the token in hand serves on while a new one is fetched.
func TestRenewNow(t *testing.T) {
	i := &issuer{life: time.Hour}
	keep(t, i, func(t *testing.T, k *tokens) {
		first(t, k)
		i.set(func(i *issuer) { i.slow = time.Minute })
		k.renewNow()
		synctest.Wait()
		want(t, k, "1", true)
		time.Sleep(2 * time.Minute)
		want(t, k, "2", true)
	})
}

func TestCloseLetsDialsGo(t *testing.T) {
	i := &issuer{slow: time.Hour}
	keep(t, i, func(t *testing.T, k *tokens) {
		done := make(chan error, 1)
		go func() {
			_, _, err := k.get(t.Context())
			done <- err
		}()
		synctest.Wait()
		k.close()
		if err := <-done; !errors.Is(err, errClosed) {
			t.Errorf("%v, want %v", err, errClosed)
		}
		if _, _, err := k.get(t.Context()); !errors.Is(err, errClosed) {
			t.Errorf("%v after close, want %v", err, errClosed)
		}
	})
}
