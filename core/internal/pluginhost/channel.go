package pluginhost

import (
	"errors"
	"time"

	"github.com/tunneld/tunneld/internal/pluginwire"
)

// receive reads the descriptor channel until its end. A plugin that closes it,
// without having been asked to end, can make no connection any more.
func (p *Process) receive() {
	defer close(p.tokens.gone)
	for {
		r, err := p.channel.Receive()
		var bad *pluginwire.BadRecordError
		if err == nil || errors.As(err, &bad) {
			p.watcher.Sent(r.Record, err)
		}
		switch {
		case errors.As(err, &bad):
			if r.Token != 0 {
				p.tokens.spoil(r.Token, bad.Err)
			}
		case err != nil:
			if !closed(p.ending) && !p.child.wait(drainWait) && !closed(p.ending) {
				p.log.Error("plugin closed its descriptor channel and is replaced", "pid", p.child.ID(), "err", err)
				p.end("closed its descriptor channel")
			}
			return
		case r.Kind == pluginwire.Handoff:
			if !p.tokens.deliver(r) {
				p.reject(r.Token, r.Path, r.Descriptor, "nobody waits for this tunnel")
			}
		case r.Kind == pluginwire.Abort: // which is the daemon's to send
		default:
			p.tokens.announce(r.Record)
		}
	}
}

// reject closes a descriptor that cannot be used. A relay is told first: the
// end of file alone would be a clean end.
func (p *Process) reject(token uint64, path uint8, d *pluginwire.Descriptor, reason string) {
	if d == nil {
		return
	}
	if path == pluginwire.PathRelay {
		_ = p.send(pluginwire.Record{Kind: pluginwire.Abort, Token: token, Text: reason})
	}
	d.Close()
}

// send writes a record. A plugin that does not read its channel would hold up
// the tunnels of all others: it is ended instead.
func (p *Process) send(r pluginwire.Record) error {
	t := time.AfterFunc(p.waits.send, func() {
		p.log.Error("plugin does not read its descriptor channel and is replaced", "pid", p.child.ID())
		p.end("did not read its descriptor channel")
		// Closing is what ends a write under way.
		_ = p.channel.Close()
	})
	defer t.Stop()
	return p.channel.Send(r, nil)
}
