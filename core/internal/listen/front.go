package listen

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tunneld/tunneld/internal/bare"
)

// headMemory is what net/http holds for each byte of a request's head: 129 KB were measured
// for 60 KB in many fields.
const headMemory = 3

// front is the connection of a client that sends requests, as net/http's server has it. It
// knows whether the client is in its handshake, which here is whenever the head of a request
// has not come as a whole: the time for that counts from its first byte, its memory is
// accounted for, and what net/http answers to one that it cannot read is said as tunneld says
// it.
type front struct {
	HalfCloser
	handshake time.Duration // 0: it may take any time
	hold      func(bytes int) error
	ahead     []byte
	active    atomic.Int64 // when the last byte has come or gone, in Unix nanoseconds
	torn      func() bool  // asked by Close while a request is answered: the end is to be a reset

	mu      sync.Mutex
	waiting bool // for a head
	begun   bool // of which there is something
	until   time.Time
	headErr error // why a head was not read
	err     error // of the first read or write beside
	broken  bool  // its end is to be a reset
}

func newFront(c *Conn, ahead []byte) *front {
	f := &front{
		HalfCloser: c.stream.(HalfCloser), // Talk has made it one
		handshake:  c.handshake,
		hold:       c.hold,
		ahead:      ahead,
		waiting:    true,
		begun:      true,
		until:      c.until,
	}
	f.touch()
	return f
}

func (f *front) touch() { f.active.Store(time.Now().UnixNano()) }

// Read implements net.Conn.
func (f *front) Read(b []byte) (int, error) {
	n, err := f.read(b)
	if n > 0 {
		f.touch()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.waiting {
		f.failed(err)
		return n, err
	}
	if n > 0 {
		if heldErr := f.hold(headMemory * n); heldErr != nil {
			f.headErr = heldErr
			return 0, heldErr
		}
		if !f.begun {
			f.begun = true
			if f.handshake > 0 {
				f.until = time.Now().Add(f.handshake)
				if err := f.HalfCloser.SetReadDeadline(f.until); err != nil {
					return n, err
				}
			}
		}
	}
	if err != nil && f.begun && f.headErr == nil {
		f.unheard(err)
	}
	return n, err
}

func (f *front) read(b []byte) (int, error) {
	if len(f.ahead) == 0 {
		return f.HalfCloser.Read(b)
	}
	n := copy(b, f.ahead)
	f.ahead = f.ahead[n:]
	return n, nil
}

// unheard notes that a head has not come as a whole, and tells a client that is too slow. It
// is called with mu held.
func (f *front) unheard(err error) {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	f.headErr = fmt.Errorf("read request: %w", err)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		f.say(httpAnswer(http.StatusRequestTimeout, requestError, "the request did not arrive in time"))
	}
}

// failed is called with mu held.
func (f *front) failed(err error) {
	// The server breaks reads off, too: by a deadline.
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrDeadlineExceeded) && f.err == nil {
		f.err = err
	}
}

// Write implements net.Conn.
func (f *front) Write(b []byte) (int, error) {
	f.mu.Lock()
	if f.waiting {
		defer f.mu.Unlock()
		f.unreadable(b)
		return len(b), nil
	}
	f.mu.Unlock()
	n, err := f.HalfCloser.Write(b)
	if n > 0 {
		f.touch()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failed(err)
	return n, err
}

// unreadable takes the answer of net/http to a head that it cannot read, and says it as
// tunneld does. It is called with mu held.
func (f *front) unreadable(answer []byte) {
	if f.headErr != nil {
		return
	}
	status, err := http.StatusBadRequest, &mistake{"the request cannot be read", "see what the client sends: its first line, its Host field, or another one, is malformed"}
	if code, parseErr := strconv.Atoi(string(answer[len("HTTP/1.1 "):][:3])); parseErr == nil {
		status = code
	}
	_, text, _ := bytes.Cut(answer, []byte("\r\n\r\n"))
	switch status {
	case http.StatusRequestHeaderFieldsTooLarge:
		err = errHeaderTooLarge
	case http.StatusBadRequest:
		if _, why, found := bytes.Cut(text, []byte(": ")); found {
			err.text += ": " + string(why)
		}
	case http.StatusNotImplemented:
		err = &mistake{"the request has a transfer coding other than chunked", "see what the client sends: tunneld knows no other"}
	case http.StatusHTTPVersionNotSupported:
		err = &mistake{"the client speaks another version of HTTP than 1", "set the client to HTTP/1.1"}
	case http.StatusExpectationFailed:
		err = &mistake{"the request expects something other than 100-continue", "see what the client sends in its Expect field"}
	}
	f.headErr = err
	f.say(httpAnswer(status, requestError, err.text+"\n"+err.hint))
}

// say tells the client something last.
func (f *front) say(answer []byte) {
	if f.SetWriteDeadline(time.Now().Add(answerTime)) == nil {
		_, _ = f.HalfCloser.Write(answer) // a client that is gone
	}
}

// SetReadDeadline implements net.Conn. It keeps the time for a head that has begun.
func (f *front) SetReadDeadline(t time.Time) error {
	f.mu.Lock()
	if f.waiting && f.begun && !f.until.IsZero() && (t.IsZero() || t.After(f.until)) {
		t = f.until
	}
	f.mu.Unlock()
	return f.HalfCloser.SetReadDeadline(t)
}

// answering says that a head has come as a whole.
func (f *front) answering() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting, f.begun = false, false
}

// await says that the next head may come.
func (f *front) await() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting = true
}

// unread is why a head was not read as a whole; nil: all were.
func (f *front) unread() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.headErr
}

// gone is why the client cannot be read from or written to; nil: it can.
func (f *front) gone() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// quiet is for how long no byte has come or gone while a request is answered.
func (f *front) quiet() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.waiting {
		return 0
	}
	return time.Since(time.Unix(0, f.active.Load()))
}

// breakOff has the connection end with a reset.
func (f *front) breakOff() {
	f.mu.Lock()
	f.broken = true
	f.mu.Unlock()
	bare.Reset(f.HalfCloser)
}

// Close implements net.Conn. What was written last arrives.
func (f *front) Close() error {
	f.mu.Lock()
	idle, broken := f.waiting && !f.begun, f.broken
	f.mu.Unlock()
	switch {
	case idle || broken:
	case f.torn():
		f.breakOff()
		return nil
	default:
		f.linger()
	}
	return f.HalfCloser.Close()
}

// linger takes what the client still sends, since closing with unread bytes would reset it.
func (f *front) linger() {
	if f.HalfCloser.SetDeadline(time.Now().Add(lingerTime)) != nil || f.CloseWrite() != nil {
		return
	}
	drop(f.HalfCloser)
}
