package sdk

import (
	"sync"

	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// reporter joins what the author reports of an upstream and what the SDK knows.
type reporter struct {
	send  func(*pluginv1.UpstreamStatus)
	knows []known

	mu   sync.Mutex
	last Status
}

func (r *reporter) report(st Status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = st
	r.tell()
}

// again reports with what the SDK knows now.
func (r *reporter) again() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tell()
}

// tell is called with mu held, so that the newest is the last.
func (r *reporter) tell() {
	st := wireStatus(r.last)
	for _, k := range r.knows {
		k.state(st)
	}
	r.send(st)
}

// known is what the SDK itself knows of an upstream, and adds to its state.
type known interface {
	state(to *pluginv1.UpstreamStatus)
}
