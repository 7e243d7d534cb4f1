package sockopt

import (
	"testing"
	"time"
)

// seen is one look at a connection.
type seen struct {
	at      time.Duration
	unacked uint32
	last    time.Duration
	dead    bool
}

func TestLine(t *testing.T) {
	const s = time.Second
	for name, looks := range map[string][]seen{
		"nothing to acknowledge": {{10 * s, 0, 10 * s, false}, {1000 * s, 0, 1000 * s, false}},
		"all is acknowledged":    {{10 * s, 3, 0, false}, {200 * s, 3, s, false}, {400 * s, 3, s, false}},
		"nothing is": {
			{10 * s, 1, 10 * s, false}, {100 * s, 1, 100 * s, false}, {189 * s, 1, 189 * s, false}, {190 * s, 1, 190 * s, true},
		},
		"the first send after a long silence": {
			{1000 * s, 0, 1000 * s, false}, {1010 * s, 1, 1010 * s, false}, {1100 * s, 1, 1100 * s, false}, {1190 * s, 1, 1190 * s, true},
		},
		// Two probes of a closed window, seen in the field.
		"a closed window that answers every probe": {
			{10 * s, 1, s, false}, {125 * s, 1, 115 * s, false}, {131 * s, 1, 120200 * time.Millisecond, false},
			{140 * s, 1, s, false}, {250 * s, 1, 119 * s, false}, {260 * s, 1, 10 * s, false},
		},
		"what was unacknowledged and what is are two things": {
			{10 * s, 1, 100 * s, false}, {100 * s, 0, 20 * s, false}, {110 * s, 1, 190 * s, false}, {200 * s, 1, 280 * s, false},
			{290 * s, 1, 370 * s, true},
		},
		"seen first at the beginning of time": {{0, 1, 0, false}, {181 * s, 1, 181 * s, true}},
	} {
		t.Run(name, func(t *testing.T) {
			var l Line
			for _, look := range looks {
				if got := l.Dead(Acks{Unacked: look.unacked, Last: look.last}, look.at, DeadLineLimit); got != look.dead {
					t.Errorf("at %s, %d unacknowledged, %s since the last: dead is %t", look.at, look.unacked, look.last, got)
				}
			}
		})
	}
}
