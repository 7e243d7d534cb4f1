package auth

import (
	"context"
	"encoding/json"
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

	"golang.org/x/crypto/bcrypt"
)

// from is a source, of the number n.
func from(n int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), 32)
}

// counted is a Guard whose checks take a time of the test's and are counted. A password is
// right for the hash that ends with it.
type counted struct {
	*Guard
	each     time.Duration
	checks   atomic.Int64
	now      atomic.Int64 // under way
	together atomic.Int64 // the most of now
}

func count(each time.Duration) *counted {
	c := &counted{Guard: NewGuard(), each: each}
	c.compare = func(hash, password []byte) error {
		c.checks.Add(1)
		n := c.now.Add(1)
		defer c.now.Add(-1)
		for most := c.together.Load(); n > most && !c.together.CompareAndSwap(most, n); most = c.together.Load() {
		}
		time.Sleep(c.each)
		if strings.HasSuffix(string(hash), "|"+string(password)) {
			return nil
		}
		return bcrypt.ErrMismatchedHashAndPassword
	}
	return c
}

// hashes is a file in which each user's password is the text behind the name.
func hashes(users map[string]string) *content {
	c := &content{hashes: map[string]string{}, dummy: "dummy"}
	for user, password := range users {
		c.hashes[user] = "hash of " + user + "|" + password
	}
	return c
}

// holding is o with an htpasswd file.
func holding(o Options, c *content) Options {
	o.file, o.held = "/etc/users", func() *content { return c }
	return o
}

// realm is one with users of a file.
func (c *counted) realm(users map[string]string) *Realm {
	return c.Realm(holding(Options{}, hashes(users)))
}

func wants(t *testing.T, r *Realm, source netip.Prefix, user, password string, want bool) {
	t.Helper()
	if right, err := r.Check(t.Context(), source, user, password); err != nil || right != want {
		t.Errorf("%s, %q from %s: %v, %v", user, password, source, right, err)
	}
}

// checked expects so many checks since the last time.
func (c *counted) checked(t *testing.T, want int64) {
	t.Helper()
	if n := c.checks.Swap(0); n != want {
		t.Errorf("%d checks, want %d", n, want)
	}
}

// TestRealHashes: of each of bcrypt's names, by the library itself.
func TestRealHashes(t *testing.T) {
	g := NewGuard()
	text := "alice:" + ofAlice + "\ngrace:" + ofGrace + "\n"
	for _, name := range []string{"2a", "2b"} {
		text += name + ":" + strings.Replace(ofAlice, "2y", name, 1) + "\n"
	}
	r := g.Realm(holding(Options{}, parse("f", []byte(text))))
	for user, password := range map[string]string{"alice": "p w", "grace": "geheim", "2a": "p w", "2b": "p w"} {
		wants(t, r, from(1), user, password, true)
		wants(t, r, from(1), user, password, true)
	}
	synctest.Test(t, func(t *testing.T) {
		wants(t, r, from(1), "alice", "geheim", false)
		wants(t, r, from(2), "nobody", "p w", false)
	})
}

func TestUsersOfTheConfiguration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := count(time.Second)
		long := strings.Repeat("x", 255)
		r := c.Realm(NewOptions(map[string]string{"alice": "secret", "bob": long}, ""))
		wants(t, r, from(1), "alice", "secret", true)
		wants(t, r, from(2), "bob", long, true)
		for i, login := range [][2]string{{"alice", "Secret"}, {"alice", ""}, {"bob", long[:254]}, {"alice", long}, {"carol", "secret"}, {"", ""}} {
			wants(t, r, from(10+i), login[0], login[1], false)
		}
		c.checked(t, 0)
	})
}

// TestUserOfBoth: the configuration's password counts, and a wrong one costs what one of
// the file does.
func TestUserOfBoth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := count(time.Second)
		o := NewOptions(map[string]string{"alice": "here", "bob": "b"}, "")
		r := c.Realm(holding(o, hashes(map[string]string{"alice": "there"})))
		wants(t, r, from(1), "alice", "here", true)
		c.checked(t, 0)
		wants(t, r, from(2), "alice", "there", false)
		c.checked(t, 1)
		wants(t, r, from(3), "bob", "wrong", false)
		c.checked(t, 1)
	})
}

func TestDigestCoversLengths(t *testing.T) {
	g := NewGuard()
	same := g.digest("a")
	if g.digest("ab", "c") == g.digest("a", "bc") || g.digest("a", "b") == g.digest("a", "b", "") || g.digest("a") != same {
		t.Error("texts run into each other")
	}
	if NewGuard().digest("a") == g.digest("a") {
		t.Error("two processes have one key")
	}
	a := NewOptions(map[string]string{"ab": "c"}, "")
	if g.ID(a) == g.ID(NewOptions(map[string]string{"a": "bc"}, "")) || g.ID(a) == g.ID(NewOptions(nil, "")) || g.ID(a) != g.ID(NewOptions(map[string]string{"ab": "c"}, "")) {
		t.Error("the IDs of Options")
	}
}

