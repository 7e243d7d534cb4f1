package splice

import (
	"os"
	"slices"
	"strings"
	"testing"
)

var (
	dirStateNames    = [dirStates]string{"open", "eof", "passing", "sink", "done"}
	dirEventNames    = [dirEvents]string{"eof", "flushed", "answered", "shut", "unwanted"}
	tunnelStateNames = [tunnelStates]string{"free", "direct", "relay", "asked", "over", "broken"}
	tunnelEventNames = [tunnelEvents]string{"ask", "clean", "both", "break", "aborted"}
	actionNames      = map[action]string{
		doPass: "pass", doShut: "shut", doDrop: "drop", doFinish: "finish", doAsk: "ask", doSettle: "settle",
		doClose: "close", doReset: "reset", doAbort: "abort", doRelease: "release",
	}
)

// cellText is a cell as the comment has it.
func cellText(next string, do action) string {
	switch do {
	case never:
		return "."
	case nothing:
		return next
	}
	return next + ", " + actionNames[do]
}

// TestTablesAreAsTheCommentHasThem: a reader need not take the comment on trust.
func TestTablesAreAsTheCommentHasThem(t *testing.T) {
	text, err := os.ReadFile("states_linux.go")
	if err != nil {
		t.Fatal(err)
	}
	comment, _, _ := strings.Cut(string(text), "type dirState")
	// said returns the cells of a row, below the head that the events are.
	said := func(events []string, row string) []string {
		head := "//\t           " + events[0] + " "
		_, table, ok := strings.Cut(comment, head)
		if !ok {
			t.Fatalf("no table of %q", events)
		}
		titles, table, _ := strings.Cut(head+table, "\n")
		for line := range strings.Lines(table) {
			line = strings.TrimSuffix(line, "\n")
			if !strings.HasPrefix(line, "//\t"+row+" ") {
				continue
			}
			var cells []string
			for i, e := range events {
				from, to := strings.Index(titles, " "+e)+1, len(line)
				if i+1 < len(events) {
					to = strings.Index(titles, " "+events[i+1]) + 1
				}
				cells = append(cells, strings.TrimSpace(line[from:min(to, len(line))]))
			}
			return cells
		}
		t.Fatalf("no row %q", row)
		return nil
	}
	check := func(row string, cells, want []string) {
		for i := range want {
			if cells[i] == "-" {
				cells[i] = row
			}
		}
		if !slices.Equal(cells, want) {
			t.Errorf("%s: the comment says %q, and the table is %q", row, cells, want)
		}
	}
	for state, steps := range dirTable {
		var want []string
		for _, step := range steps {
			want = append(want, cellText(dirStateNames[step.next], step.do))
		}
		check(dirStateNames[state], said(dirEventNames[:], dirStateNames[state]), want)
	}
	for state, steps := range tunnelTable {
		var want []string
		for _, step := range steps {
			want = append(want, cellText(tunnelStateNames[step.next], step.do))
		}
		check(tunnelStateNames[state], said(tunnelEventNames[:], tunnelStateNames[state]), want)
	}
}

// model is what is known of a tunnel: its states, and which answers of a plugin are
// still to come.
type model struct {
	tunnel                           tunnelState
	dirs                             [2]dirState
	announced, confirmed, end, abort bool
}

// visited are the cells that a walk through all models came by.
type visited struct {
	dirs    map[[2]int]bool
	tunnels map[[2]int]bool
}

func (v visited) direction(m *model, d int, e dirEvent) {
	step := dirTable[m.dirs[d]][e]
	v.dirs[[2]int{int(m.dirs[d]), int(e)}] = true
	if step.do == never {
		return
	}
	m.dirs[d] = step.next
	switch step.do {
	case doPass:
		switch {
		case m.tunnel == tunnelDirect:
			v.direction(m, d, evAnswered)
		case d == client:
			m.announced = true
		default:
			m.confirmed = true
		}
	case doShut: // that it fails is an event of its own in next
		v.direction(m, d, evShut)
	case doFinish:
		v.finish(m)
	}
}

// finish assumes that what a sink still holds has arrived, as it does in the end.
func (v visited) finish(m *model) {
	if m.dirs[upstream] == dirDone && (m.dirs[client] == dirDone || m.dirs[client] == dirSink) {
		v.tunnel(m, evBoth)
	}
}

