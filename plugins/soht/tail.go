package soht

import (
	"io"
	"net"
	"time"
)

// holdTime is how long a zero byte at the end of what has arrived may be the
// mark of the target's end of file. After it the byte is data, and is
// delivered: messages of MySQL and PostgreSQL end in one, and both sides would
// wait for each other.
const holdTime = 20 * time.Millisecond

// aheadSize is the buffer of a read that waits behind a held zero byte.
const aheadSize = 16 << 10

// tail reads the data of a read's body, behind its status byte, and takes the
// mark off its end: exactly one zero byte, and only where the body ends cleanly
// behind it. One goroutine reads.
type tail struct {
	body  io.Reader
	spawn func(func()) bool // starts a goroutine; false when the tunnel has ended
	held  bool              // a zero byte that may be the mark comes next
	rest  []byte            // arrived, to be delivered
	err   error             // what follows rest and held

	// A read under way behind a held byte. Byte 0 of the buffer is room for
	// that byte.
	running bool
	buffer  []byte
	result  chan readResult
	hold    *time.Timer
}

type readResult struct {
	n   int
	err error
}

func newTail(body io.Reader, spawn func(func()) bool) *tail {
	return &tail{body: body, spawn: spawn}
}

func (t *tail) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		switch {
		case len(t.rest) > 0:
			n := copy(p, t.rest)
			t.rest = t.rest[n:]
			return n, nil
		case t.err != nil:
			return 0, t.err
		case t.running:
			if t.expired() {
				p[0] = 0
				return 1, nil
			}
		case t.held:
			t.readAhead()
		default:
			n, err := t.body.Read(p)
			if n = len(t.settle(p[:n], err)); n > 0 {
				return n, nil
			}
		}
	}
}

// readAhead reads on while a zero byte is held.
func (t *tail) readAhead() {
	if t.buffer == nil {
		t.buffer = make([]byte, 1+aheadSize)
		t.result = make(chan readResult, 1)
		t.hold = time.NewTimer(holdTime)
		t.hold.Stop()
	}
	t.running = t.spawn(func() {
		// The time begins when this goroutine runs, not when it was made: on a
		// busy machine the mark's end may be here already, unread.
		t.hold.Reset(holdTime)
		n, err := t.body.Read(t.buffer[1:])
		t.result <- readResult{n, err}
	})
	if !t.running {
		t.err = net.ErrClosed
	}
}

// expired waits for the read under way, or until the held byte has been held
// long enough: then it returns true, and that byte is to be delivered.
func (t *tail) expired() bool {
	if t.held {
		select {
		case r := <-t.result:
			t.arrived(r)
			return false
		case <-t.hold.C:
		}
	}
	select {
	case r := <-t.result:
		t.arrived(r)
		return false
	default:
	}
	if t.held {
		t.held = false
		return true
	}
	t.arrived(<-t.result)
	return false
}

// arrived takes over the result of the read under way, behind the held byte
// where there still is one.
func (t *tail) arrived(r readResult) {
	t.running = false
	t.hold.Stop()
	b := t.buffer[1 : 1+r.n]
	if t.held {
		t.held = false
		b = t.buffer[:1+r.n]
		b[0] = 0
	}
	t.rest = t.settle(b, r.err)
}

// settle decides on the last byte of what has arrived, and returns what is to
// be delivered of it.
func (t *tail) settle(b []byte, err error) []byte {
	zero := len(b) > 0 && b[len(b)-1] == 0
	switch {
	case err == nil:
		t.held = zero
	case err == io.EOF && zero:
		t.err = io.EOF
	case err == io.EOF:
		t.err = cut("read", "the answer ended without the mark of the target's end of file: the target may have reset the connection", nil)
		return b
	default:
		t.err = cut("read", "the answer broke off", err)
		return b
	}
	if zero {
		return b[:len(b)-1]
	}
	return b
}
