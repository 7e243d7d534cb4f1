package conformance

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tunneld/tunneld/internal/pluginwire"
)

// ledger is what came on a descriptor channel.
type ledger struct {
	mu                  sync.Mutex
	wrong               []string
	ended, handed, eofs map[uint64]bool
}

func newLedger() *ledger {
	return &ledger{ended: map[uint64]bool{}, handed: map[uint64]bool{}, eofs: map[uint64]bool{}}
}

func (l *ledger) take(rec pluginwire.Record, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.wrong) >= 20 {
		return
	}
	wrong := func(format string, args ...any) { l.wrong = append(l.wrong, fmt.Sprintf(format, args...)) }
	if err != nil {
		wrong("%v", errors.Unwrap(err))
		return
	}
	once := func(seen map[uint64]bool, what string) {
		if seen[rec.Token] {
			wrong("%s of tunnel %d came twice", what, rec.Token)
		}
		seen[rec.Token] = true
	}
	switch rec.Kind {
	case pluginwire.Handoff:
		once(l.handed, "the handoff")
	case pluginwire.EOF:
		once(l.eofs, "EOF")
	case pluginwire.End:
		once(l.ended, "END")
	case pluginwire.Abort:
		wrong("ABORT of tunnel %d, which is the daemon's to send", rec.Token)
	}
	if rec.Kind != pluginwire.Handoff && !l.handed[rec.Token] {
		wrong("a record of kind %d for tunnel %d, which was not handed over", rec.Kind, rec.Token)
	}
}

// late notes a word on an end of file that came after it.
func (l *ledger) late(by time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wrong = append(l.wrong, fmt.Sprintf("the record about a relay's end of file came %s after it", by.Round(100*time.Millisecond)))
}

func (l *ledger) findings() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.wrong)
}
