package listen

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Upstream is a connection to the target of requests. Close ends it cleanly, Abort such that
// the far end sees that something was broken off.
type Upstream interface {
	HalfCloser
	Abort()
}

// far is an Upstream over which the requests of one client go, one after the other. Whoever
// speaks HTTP on it closes it as soon as it is of no more use to him, and whether its end is a
// clean one is known only once the exchange is over: until then Close only ends what waits on
// it.
type far struct {
	Upstream
	http     *http.ClientConn
	up, down atomic.Int64 // bytes

	mu      sync.Mutex
	busy    bool // an exchange is under way
	closing bool // it is to be closed after that
	over    bool
	err     error // of the first read or write that has failed
}

func (f *far) Read(b []byte) (int, error) {
	n, err := f.Upstream.Read(b)
	f.down.Add(int64(n))
	if !errors.Is(err, io.EOF) {
		f.failed(err)
	}
	return n, err
}

func (f *far) Write(b []byte) (int, error) {
	n, err := f.Upstream.Write(b)
	f.up.Add(int64(n))
	f.failed(err)
	return n, err
}

func (f *far) failed(err error) {
	if err == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil && !f.closing {
		f.err = err
	}
}

// broken is why the connection has failed; nil: it has not.
func (f *far) broken() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// passed is an instant that is over.
var passed = time.Unix(1, 0)

func (f *far) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.over:
		return nil
	case f.busy:
		f.closing = true
		return f.SetDeadline(passed)
	}
	f.over = true
	return f.Upstream.Close()
}

// begin begins an exchange. False: it is of no use any more.
func (f *far) begin() bool {
	available := f.http.Available() > 0 // it locks what calls Close
	f.mu.Lock()
	defer f.mu.Unlock()
	f.busy = !f.over && available
	return f.busy
}

// retire ends the connection unless an exchange is under way. It may be called at any time.
func (f *far) retire() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.busy && !f.over {
		f.over = true
		_ = f.Upstream.Close() // it is gone, whatever that returns
	}
}

// rest ends an exchange, and says whether there can be another one. whole says that the answer
// has come as a whole.
func (f *far) rest(whole bool) (usable bool) {
	usable = whole && f.broken() == nil && f.http.Available() > 0
	f.mu.Lock()
	f.busy = false
	usable = usable && !f.closing
	ends := !usable && !f.over
	f.over = !usable
	f.mu.Unlock()
	if !ends {
		return usable
	}
	if whole && f.broken() == nil {
		_ = f.Upstream.Close() // it is gone, whatever that returns
	} else {
		f.Abort()
	}
	_ = f.http.Close() // closes f, which is over
	return false
}
