package soht

import (
	"context"
	"io"
	"time"

	"github.com/tunneld/tunneld/plugins/sdk"
)

// The pause between polls while nothing comes doubles from minPause to
// maxPause. bulkPause is the one after a reply that was not full in the midst
// of full ones. Once the client has ended and all is sent, half_close counts, and
// what is at the server has to come before it is over.
const (
	bulkPause = time.Millisecond
	minPause  = 20 * time.Millisecond
	endPause  = 100 * time.Millisecond
	maxPause  = 2 * time.Second
)

// pollTime bounds a poll.
const pollTime = time.Minute

// replies is how many replies may wait for the client: one is delivered while
// the next is fetched.
const replies = 2

// stateless is the stream of mode "stateless": writes, and beside them polls, one
// after the other. A readwrite could carry data as well, but the server keeps
// each for 100 ms while the target is silent: at 32 KiB that is 0.3 MB/s.
type stateless struct {
	*tunnel
	wrote chan struct{} // capacity 1: a write has begun, whose answer may come, or the last has ended
	free  chan []byte   // buffers for replies
	full  chan reply    // arrived
	now   reply         // being delivered; Read's
}

// reply is what a poll brought.
type reply struct {
	buffer []byte // to be given back
	data   []byte // in it, not delivered yet
	end    bool   // the target's end of file instead
}

func newStateless(c *client, id string, writeSize int) sdk.Stream {
	t, _, requests := newTunnel(c, id, writeSize)
	s := &stateless{
		tunnel: t,
		wrote:  make(chan struct{}, 1),
		free:   make(chan []byte, replies),
		full:   make(chan reply, replies+1),
	}
	for range replies {
		s.free <- make([]byte, 1+maxReply)
	}
	s.spawn(func() { s.receive(requests) })
	s.spawn(func() { s.send(requests, func() { notify(s.wrote) }) })
	return s
}

// receive polls. Each poll may bring data, so that none is sent while the client
// leaves two replies unread.
func (s *stateless) receive(ctx context.Context) {
	// Most clients speak first: a poll before that would idle at the server.
	pause, full := minPause, false
	for {
		var buffer []byte
		select {
		case buffer = <-s.free:
		case <-s.done:
			return
		}
		if s.out.allSent() {
			pause = min(pause, endPause)
		}
		woken := s.rest(pause)
		if s.over() {
			return
		}
		got, err := s.poll(ctx, buffer)
		switch {
		case err == io.EOF:
			s.full <- reply{end: true}
			return
		case err != nil:
			s.cancel(err)
			return
		}
		if len(got) == 0 {
			s.free <- buffer
		} else {
			s.full <- reply{buffer: buffer, data: got}
		}
		pause = nextPause(pause, full, woken, len(got))
		full = len(got) == maxReply
	}
}

// rest waits for as long as pause, or until a write begins: its answer comes with
// the poll that begins beside it.
func (s *stateless) rest(pause time.Duration) (woken bool) {
	if pause == 0 {
		return false
	}
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
		return false
	case <-s.wrote:
		return true
	case <-s.done:
		return false
	}
}

// poll does one readwrite.
func (s *stateless) poll(ctx context.Context, buffer []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.client.pollTime, &Error{
		Action: "readwrite", Reason: sdk.ReasonTimeout, Err: ErrExchange,
		Message: "no answer within " + s.client.pollTime.String(),
		Hint:    "a poll should be answered in a tenth of a second: check whether the server is stuck",
	})
	defer cancel()
	return s.client.poll(ctx, s.id, buffer)
}

// nextPause is how long to wait, for a write to begin, before the next poll after
// one that brought so many bytes; full is whether the one before brought a full
// reply, and woken whether a write began it. A full reply means that more is
// waiting. After one that is not full the client has its turn: the next poll
// would find nothing, and idle at the server for 100 ms. In bulk it means mostly
// that the target's window had just closed, and data are there a moment later.
func nextPause(last time.Duration, full, woken bool, got int) time.Duration {
	switch {
	case got == maxReply:
		return 0
	case got > 0 && full:
		return bulkPause
	case got > 0 || woken:
		return minPause
	}
	return min(max(2*last, minPause), maxPause)
}

// Read returns io.EOF where the server says that the connection is closed.
func (s *stateless) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(s.now.data) == 0 {
		if s.now.end {
			return 0, io.EOF
		}
		if s.now.buffer != nil {
			s.free <- s.now.buffer
			s.now = reply{}
		}
		select {
		case s.now = <-s.full:
			continue
		default:
		}
		select {
		case s.now = <-s.full:
		case <-s.done:
			return 0, s.cause()
		}
	}
	n := copy(p, s.now.data)
	s.now.data = s.now.data[n:]
	return n, nil
}