// TestRemembered: a login is checked once, wherever it comes from, until its line in the
// file changes.
func TestRemembered(t *testing.T) {
	c := count(0)
	r := c.realm(map[string]string{"ab": "c", "a": "bc", "bob": "b"})
	wants(t, r, from(1), "ab", "c", true)
	c.checked(t, 1)
	wants(t, r, from(1), "ab", "c", true)
	wants(t, r, from(2), "ab", "c", true)
	wants(t, r, from(2), "ab", "c", true)
	c.checked(t, 0)
	wants(t, r, from(1), "a", "bc", true)
	c.checked(t, 1)

	r.file.use(hashes(map[string]string{"ab": "c", "a": "new"}))
	wants(t, r, from(1), "ab", "c", true)
	c.checked(t, 0)
	wants(t, r, from(1), "a", "new", true)
	c.checked(t, 1)
	synctest.Test(t, func(t *testing.T) { wants(t, r, from(1), "a", "bc", false) })
	c.checked(t, 1)
	wants(t, r, from(9), "a", "new", true)
	c.checked(t, 0)

	r.file.use(&content{}) // the file is gone
	synctest.Test(t, func(t *testing.T) { wants(t, r, from(4), "ab", "c", false) })
	c.checked(t, 0)
	r.file.use(hashes(map[string]string{"ab": "c"}))
	wants(t, r, from(5), "ab", "c", true)
	c.checked(t, 1)
	if len(r.file.remembered) != 1 {
		t.Errorf("%d are remembered", len(r.file.remembered))
	}
}

// TestChangedWhileChecked: what was right by a file that is another one by then is not
// remembered.
func TestChangedWhileChecked(t *testing.T) {
	c := count(0)
	r := c.realm(map[string]string{"alice": "old"})
	compare := c.compare
	c.compare = func(hash, password []byte) error {
		r.file.use(hashes(map[string]string{"alice": "new"}))
		return compare(hash, password)
	}
	wants(t, r, from(1), "alice", "old", true)
	if len(r.file.remembered) > 0 {
		t.Error("the old password is remembered")
	}
	synctest.Test(t, func(t *testing.T) { wants(t, r, from(1), "alice", "old", false) })
}

// TestNeverChecked: bcrypt is not asked about passwords that it would not see whole.
func TestNeverChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		long := strings.Repeat("x", maxBcrypt)
		c := count(0)
		r := c.realm(map[string]string{"alice": long})
		wants(t, r, from(1), "alice", long, true)
		c.checked(t, 1)
		wants(t, r, from(2), "alice", long+"x", false)
		wants(t, r, from(3), "nobody", long+"x", false)
		wants(t, r, from(4), "alice", "a\x00a", false)
		c.checked(t, 0)
	})
}

// TestUnknownUserCostsACheck: against the dummy, for which no password is right.
func TestUnknownUserCostsACheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := count(0)
		r := c.realm(map[string]string{"alice": "a"})
		wants(t, r, from(1), "nobody", "a", false)
		c.checked(t, 1)
		r.file.now.dummy = "dummy|hit"
		wants(t, r, from(2), "nobody", "hit", false)
		c.checked(t, 1)
		r.file.use(parse("f", nil))
		wants(t, r, from(3), "nobody", "a", false)
		c.checked(t, 0)
	})
}

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
		"one source":       func(int) netip.Prefix { return from(7) },
		"a thousand of it": from,
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

// TestCheckFails: an error of bcrypt's own lets nobody in, and nobody wait.
func TestCheckFails(t *testing.T) {
	c := count(0)
	c.compare = func([]byte, []byte) error { return bcrypt.ErrHashTooShort }
	r := c.realm(map[string]string{"alice": "a"})
	if right, err := r.Check(t.Context(), from(1), "alice", "a"); right || !errors.Is(err, bcrypt.ErrHashTooShort) {
		t.Errorf("%v, %v", right, err)
	}
}

// TestOptionsPrintNothing: neither a password nor a hash, wherever they stand.
func TestOptionsPrintNothing(t *testing.T) {
	o := holding(NewOptions(map[string]string{"alice": "c4n4ry"}, ""), parse("/etc/users", []byte("bob:"+ofAlice)))
	type within struct {
		hidden  Options
		Shown   Options
		Pointer *Options
	}
	w := within{o, o, &o}
	all := fmt.Sprintf("%v %+v %#v %s %v %+v %#v %s %v %d %x %q", o, o, o, o, w, w, w, w, &w, w, w, w)
	for _, v := range []any{o, w, &w, map[string]any{"o": o}} {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		all += string(b)
	}
	if strings.Contains(all, "c4n4ry") || strings.Contains(all, ofAlice[7:20]) || strings.Contains(all, fmt.Sprintf("%x", "c4n4ry")) {
		t.Error(all)
	}
	if !strings.Contains(all, "auth(1 users, file \"/etc/users\")") {
		t.Errorf("nothing is said at all: %s", all)
	}
}

func TestProblems(t *testing.T) {
	for _, user := range []string{"alice", "jörg k", strings.Repeat("u", 255), "a@b/c"} {
		if why := UserProblem(user); why != "" {
			t.Errorf("user %q: %s", user, why)
		}
	}
	for _, user := range []string{"", "a:b", strings.Repeat("u", 256), "a\nb", "a\x00", "\xff"} {
		if UserProblem(user) == "" {
			t.Errorf("user %q is fine", user)
		}
	}
	for _, password := range []string{"x", "a:b", strings.Repeat("p", 255), " ", "pässword"} {
		if why := PasswordProblem(password); why != "" {
			t.Errorf("password %q: %s", password, why)
		}
	}
	for _, password := range []string{"", strings.Repeat("p", 256), "secret\n", "\x00"} {
		if why := PasswordProblem(password); why == "" || password != "" && strings.Contains(why, password) {
			t.Errorf("password %q: %q", password, why)
		}
	}
}
