package auth

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestWrongLoginDelays: the answer, and the next check of its source, later each time;
// after a while that is forgotten.
func TestWrongLoginDelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := count(100 * time.Millisecond)
		r := c.realm(map[string]string{"alice": "a", "bob": "b"})
		took := func(user, password string, right bool, want time.Duration) {
			t.Helper()
			begun := time.Now()
			wants(t, r, from(1), user, password, right)
			if d := time.Since(begun); d != want {
				t.Errorf("%s, %s: after %s, want %s", user, password, d, want)
			}
		}
		took("alice", "a", true, c.each)
		// Each is told once the delay is over, whatever the check took.
		for _, want := range []time.Duration{firstDelay, 2 * time.Second, lastDelay, lastDelay} {
			took("alice", "wrong", false, want)
		}
		took("bob", "b", true, c.each) // it comes when the delay is over
		// Each minute takes one back.
		time.Sleep(2 * forgiven)
		took("x", "wrong", false, 2*time.Second)
		time.Sleep(10 * forgiven)
		took("alice", strings.Repeat("x", 100), false, firstDelay)

		// Who comes in the meantime waits, unless the source was right about this user before.
		synctest.Wait()
		go func() { _, _ = r.Check(t.Context(), from(1), "alice", "wrong") }()
		synctest.Wait()
		took("alice", "a", true, 0)
		took("bob", "b", true, 0)
		r.file.now.hashes["carol"] = "|c"
		took("carol", "c", true, 2*time.Second+c.each)
		begun := time.Now()
		wants(t, r, from(2), "alice", "a", true)
		if time.Since(begun) > 0 {
			t.Error("another source waited")
		}
	})
}

// TestGuessesAtTheRemembered: what is remembered of a user answers no guesses of another
// source: they are checked one after the other, and the right one is as late as a wrong
// one would be.
func TestGuessesAtTheRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := count(100 * time.Millisecond)
		r := c.realm(map[string]string{"alice": "a"})
		wants(t, r, from(1), "alice", "a", true)
		c.checked(t, 1)
		var told atomic.Int64
		ctx, cancel := context.WithCancel(t.Context())
		for i := range 1000 {
			go func() {
				if _, err := r.Check(ctx, from(2), "alice", fmt.Sprint(i)); !errors.Is(err, ErrBusy) && !errors.Is(err, context.Canceled) {
					told.Add(1)
				}
			}()
		}
		synctest.Wait()
		begun := time.Now()
		go func() {
			right, err := r.Check(ctx, from(2), "alice", "a")
			if right || !errors.Is(err, ErrBusy) {
				t.Errorf("the right one among the guesses: %v, %v", right, err)
			}
		}()
		time.Sleep(firstDelay - time.Millisecond)
		c.checked(t, 1)
		time.Sleep(10 * time.Second)
		if n := told.Load(); n > 4 {
			t.Errorf("%d guesses were answered within %s", n, time.Since(begun))
		}
		cancel()
		synctest.Wait()
	})
}

// TestThousandWrongLogins: at once, from one source and from a thousand, use half the
// processors at most. Those who are remembered get in at once, and so do others once it is
// their turn.
func TestThousandWrongLogins(t *testing.T) {
	for name, source := range map[string]func(int) netip.Prefix{
		"one source":         func(int) netip.Prefix { return from(7) },
		"a thousand sources": from,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := count(100 * time.Millisecond)
				r := c.realm(map[string]string{"alice": "a", "bob": "b"})
				wants(t, r, from(7), "alice", "a", true)
				var busy, wrong atomic.Int64
				var all sync.WaitGroup
				for i := range 1000 {
					all.Go(func() {
						ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
						defer cancel()
						switch right, err := r.Check(ctx, source(1000+i), "alice", fmt.Sprint("wrong", i)); {
						case errors.Is(err, ErrBusy):
							busy.Add(1)
						case !right && (err == nil || errors.Is(err, context.DeadlineExceeded)):
							wrong.Add(1)
						default:
							t.Errorf("%v, %v", right, err)
						}
					})
				}
				synctest.Wait()
				half := int64(max(1, runtime.GOMAXPROCS(0)/2))
				begun := time.Now()
				wants(t, r, from(7), "alice", "a", true)
				if d := time.Since(begun); d > 0 {
					t.Errorf("who is remembered waited for %s", d)
				}
				if name == "one source" {
					wants(t, r, from(8), "bob", "b", true)
					if d := time.Since(begun); d > 2*c.each {
						t.Errorf("another source waited for %s", d)
					}
				}
				all.Wait()
				if n := c.together.Load(); n > half {
					t.Errorf("%d checks at a time, and %d are half the processors", n, half)
				}
				queue := int64(maxAttempts)
				if name != "one source" {
					queue = maxWaiting + half
				}
				if busy.Load() != 1000-queue || wrong.Load() != queue {
					t.Errorf("%d were refused at once, %d were not let in", busy.Load(), wrong.Load())
				}
				wants(t, r, from(9), "bob", "b", true)
			})
		})
	}
}

