// Package auth says whether a user has a password: one of the configuration, or one of an
// htpasswd file, which it follows. It bounds what checking costs, remembers who has logged
// in, and makes whoever guesses wait. It speaks no protocol.
package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// ErrBusy says that a password was not checked, since too many wait for that.
var ErrBusy = errors.New("too many logins wait to be checked")

// Guard is what all logins of a process share: how many are checked at a time, which
// sources have failed of late, and the key by which those are remembered that succeeded.
// See NewGuard. It is safe for concurrent use.
type Guard struct {
	key     []byte
	turns   *turns
	sources *sources
	// compare is bcrypt's comparison; the tests have others.
	compare func(hash, password []byte) error
}

// NewGuard returns the guard of a process, with a key of its own.
func NewGuard() *Guard {
	g := &Guard{key: make([]byte, sha256.Size), turns: newTurns(), sources: newSources(), compare: bcrypt.CompareHashAndPassword}
	_, _ = rand.Read(g.key) // it never fails
	return g
}

// digest stands for texts without telling them.
type digest [sha256.Size]byte

// digest covers each text with its length, so that "ab" and "c" are not "a" and "bc".
func (g *Guard) digest(texts ...string) (d digest) {
	h := hmac.New(sha256.New, g.key)
	var length [8]byte
	for _, text := range texts {
		binary.BigEndian.PutUint64(length[:], uint64(len(text)))
		h.Write(length[:])
		h.Write([]byte(text))
	}
	h.Sum(d[:0])
	return d
}

func (d digest) equal(other digest) bool { return hmac.Equal(d[:], other[:]) }

// ID tells Options apart, within one process.
type ID digest

// ID returns the same ID for the same users, passwords and path, and no other.
func (g *Guard) ID(o Options) ID { return ID(g.digest(o.fields()...)) }

// Realm is who may log in to one listener. See Guard.Realm. It is safe for concurrent use.
type Realm struct {
	guard *Guard
	users map[string]digest // of user and password
	file  *file             // nil: there is none
	seen  *seen
}

// Realm returns a realm in which nobody has logged in yet.
func (g *Guard) Realm(o Options) *Realm {
	r := &Realm{guard: g, users: make(map[string]digest, len(o.users)), seen: newSeen()}
	for user, password := range o.users {
		r.users[user] = g.digest(user, *password)
	}
	if o.file != "" {
		r.file = newFile(o.file, o.held())
	}
	return r
}

// Check says whether the user has the password. A login that was right is remembered, and
// right again at once, as long as it comes from a source of which that user's logins were
// right before. All others of a source are checked one after the other, and after a
// wrong one the source waits, and so does the answer to it. An error says that the
// password was not checked: ErrBusy, or why ctx has ended.
func (r *Realm) Check(ctx context.Context, from netip.Prefix, user, password string) (bool, error) {
	if r.seen.has(from, user) && r.remembers(r.wanted(user), user, password) {
		return true, nil
	}
	right, told, err := r.guard.sources.inTurn(ctx, from, attemptKey{r, r.guard.digest(user, password)}, func() (bool, error) {
		return r.check(ctx, user, password)
	})
	switch {
	case err != nil:
		return false, err
	case right:
		r.seen.add(from, user)
		return true, nil
	}
	sleepUntil(ctx, told) // ctx may be the time to answer in
	return false, nil
}

// wanted is what a password is held against.
type wanted struct {
	digest digest // of a user of the configuration
	hash   string // of one of the file, or the dummy; empty: there is none
	dummy  string
	known  bool
	own    bool // of the configuration
}

func (r *Realm) wanted(user string) wanted {
	w := wanted{}
	if r.file != nil {
		w.hash, w.dummy, w.known = r.file.hashOf(user)
	}
	if d, own := r.users[user]; own {
		w.digest, w.known, w.own = d, true, true
	}
	return w
}

// remembers says whether the password is certainly right. It costs next to nothing.
func (r *Realm) remembers(w wanted, user, password string) bool {
	switch {
	case w.own:
		return w.digest.equal(r.guard.digest(user, password))
	case w.known:
		return r.file.remembers(user, r.guard.digest(user, password, w.hash))
	}
	return false
}

// maxBcrypt is how many bytes of a password bcrypt looks at.
const maxBcrypt = 72

// check says whether the password is right. Where there is an htpasswd file, a wrong one
// costs the same whether there is such a user or not.
func (r *Realm) check(ctx context.Context, user, password string) (bool, error) {
	w := r.wanted(user)
	if r.remembers(w, user, password) {
		return true, nil
	}
	// A zero byte ends what bcrypt looks at, too, where it is written in C.
	if w.hash == "" || len(password) > maxBcrypt || strings.Contains(password, "\x00") {
		return false, nil
	}
	if err := r.guard.turns.take(ctx); err != nil {
		return false, err
	}
	defer r.guard.turns.give()
	err := r.guard.compare([]byte(w.hash), []byte(password))
	switch {
	case err == nil && w.known && !w.own:
		r.file.remember(user, w.hash, r.guard.digest(user, password, w.hash))
		return true, nil
	case err == nil, errors.Is(err, bcrypt.ErrMismatchedHashAndPassword):
		r.guard.evenOut(w, password)
		return false, nil
	}
	return false, err
}

// evenOut does what a wrong password has cost less than the dummy would have. Each step of
// the cost doubles the work, so it is that of one dummy of every cost in between.
func (g *Guard) evenOut(w wanted, password string) {
	least, notBcrypt := bcrypt.Cost([]byte(w.hash))
	most, notBcryptToo := bcrypt.Cost([]byte(w.dummy))
	if notBcrypt != nil || notBcryptToo != nil {
		return
	}
	for cost := least; cost < most; cost++ {
		_ = g.compare([]byte(dummyOf(cost)), []byte(password)) // no password is right
	}
}

// sleepUntil returns at the time, or when ctx has ended.
func sleepUntil(ctx context.Context, t time.Time) {
	d := time.Until(t)
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
