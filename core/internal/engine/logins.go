package engine

import (
	"log/slog"
	"slices"
	"strings"

	"github.com/tunneld/tunneld/core/internal/auth"
	"github.com/tunneld/tunneld/internal/follow"
)

// logins are the realms of the listeners that ask for a password, whose files are
// followed. A realm outlives generations as long as its listener has the same users and
// file, and with it who has logged in; a handshake of an older generation goes by what the
// file of one that has ended held last. What sources have failed is known of all of them.
type logins struct {
	guard    *auth.Guard
	follower *follow.Follower
	log      *slog.Logger
	registry[loginKey, *login]
}

type loginKey struct {
	listener string // its ID
	options  auth.ID
}

type login struct {
	*auth.Realm
	unfollowed bool
}

func newLogins(by *follow.Follower, log *slog.Logger) *logins {
	return &logins{guard: auth.NewGuard(), follower: by, log: log}
}

// of returns a listener's realm and its key; nil: nobody is asked. It is made where there
// is none. It is called with turn held.
func (all *logins) of(listener string, o auth.Options) (*auth.Realm, loginKey) {
	if o.IsZero() {
		return nil, loginKey{}
	}
	key := loginKey{listener, all.guard.ID(o)}
	l, ok := all.get(key)
	if !ok || l.unfollowed {
		l = &login{Realm: all.guard.Realm(o)}
		l.unfollowed = !all.follow(listener, l.Realm)
		all.put(key, l)
	}
	return l.Realm, key
}

// follow follows a realm's file. What is wrong with it now, the configuration has told.
func (all *logins) follow(listener string, r *auth.Realm) bool {
	err := r.Follow(all.follower, func() {
		now := r.State()
		for _, p := range now.Problems {
			all.log.Warn("an htpasswd file has changed, and not all of it can be used", "listener", listener, "err", p.String())
		}
		all.log.Info("an htpasswd file has changed, and is in use", "listener", listener, "file", now.File, "users", now.Users)
	})
	if err != nil {
		all.log.Warn("an htpasswd file is not followed: a reload is needed when it changes", "listener", listener, "err", err)
	}
	return err == nil
}

// problem is what of a listener's htpasswd file cannot be used, and why.
func (all *logins) problem(listener string) string {
	all.mu.Lock()
	defer all.mu.Unlock()
	var problems []string
	for key, l := range all.byKey {
		if text := l.State().Text(); key.listener == listener && text != "" {
			problems = append(problems, "auth: "+text)
		}
	}
	slices.Sort(problems)
	return strings.Join(problems, "; ")
}
