package soht

import (
	"context"
	"io"
	"time"

	"github.com/tunneld/tunneld/plugins/sdk"
)

// The pause between polls while nothing comes doubles from minPause to
// maxPause. bulkPause is the one after a reply that was not full in the midst
// of full ones.
const (
	bulkPause = time.Millisecond
	minPause  = 20 * time.Millisecond
	maxPause  = 2 * time.Second
)

// window is how many bytes may be sent beyond those that came while replies are
// full. The server hands a request's bytes to the target before it reads from
// it: a target that sends back as much as it gets, such as an echo, would stop
// taking any once the buffers between the two are full, and never be read again.
const window = 128 << 10

// pollTime bounds a poll that carries no data.
const pollTime = time.Minute

// replies is how many replies may wait for the client: one is delivered while
// the next is fetched.
const replies = 2

// stateless is the stream of mode "stateless": one readwrite after the other.
type stateless struct {
	*tunnel
	free chan []byte // buffers for replies
	full chan reply  // arrived
	now  reply       // being delivered; Read's
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
		free:   make(chan []byte, replies),
		full:   make(chan reply, replies+1),
	}
	for range replies {
		s.free <- make([]byte, 1+maxReply)
	}
	s.spawn(func() { s.exchange(requests) })
	return s
}

// exchange polls. Each poll may bring data, so that none is sent, and nothing
// written goes out, while the client leaves two replies unread.
func (s *stateless) exchange(ctx context.Context) {
	// Most clients speak first: a poll before that would keep them waiting
	// while it idles at the server.
	pause, full, behind, credit := minPause, false, false, window
	flushed := false
	for {
		var buffer []byte
		select {
		case buffer = <-s.free:
		case <-s.done:
			return
		}
		var data []byte
		var last bool
		if credit > 0 {
			data, last = s.next(pause, flushed)
		}
		if s.over() {
			return
		}
		start := time.Now()
		got, err := s.poll(ctx, data, buffer)
		switch {
		case err == io.EOF:
			// Nothing can be sent any more either.
			s.full <- reply{end: true}
			return
		case err != nil:
			s.cancel(err)
			return
		}
		if last && !flushed {
			flushed = true
			s.out.sentAll()
		}
		if len(got) == 0 {
			s.free <- buffer
		} else {
			s.took(time.Since(start))
			s.full <- reply{buffer: buffer, data: got}
		}
		pause = nextPause(pause, full, len(data), len(got))
		full = len(got) == maxReply
		// From the first full reply to the first empty one the target has more
		// than it could send.
		behind = full || behind && len(got) > 0
		credit = min(credit+len(got)-len(data), window)
		if !behind {
			credit = window
		}
	}
}

// poll does one readwrite. Without data it has a time limit; with some, the
// server may wait for the target to take them for as long as that likes.
func (s *stateless) poll(ctx context.Context, data, buffer []byte) ([]byte, error) {
	if len(data) == 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, s.client.pollTime, &Error{
			Action: "readwrite", Reason: sdk.ReasonTimeout, Err: ErrExchange,
			Message: "no answer within " + s.client.pollTime.String(),
			Hint:    "an idle poll is answered in a tenth of a second: see whether the server is stuck",
		})
		defer cancel()
	}
	return s.client.poll(ctx, s.id, data, buffer)
}

// nextPause is how long to wait, for the client to write, before the next poll
// after one that sent and brought so many bytes; full is whether the one before
// brought a full reply. A full reply means that more is waiting. After one that
// is not full the client has its turn: the next poll would find nothing, and
// idle at the server for 100 ms. In bulk it means mostly that the target's
// window had just closed, and data are there a moment later.
func nextPause(last time.Duration, full bool, sent, got int) time.Duration {
	switch {
	case got == maxReply:
		return 0
	case got > 0 && full:
		return bulkPause
	case got > 0 || sent > 0:
		return minPause
	}
	return min(max(2*last, minPause), maxPause)
}

// next waits for something to send, up to pause.
func (s *stateless) next(pause time.Duration, flushed bool) (data []byte, last bool) {
	if !flushed {
		return s.out.take(pause, s.linger(), s.done)
	}
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.done:
	}
	return nil, true
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
