package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tunneld/tunneld/internal/pluginwire"
)

// EndError is what a plugin says of a relay that did not end cleanly.
type EndError struct {
	// Reason is the plugin's, or empty.
	Reason string
}

// Error returns the reason.
func (e *EndError) Error() string {
	if e.Reason == "" {
		return "the plugin broke the tunnel off"
	}
	return "the plugin broke the tunnel off: " + e.Reason
}

// errAborted is what a wait is ended with by Abort.
var errAborted = errors.New("the tunnel was broken off on this side")

// relay implements tunnel.Relay for one token of a process.
type relay struct {
	p       *Process
	k       *ticket
	abort   sync.Once
	aborted chan struct{} // closed by Abort
}

func newRelay(p *Process, k *ticket) *relay {
	return &relay{p: p, k: k, aborted: make(chan struct{})}
}

// AnnounceEOF tells the plugin that the end of file which it is about to read
// is meant.
func (r *relay) AnnounceEOF() error {
	return r.p.send(pluginwire.Record{Kind: pluginwire.EOF, Token: r.k.token})
}

// ConfirmEOF waits for the plugin's announcement, for five seconds at most.
func (r *relay) ConfirmEOF() error {
	t := time.NewTimer(r.p.waits.confirm)
	defer t.Stop()
	select {
	case <-r.k.eof:
	case <-r.k.end:
	case <-r.p.tokens.gone:
	case <-r.aborted:
	case <-t.C:
	}
	if closed(r.k.eof) {
		return nil
	}
	if over, err := r.end(); over {
		return err
	}
	return fmt.Errorf("relay ended without a record of the plugin (waited %s)", r.p.waits.confirm)
}

// ConfirmEnd waits for the plugin's END, its death, Abort or ctx: the plugin may
// have bytes to deliver for as long as the far end takes them.
func (r *relay) ConfirmEnd(ctx context.Context) error {
	select {
	case <-r.k.end:
	case <-r.p.tokens.gone:
	case <-r.aborted:
	case <-ctx.Done():
	}
	if over, err := r.end(); over {
		return err
	}
	return fmt.Errorf("relay: wait for the plugin to end it: %w", ctx.Err())
}

// end says whether the tunnel has ended, and how.
func (r *relay) end() (over bool, err error) {
	switch {
	case closed(r.k.end):
		return true, r.k.endErr
	case closed(r.p.tokens.gone):
		return true, fmt.Errorf("relay ended: %w", r.p.died())
	case closed(r.aborted):
		return true, errAborted
	}
	return false, nil
}

// Abort tells the plugin that the tunnel ends without a clean close. Only the
// first call counts.
func (r *relay) Abort(reason string) {
	r.abort.Do(func() {
		close(r.aborted)
		// Where it cannot be sent the plugin is gone, and so is the tunnel.
		_ = r.p.send(pluginwire.Record{Kind: pluginwire.Abort, Token: r.k.token, Text: reason})
	})
}

// Ended forgets the tunnel.
func (r *relay) Ended() { r.p.tokens.drop(r.k) }
