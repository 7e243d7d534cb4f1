package engine

import (
	"net/netip"
	"time"

	"golang.org/x/time/rate"
)

// sourceKey is a source of connections to a listener; see originOf.
type sourceKey struct {
	slots  *listenerSlots
	source netip.Prefix
}

// named says whether the source is known: clients of unix sockets have no address, and
// are not one source.
func (k sourceKey) named() bool { return k.source.IsValid() }

// text is the source for people.
func (k sourceKey) text() string {
	if k.source.IsSingleIP() {
		return k.source.Addr().String()
	}
	return k.source.String()
}

// pace knows of each source how many connections it may still make at once: as many as
// it may make in a second, and after each of them a second brings all of them back. So a
// source that has made none for that long is forgotten.
type pace struct {
	since  time.Time // the begin of recent
	recent map[sourceKey]*rate.Limiter
	before map[sourceKey]*rate.Limiter
}

const paceFor = time.Second

// allows says whether one more connection is within perSecond; 0: there is no limit.
func (p *pace) allows(key sourceKey, perSecond int, now time.Time) bool {
	if perSecond == 0 {
		return true
	}
	l := p.of(key)
	return l == nil || p.at(l, perSecond, now).TokensAt(now) >= 1
}

// count is told of a connection that allows has allowed.
func (p *pace) count(key sourceKey, perSecond int, now time.Time) {
	if perSecond == 0 {
		return
	}
	if elapsed := now.Sub(p.since); elapsed >= paceFor {
		p.before = p.recent
		if elapsed >= 2*paceFor {
			p.before = nil
		}
		p.recent, p.since = map[sourceKey]*rate.Limiter{}, now
	}
	l := p.of(key)
	if l == nil {
		l = rate.NewLimiter(rate.Limit(perSecond), perSecond)
	}
	p.at(l, perSecond, now).AllowN(now, 1)
	delete(p.before, key)
	p.recent[key] = l
}

func (p *pace) of(key sourceKey) *rate.Limiter {
	if l := p.recent[key]; l != nil {
		return l
	}
	return p.before[key]
}

// at returns l with its limit brought up to date: a reload may have changed it.
func (p *pace) at(l *rate.Limiter, perSecond int, now time.Time) *rate.Limiter {
	if l.Burst() != perSecond {
		l.SetLimitAt(now, rate.Limit(perSecond))
		l.SetBurstAt(now, perSecond)
	}
	return l
}
