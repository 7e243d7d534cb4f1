package auth

import (
	"strings"
	"sync"

	"github.com/tunneld/tunneld/internal/follow"
)

// file is an htpasswd file in use, and who of it has logged in.
type file struct {
	path string

	mu         sync.Mutex
	now        *content
	remembered map[string]remembered // by user
	watch      *follow.Watch
}

// remembered is a login that was right. There is one for each user: no two passwords
// are right for one hash.
type remembered struct {
	hash  string
	login digest // of user, password and hash
}

func newFile(path string, now *content) *file {
	return &file{path: path, now: now, remembered: map[string]remembered{}}
}

// hashOf returns a user's hash, or where there is no such user the dummy to check against
// instead.
func (f *file) hashOf(user string) (hash, dummy string, known bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if hash, known = f.now.hashes[user]; known {
		return hash, f.now.dummy, true
	}
	return f.now.dummy, f.now.dummy, false
}

func (f *file) remembers(user string, login digest) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	r, ok := f.remembered[user]
	return ok && r.login.equal(login)
}

// remember does so until the user's line changes.
func (f *file) remember(user, hash string, login digest) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.now.hashes[user] == hash {
		f.remembered[user] = remembered{hash, login}
	}
}

// use puts what the file holds now in use.
func (f *file) use(c *content) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = c
	for user, r := range f.remembered {
		if c.hashes[user] != r.hash {
			delete(f.remembered, user)
		}
	}
}

// Follow follows the htpasswd file, if there is one, and calls changed each time that
// what it holds now is in use. See follow.Follower for the calls and the error. It is
// called at most once; Stop ends it.
func (r *Realm) Follow(by *follow.Follower, changed func()) error {
	if r.file == nil {
		return nil
	}
	f := r.file
	watch, err := by.Follow([]follow.File{{Path: f.path, Sum: f.now.sum}}, func() {
		f.use(readFile(f.path))
		changed()
	})
	f.watch = watch
	return err
}

// Stop ends Follow: what the file held last stays in use.
func (r *Realm) Stop() {
	if r.file != nil && r.file.watch != nil {
		r.file.watch.Stop()
	}
}

// State is what an htpasswd file is good for.
type State struct {
	File     string
	Users    int // who can log in
	Problems []Problem
}

// State returns that of what the file holds now; without a file it is zero.
func (r *Realm) State() State {
	if r.file == nil {
		return State{}
	}
	r.file.mu.Lock()
	defer r.file.mu.Unlock()
	return State{r.file.path, len(r.file.now.hashes), r.file.now.problems}
}

// Text is the problems in one line; empty: there is none.
func (s State) Text() string {
	var all []string
	for _, p := range s.Problems {
		all = append(all, p.String())
	}
	return strings.Join(all, "; ")
}
