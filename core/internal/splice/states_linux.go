package splice

// A tunnel in a worker has three states: its own, and one for each direction. What
// happens to it is an event; the tables say which state and which action follow. The
// states change nowhere else.
//
// The states of a direction:
//
//	open     bytes are read and written
//	eof      the source has ended; what is held has to be written
//	passing  all is written; the plugin is asked about the end, or learns of it
//	sink     what still comes is read and dropped
//	done     the end has been passed on
//
//	           eof           flushed        answered       shut          unwanted
//	open       eof           .              .              .             sink, drop
//	eof        .             passing, pass  .              .             sink, drop
//	passing    .             .              passing, shut  done, finish  sink, drop
//	sink       done, finish  .              -              .             sink, drop
//	done       .             .              -              .             -
//
// The client's direction alone can be unwanted: the upstream takes no more, or its
// plugin has ended the tunnel. Then it becomes a sink: a socket that is closed with
// unread bytes resets its peer, and what the peer has yet to receive is lost.
//
// The states of a tunnel:
//
//	free     no tunnel: the slot waits for the next
//	direct   no plugin takes part
//	relay    the upstream is a relay
//	asked    its plugin is asked how the tunnel ended
//	over     it has said: cleanly
//	broken   broken off; the plugin does not know yet
//
//	           ask           clean          both           break          aborted
//	free       .             .              .              .              .
//	direct     .             .              free, close    free, reset    .
//	relay      asked, ask    .              asked, ask     broken, abort  .
//	asked      -             over, settle   -              broken, abort  .
//	over       -             .              free, close    broken, abort  .
//	broken     .             .              -              -              free, release
//
// In a cell stand the next state and the action. "-": this can happen, and changes
// nothing. ".": this cannot happen, and would change nothing either. The directions of
// a tunnel that is free or broken have no events.

type dirState uint8

const (
	dirOpen dirState = iota
	dirEOF
	dirPassing
	dirSink
	dirDone

	dirStates
)

type dirEvent uint8

const (
	// evEOF: a read has found the end of the source.
	evEOF dirEvent = iota
	// evFlushed: nothing that was read before the end is held any more.
	evFlushed
	// evAnswered: the plugin knows of the client's end, or has confirmed its own.
	evAnswered
	// evShut: the other side's socket has been shut down.
	evShut
	// evUnwanted: nobody takes what the direction carries.
	evUnwanted

	dirEvents
)

type tunnelState uint8

const (
	tunnelFree tunnelState = iota
	tunnelDirect
	tunnelRelay
	tunnelAsked
	tunnelOver
	tunnelBroken

	tunnelStates
)

type tunnelEvent uint8

const (
	// evAsk: only the plugin can say whether this is a clean end.
	evAsk tunnelEvent = iota
	// evClean: it has said so.
	evClean
	// evBoth: both directions are over.
	evBoth
	// evBreak: the tunnel must not go on.
	evBreak
	// evAborted: the plugin knows that it does not.
	evAborted

	tunnelEvents
)

type action uint8

const (
	never   action = iota // the event cannot happen in this state; no state changes
	nothing               // the event has happened, and that is all
	doPass
	doShut
	doDrop
	doFinish
	doAsk
	doSettle
	doClose
	doReset
	doAbort
	doRelease
)

type dirStep struct {
	next dirState
	do   action
}

type tunnelStep struct {
	next tunnelState
	do   action
}

var dirTable = [dirStates][dirEvents]dirStep{
	dirOpen: {
		evEOF:      {dirEOF, nothing},
		evUnwanted: {dirSink, doDrop},
	},
	dirEOF: {
		evFlushed:  {dirPassing, doPass},
		evUnwanted: {dirSink, doDrop},
	},
	dirPassing: {
		evAnswered: {dirPassing, doShut},
		evShut:     {dirDone, doFinish},
		evUnwanted: {dirSink, doDrop},
	},
	dirSink: {
		evEOF:      {dirDone, doFinish},
		evAnswered: {dirSink, nothing},
		evUnwanted: {dirSink, doDrop},
	},
	dirDone: {
		evAnswered: {dirDone, nothing},
		evUnwanted: {dirDone, nothing},
	},
}

var tunnelTable = [tunnelStates][tunnelEvents]tunnelStep{
	tunnelDirect: {
		evBoth:  {tunnelFree, doClose},
		evBreak: {tunnelFree, doReset},
	},
	tunnelRelay: {
		evAsk:   {tunnelAsked, doAsk},
		evBoth:  {tunnelAsked, doAsk},
		evBreak: {tunnelBroken, doAbort},
	},
	tunnelAsked: {
		evAsk:   {tunnelAsked, nothing},
		evClean: {tunnelOver, doSettle},
		evBoth:  {tunnelAsked, nothing},
		evBreak: {tunnelBroken, doAbort},
	},
	tunnelOver: {
		evAsk:   {tunnelOver, nothing},
		evBoth:  {tunnelFree, doClose},
		evBreak: {tunnelBroken, doAbort},
	},
	tunnelBroken: {
		evBoth:    {tunnelBroken, nothing},
		evBreak:   {tunnelBroken, nothing},
		evAborted: {tunnelFree, doRelease},
	},
}

// moves says that bytes are moved.
func (s *slot) moves() bool { return s.state != tunnelFree && s.state != tunnelBroken }

// directionEvent takes one direction on.
func (w *worker) directionEvent(s *slot, d int, e dirEvent) {
	dir := &s.dirs[d]
	step := dirTable[dir.state][e]
	if step.do == never {
		return
	}
	dir.state = step.next
	switch step.do {
	case doPass:
		w.passEnd(s, d)
	case doShut:
		w.shut(s, d)
	case doDrop:
		if a := s.allowance(d); a != nil {
			w.unpause(a)
		}
		w.drop(dir)
		s.readyIn[d] = true
	case doFinish:
		w.finish(s)
	}
}

// tunnelEvent takes the tunnel on. why comes with evBreak, and its error with evAsk.
func (w *worker) tunnelEvent(s *slot, e tunnelEvent, why ending) {
	step := tunnelTable[s.state][e]
	if step.do == never {
		return
	}
	s.state = step.next
	switch step.do {
	case doAsk:
		w.askPlugin(s, why.err)
	case doSettle:
		w.settle(s)
	case doClose:
		w.closeCleanly(s)
	case doReset:
		s.endBy(why)
		w.free(s, closeReset)
	case doAbort:
		s.endBy(why)
		w.abort(s)
	case doRelease:
		w.free(s, closeReset)
	}
}
