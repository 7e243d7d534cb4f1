package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
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

// TestWrongPasswordCostsTheSame: of a user whose hash costs less than others', and of
// nobody.
func TestWrongPasswordCostsTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, work := NewGuard(), 0
		g.compare = func(hash, _ []byte) error {
			cost, err := bcrypt.Cost(hash)
			if err != nil {
				t.Error(err)
			}
			work += 1 << cost
			return bcrypt.ErrMismatchedHashAndPassword
		}
		r := g.Realm(holding(Options{}, &content{hashes: map[string]string{"low": dummyOf(4), "mid": dummyOf(6), "high": dummyOf(9)}, dummy: dummyOf(9)}))
		for i, user := range []string{"low", "mid", "high", "nobody"} {
			work = 0
			wants(t, r, from(i), user, "wrong", false)
			if work != 1<<9 {
				t.Errorf("%s: %d rounds, want %d", user, work, 1<<9)
			}
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
