package pluginhost

import (
	"sync"
	"time"

	"github.com/tunneld/tunneld/internal/pluginwire"
)

// tokens is what a process has been asked for and has not finished: dials that
// wait for a descriptor, and relays. It is safe for concurrent use.
type tokens struct {
	mu   sync.Mutex
	next uint64
	live map[uint64]*ticket
	// gone is closed once nothing more comes from the channel: everything that
	// the process sent before its end has been seen by then.
	gone chan struct{}
}

// ticket is one token. The channels are closed once each.
type ticket struct {
	token uint64
	// here is closed once the descriptor, or what became of it, is known.
	here chan struct{}
	// descriptor and path are the handoff's, err is why it cannot be used. They are
	// valid once here is closed, and descriptor is the table's until claim.
	descriptor *pluginwire.Descriptor
	path       uint8
	err        error
	late       func() // see issue
	patience   time.Duration
	timer      *time.Timer

	// eof and end are closed when the plugin says so; endErr is valid then.
	eof, end chan struct{}
	endErr   error
}

func newTokens() *tokens {
	return &tokens{live: make(map[uint64]*ticket), gone: make(chan struct{})}
}

// issue returns a new ticket. late is called when its descriptor has been here
// for the time patience and nobody claimed it.
func (t *tokens) issue(patience time.Duration, late func()) *ticket {
	k := &ticket{
		here:     make(chan struct{}),
		late:     late,
		patience: patience,
		eof:      make(chan struct{}),
		end:      make(chan struct{}),
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next++
	k.token = t.next
	t.live[k.token] = k
	return k
}

// deliver gives a handoff to whoever waits for it, and says whether somebody
// did: otherwise the descriptor is the caller's to close.
func (t *tokens) deliver(r pluginwire.Received) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := t.live[r.Token]
	if k == nil || closed(k.here) {
		return false
	}
	k.descriptor, k.path = r.Descriptor, r.Path
	close(k.here)
	k.timer = time.AfterFunc(k.patience, k.late)
	return true
}

// spoil tells the waiting dial that token's descriptor is lost.
func (t *tokens) spoil(token uint64, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if k := t.live[token]; k != nil && !closed(k.here) {
		k.err = err
		close(k.here)
	}
}

// announce records the plugin's word on a relay. What it says of a token that
// nobody has, or says twice, is ignored.
func (t *tokens) announce(r pluginwire.Record) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := t.live[r.Token]
	switch {
	case k == nil:
	case r.Kind == pluginwire.EOF && !closed(k.eof):
		close(k.eof)
	case r.Kind == pluginwire.End && !closed(k.end):
		if r.Status != pluginwire.StatusClean {
			k.endErr = &EndError{Reason: clean(r.Text, pluginwire.MaxText)}
		}
		close(k.end)
	}
}

// claim takes the descriptor out of the table: it is the caller's from here on.
// It is nil where none has come.
func (t *tokens) claim(k *ticket) *pluginwire.Descriptor {
	t.mu.Lock()
	defer t.mu.Unlock()
	return k.take()
}

// drop forgets a ticket and returns its descriptor, if it came and was not
// claimed. Whatever comes for it later is closed.
func (t *tokens) drop(k *ticket) *pluginwire.Descriptor {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.live, k.token)
	return k.take()
}

// take is called with the table's mu held.
func (k *ticket) take() *pluginwire.Descriptor {
	if k.timer != nil {
		k.timer.Stop()
	}
	// A relay's ticket lives as long as its tunnel, and late holds its dial.
	k.timer, k.late = nil, nil
	d := k.descriptor
	k.descriptor = nil
	return d
}

// len returns how many tickets there are.
func (t *tokens) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.live)
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
