package engine

// pool is a number of places. A quarter of them is shared out evenly among the
// listeners, so that no listener is locked out by the others; the rest is common.
type pool struct {
	limit  int
	taken  int
	common int // the places that belong to no listener
	used   int // of these
}

// part is a listener's part of a pool.
type part struct {
	own   int // places that nobody else takes
	taken int // places, own ones first
}

// split makes the pool one of limit places for those listeners, and of others that
// have some left.
func (p *pool) split(limit int, listeners, leaving []*part) {
	own := 0
	if len(listeners) > 0 {
		own = limit / 4 / len(listeners)
	}
	*p = pool{limit: limit, common: limit - own*len(listeners)}
	for _, s := range listeners {
		s.own = own
		p.count(s)
	}
	for _, s := range leaving {
		s.own = 0
		p.count(s)
	}
}

func (p *pool) count(s *part) {
	p.taken += s.taken
	p.used += max(0, s.taken-s.own)
}

// free says whether there is a place for the listener.
func (p *pool) free(s *part) bool {
	return p.taken < p.limit && (s.taken < s.own || p.used < p.common)
}

func (p *pool) take(s *part) {
	p.taken++
	if s.taken++; s.taken > s.own {
		p.used++
	}
}

func (p *pool) give(s *part) {
	p.taken--
	if s.taken--; s.taken >= s.own {
		p.used--
	}
}