func (v visited) tunnel(m *model, e tunnelEvent) {
	step := tunnelTable[m.tunnel][e]
	v.tunnels[[2]int{int(m.tunnel), int(e)}] = true
	if step.do == never {
		return
	}
	m.tunnel = step.next
	switch step.do {
	case doAsk:
		m.end = true
	case doAbort:
		m.abort = true
	case doSettle:
		v.direction(m, client, evUnwanted)
		// The turn after it may end in any of the ways of next.
		v.finish(m)
	}
}

// next returns what may become of a model. Each function says what the worker, the
// sockets and the plugin may do, and when.
func (v visited) next(m model) (all []model) {
	may := func(when bool, do func(*model)) {
		if when {
			n := m
			do(&n)
			all = append(all, n)
		}
	}
	relay := m.tunnel != tunnelDirect
	moves := m.tunnel != tunnelFree && m.tunnel != tunnelBroken
	for d := range m.dirs {
		// pump
		may(moves && (m.dirs[d] == dirOpen || m.dirs[d] == dirSink), func(n *model) { v.direction(n, d, evEOF) })
		may(moves && m.dirs[d] == dirEOF, func(n *model) { v.direction(n, d, evFlushed) })
	}
	endUp := func(n *model) {
		v.direction(n, client, evUnwanted)
		v.tunnel(n, evAsk)
	}
	// failed and notice: a relay takes no more, in any state of the client's direction.
	may(moves && relay, endUp)
	// notice: the plugin has closed its end, and nothing flows.
	may(moves && relay && m.dirs[client] == dirOpen, func(n *model) { v.tunnel(n, evAsk) })
	// Timeouts, kills, dead lines, resets: at any time. A kill also meets a tunnel that
	// is broken off.
	may(m.tunnel != tunnelFree, func(n *model) { v.tunnel(n, evBreak) })
	// settle and sink look again after a turn, which may have broken the tunnel off.
	may(m.tunnel != tunnelFree, v.finish)
	// The plugin's answers; those that come to nothing are dropped by message.
	may(m.announced, func(n *model) {
		if n.announced = false; moves {
			v.direction(n, client, evAnswered)
		}
	})
	may(m.announced && moves && m.dirs[client] == dirPassing, func(n *model) {
		n.announced = false
		endUp(n)
	})
	may(m.confirmed, func(n *model) {
		if n.confirmed = false; moves {
			v.direction(n, upstream, evAnswered)
		}
	})
	may(m.end, func(n *model) {
		if n.end = false; moves {
			v.tunnel(n, evClean)
		}
	})
	may(m.abort, func(n *model) { n.abort = false; v.tunnel(n, evAborted) })
	return all
}

// TestEveryStateIsLeft walks all that can happen to a tunnel: no cell that cannot
// happen does, every other one can, and wherever a tunnel is, it can end without
// being broken off.
func TestEveryStateIsLeft(t *testing.T) {
	v := visited{map[[2]int]bool{}, map[[2]int]bool{}}
	before := map[model][]model{} // what leads to a model, without a break
	var queue []model
	for _, kind := range []tunnelState{tunnelDirect, tunnelRelay} {
		queue = append(queue, model{tunnel: kind})
	}
	seen := map[model]bool{queue[0]: true, queue[1]: true}
	for len(queue) > 0 {
		m := queue[0]
		queue = queue[1:]
		for _, n := range v.next(m) {
			if n.tunnel != tunnelBroken || m.tunnel == tunnelBroken {
				before[n] = append(before[n], m)
			}
			if !seen[n] {
				seen[n] = true
				queue = append(queue, n)
			}
		}
	}
	t.Logf("%d situations", len(seen))
	for state, steps := range dirTable {
		for e, step := range steps {
			if v.dirs[[2]int{state, e}] != (step.do != never) {
				t.Errorf("direction, %s, %s: it happens is %t", dirStateNames[state], dirEventNames[e], step.do == never)
			}
		}
	}
	for state, steps := range tunnelTable {
		for e, step := range steps {
			if v.tunnels[[2]int{state, e}] != (step.do != never) {
				t.Errorf("tunnel, %s, %s: it happens is %t", tunnelStateNames[state], tunnelEventNames[e], step.do == never)
			}
		}
	}
	ends := map[model]bool{}
	var reach func(m model)
	reach = func(m model) {
		if ends[m] {
			return
		}
		ends[m] = true
		for _, b := range before[m] {
			reach(b)
		}
	}
	for m := range seen {
		if m.tunnel == tunnelFree {
			reach(m)
		}
	}
	for m := range seen {
		if !ends[m] {
			t.Errorf("nothing leads out of %s, %s and %s", tunnelStateNames[m.tunnel], dirStateNames[m.dirs[client]], dirStateNames[m.dirs[upstream]])
		}
	}
}
