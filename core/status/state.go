package status

// State is what the daemon, one of its listeners or one of its upstreams does for
// clients.
type State string

// The states, in the order of a life. The two in the middle may be left out, and may
// be taken back until it is closed.
const (
	// Serving takes new clients.
	Serving State = "serving"
	// Leaving still takes them, and says that it is not ready, so that they are sent
	// elsewhere.
	Leaving State = "leaving"
	// Draining takes none, and serves those that it has.
	Draining State = "draining"
	// Closed has none left.
	Closed State = "closed"
)

// rank is the position in the order of a life; the empty state is Serving.
func (s State) rank() int {
	switch s {
	case Leaving:
		return 1
	case Draining:
		return 2
	case Closed:
		return 3
	default:
		return 0
	}
}

// Takes says whether new clients are taken.
func (s State) Takes() bool { return s.rank() <= Leaving.rank() }

// After says whether s comes after other in a life.
func (s State) After(other State) bool { return s.rank() > other.rank() }

// Within is the state of a part of what is in the state whole: a listener of a daemon
// that drains does so, too.
func (s State) Within(whole State) State {
	if whole.After(s) {
		return whole
	}
	return s
}