// TestOneCheckForOneLogin: clients that come with the same login at once, right or wrong,
// cost one check and one delay.
func TestOneCheckForOneLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := count(100 * time.Millisecond)
		r := c.realm(map[string]string{"alice": "a"})
		for password, right := range map[string]bool{"a": true, "old": false} {
			var all sync.WaitGroup
			for range 500 {
				all.Go(func() { wants(t, r, from(1), "alice", password, right) })
			}
			all.Wait()
			c.checked(t, 1)
		}
		if n := c.sources.all[from(1)].wrong; n != 1 {
			t.Errorf("%d wrong logins count", n)
		}
	})
}

// TestClientLeaves: one that waits, one whose login is the next to be checked, and one
// whose login others come with, too.
func TestClientLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := count(100 * time.Millisecond)
		r := c.realm(map[string]string{"alice": "a", "bob": "b"})
		wants(t, r, from(1), "x", "wrong", false)
		gone := errors.New("the client has left")
		ctx, leave := context.WithCancelCause(t.Context())
		go func() { _, _ = r.Check(t.Context(), from(1), "x", "wrong") }()
		synctest.Wait() // it is under way: the others wait for the delay
		time.Sleep(time.Millisecond)
		var left, stayed sync.WaitGroup
		for _, login := range [][2]string{{"alice", "a"}, {"bob", "b"}, {"y", "wrong"}} {
			left.Go(func() {
				if _, err := r.Check(ctx, from(1), login[0], login[1]); !errors.Is(err, gone) {
					t.Errorf("%s: %v", login, err)
				}
			})
			synctest.Wait()
		}
		stayed.Go(func() { wants(t, r, from(1), "bob", "b", true) })
		synctest.Wait()
		begun := time.Now()
		leave(gone)
		left.Wait()
		if time.Since(begun) > 0 {
			t.Error("those who left waited")
		}
		stayed.Wait()
		if _, err := r.Check(ctx, from(2), "alice", "a"); !errors.Is(err, gone) {
			t.Errorf("who has left already: %v", err)
		}
		time.Sleep(time.Hour)
		wants(t, r, from(1), "alice", "a", true)
	})
}

// TestLeavesWhileOthersAreChecked: it gives its place in the queue back.
func TestLeavesWhileOthersAreChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := count(time.Hour)
		r := c.realm(map[string]string{"alice": "a"})
		half := max(1, runtime.GOMAXPROCS(0)/2)
		for i := range half {
			go func() { _, _ = r.Check(t.Context(), from(i), "alice", "a") }()
		}
		synctest.Wait()
		for i := range 3 * maxWaiting {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if _, err := r.Check(ctx, from(1000+i), "alice", "a"); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("client %d: %v", i, err)
			}
			cancel()
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		c.checked(t, int64(half))
		if n := len(c.sources.all); n != 0 {
			t.Errorf("%d sources are kept", n)
		}
	})
}

// TestTimeToAnswer: a wrong login is told to be wrong before its time is over.
func TestTimeToAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := count(0).realm(map[string]string{"alice": "a"})
		ctx, cancel := context.WithTimeout(t.Context(), firstDelay/2)
		defer cancel()
		if right, err := r.Check(ctx, from(1), "alice", "wrong"); right || err != nil || ctx.Err() == nil {
			t.Errorf("%v, %v", right, err)
		}
	})
}

// TestMemoryIsBounded: whatever the number of sources that guess, and of those that users
// come from.
func TestMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := count(0)
		r := c.Realm(NewOptions(map[string]string{"alice": "a"}, ""))
		const many = maxSources + 100
		for i := range many {
			go func() { _, _ = r.Check(t.Context(), from(i), "alice", "wrong") }()
			synctest.Wait()
		}
		time.Sleep(time.Minute / 2)
		synctest.Wait()
		if n := len(c.sources.all); n != maxSources || c.sources.quiet.Len() != n {
			t.Errorf("%d sources, %d of them quiet", n, c.sources.quiet.Len())
		}
		if c.sources.all[from(99)] != nil || c.sources.all[from(100)] == nil || c.sources.all[from(many-1)] == nil {
			t.Error("it is not the oldest that are forgotten")
		}
		time.Sleep(time.Hour)
		for i := range many {
			wants(t, r, from(i), "alice", "a", true)
		}
		if n := len(r.seen.pairs); n != maxSeen || r.seen.order.Len() != n || r.seen.has(from(0), "alice") || !r.seen.has(from(many-1), "alice") {
			t.Errorf("%d pairs of source and user", n)
		}
		if n := len(c.sources.all); n != 0 {
			t.Errorf("%d sources are kept that are forgiven", n)
		}
	})
}
