package sdk

import (
	"sync"

	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// reporter joins what the author reports of an upstream and what the SDK knows.
type reporter struct {
	send func(*pluginv1.UpstreamStatus)
	tls  *tlsKept

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
	r.tls.state(st)
	r.send(st)
}
