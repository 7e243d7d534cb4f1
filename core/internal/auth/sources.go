package auth

import (
	"container/list"
	"context"
	"net/netip"
	"sync"
	"time"
)

const (
	// firstDelay is how long a source waits after a wrong login, and lastDelay the most
	// that this doubles to. Two of the last fit into the time that a client has for its
	// handshake: one before its login is checked, and one before it hears that it was wrong.
	firstDelay = time.Second
	lastDelay  = 4 * time.Second
	// forgiven is after how long without a wrong login one of them counts no more.
	forgiven = time.Minute
	// maxAttempts bounds the logins of one source that wait.
	maxAttempts = 32
	// maxSources bounds the sources whose wrong logins are counted. The one that has
	// been quiet longest is forgotten.
	maxSources = 8192
)

// sources are those whose logins wait or were wrong of late.
type sources struct {
	mu    sync.Mutex
	all   map[netip.Prefix]*source
	quiet list.List // those without an attempt, the longest quiet first
}

// source is where clients come from that cannot be told apart.
type source struct {
	from     netip.Prefix
	attempts []*attempt // the first is under way
	wrong    int        // how many wrong logins count
	last     time.Time  // when the last one came, or was one forgiven
	after    time.Time  // when the next attempt may begin
	place    *list.Element
}

// attempt is a login that is checked once, however many clients wait for the outcome: a
// pool of connections with an old password guesses once and not each for itself.
type attempt struct {
	key     attemptKey
	clients int
	turn    chan struct{} // holds an element while it is the first and nobody checks it
	over    chan struct{} // closed once the rest is set
	right   bool
	told    time.Time // not before
}

type attemptKey struct {
	realm *Realm
	login digest
}

func newSources() *sources {
	return &sources{all: map[netip.Prefix]*source{}}
}

// inTurn has check called by one of those clients of a source that come with the same
// login, after what else waits there, and once the source's delay is over. A login that
// was wrong is to be told so at told.
func (s *sources) inTurn(ctx context.Context, from netip.Prefix, key attemptKey, check func() (bool, error)) (right bool, told time.Time, err error) {
	src, a := s.join(from, key)
	if a == nil {
		return false, time.Time{}, ErrBusy
	}
	defer s.leave(src, a)
	select {
	case <-a.over:
		return a.right, a.told, nil
	case <-ctx.Done():
		return false, time.Time{}, context.Cause(ctx)
	case <-a.turn:
	}
	sleepUntil(ctx, s.notBefore(src))
	begun := time.Now()
	if err = context.Cause(ctx); err == nil {
		right, err = check()
	}
	if err != nil {
		a.turn <- struct{}{} // another client of the same login may have more time
		return false, time.Time{}, err
	}
	s.end(src, a, right, begun)
	return a.right, a.told, nil
}

// join returns the attempt that a client takes part in; nil: there are too many.
func (s *sources) join(from netip.Prefix, key attemptKey) (*source, *attempt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	src := s.all[from]
	if src == nil {
		src = &source{from: from}
		s.all[from] = src
	}
	if src.place != nil {
		s.quiet.Remove(src.place)
		src.place = nil
	}
	for _, a := range src.attempts {
		if a.key == key {
			a.clients++
			return src, a
		}
	}
	if len(src.attempts) == maxAttempts {
		return nil, nil
	}
	a := &attempt{key: key, clients: 1, turn: make(chan struct{}, 1), over: make(chan struct{})}
	src.attempts = append(src.attempts, a)
	if len(src.attempts) == 1 {
		a.turn <- struct{}{}
	}
	return src, a
}

// leave takes a client out of its attempt, which ends with the last.
func (s *sources) leave(src *source, a *attempt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.clients--; a.clients == 0 {
		src.remove(a)
	}
	if len(src.attempts) > 0 || src.place != nil || s.all[src.from] != src {
		return // it is not quiet, or another client has come to this before
	}
	if src.forgive(time.Now()); src.wrong == 0 {
		delete(s.all, src.from)
		return
	}
	src.place = s.quiet.PushBack(src)
	if s.quiet.Len() > maxSources {
		delete(s.all, s.quiet.Remove(s.quiet.Front()).(*source).from)
	}
}

// remove takes an attempt out, unless it was before, and lets the next one begin.
func (src *source) remove(a *attempt) {
	for i, other := range src.attempts {
		if other != a {
			continue
		}
		src.attempts = append(src.attempts[:i], src.attempts[i+1:]...)
		if i == 0 && len(src.attempts) > 0 {
			src.attempts[0].turn <- struct{}{}
		}
		return
	}
}

func (s *sources) notBefore(src *source) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return src.after
}

// end says how an attempt has ended that began at begun.
func (s *sources) end(src *source, a *attempt, right bool, begun time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.right = right; !right {
		src.forgive(begun)
		src.after = begun.Add(src.delay())
		src.wrong, src.last = min(src.wrong+1, mostWrong), begun
		a.told = src.after
	}
	src.remove(a)
	close(a.over)
}

// mostWrong is how many wrong logins bring a source to lastDelay.
const mostWrong = 3

// delay is that of the next wrong login. It counts from when the check began, so that
// its length does not tell what was checked.
func (src *source) delay() time.Duration { return min(firstDelay<<src.wrong, lastDelay) }

func (src *source) forgive(now time.Time) {
	for src.wrong > 0 && now.Sub(src.last) >= forgiven {
		src.wrong--
		src.last = src.last.Add(forgiven)
	}
}
