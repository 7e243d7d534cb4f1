package sdktest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/tunneld/tunneld/internal/pluginwire"
)

// announceTimeout bounds the wait for a record that was sent before what it
// explains, and for a descriptor whose answer is here.
const announceTimeout = 5 * time.Second

// wire is the daemon's end of the descriptor channel.
type wire struct {
	channel *pluginwire.Channel
	gone    chan struct{} // closed when the channel has ended
	once    sync.Once

	mu     sync.Mutex
	next   uint64
	waits  map[uint64]chan *pluginwire.Descriptor // dials that wait, by token; capacity 1
	relays map[uint64]*relay
}

// relay is what the channel says about one relay tunnel.
type relay struct {
	w     *wire
	token uint64

	eofOnce, endOnce sync.Once
	eof              chan struct{} // closed when the plugin's end of file is announced
	end              chan struct{} // closed at END
	endErr           error
}

func newWire(c *pluginwire.Channel) *wire {
	w := &wire{
		channel: c,
		gone:    make(chan struct{}),
		waits:   make(map[uint64]chan *pluginwire.Descriptor),
		relays:  make(map[uint64]*relay),
	}
	go w.receive()
	return w
}

func (w *wire) close() error {
	var err error
	w.once.Do(func() {
		err = w.channel.Close()
		<-w.gone
	})
	return err
}

// expect makes room for the descriptor of a dial before it is asked for.
func (w *wire) expect() (token uint64, arrives <-chan *pluginwire.Descriptor) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next++
	c := make(chan *pluginwire.Descriptor, 1)
	w.waits[w.next] = c
	return w.next, c
}

// forget ends a dial's wait and closes a descriptor that nobody took.
func (w *wire) forget(token uint64) {
	w.mu.Lock()
	c := w.waits[token]
	delete(w.waits, token)
	r := w.relays[token]
	w.mu.Unlock()
	select {
	case d := <-c:
		if r != nil {
			_ = r.abort("the dial was given up")
			r.forget()
		}
		d.Close()
	default:
	}
}

// claim waits for the descriptor of a dial that was answered.
func (w *wire) claim(ctx context.Context, token uint64, arrives <-chan *pluginwire.Descriptor) (net.Conn, *relay, error) {
	timer := time.NewTimer(announceTimeout)
	defer timer.Stop()
	select {
	case d := <-arrives:
		f := d.File()
		conn, err := net.FileConn(f)
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, nil, fmt.Errorf("descriptor that was handed over: %w", err)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		return conn, w.relays[token], nil
	case <-w.gone:
		return nil, nil, errors.New("the plugin closed the descriptor channel")
	case <-timer.C:
		return nil, nil, errors.New("no descriptor came for the dial's answer")
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
}

func (w *wire) receive() {
	defer close(w.gone)
	for {
		got, err := w.channel.Receive()
		var bad *pluginwire.BadRecordError
		if err != nil && !errors.As(err, &bad) {
			return
		}
		if err == nil {
			w.handle(got)
		}
	}
}

func (w *wire) handle(got pluginwire.Received) {
	if got.Kind == pluginwire.Handoff {
		w.handed(got)
		return
	}
	w.mu.Lock()
	r := w.relays[got.Token]
	w.mu.Unlock()
	switch {
	case r == nil:
	case got.Kind == pluginwire.EOF:
		r.announced()
	case got.Kind == pluginwire.End:
		r.ended(got)
	}
}

func (w *wire) handed(got pluginwire.Received) {
	if w.deliver(got) {
		return
	}
	if got.Path == pluginwire.PathRelay {
		_ = w.channel.Send(pluginwire.Record{Kind: pluginwire.Abort, Token: got.Token, Text: "no dial waits for it"}, nil)
	}
	got.Descriptor.Close()
}

// deliver gives a descriptor to the dial that waits for it, if one does.
func (w *wire) deliver(got pluginwire.Received) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case w.waits[got.Token] <- got.Descriptor:
	default: // none waits, or it is the second one for the same dial
		return false
	}
	if got.Path == pluginwire.PathRelay {
		w.relays[got.Token] = &relay{w: w, token: got.Token, eof: make(chan struct{}), end: make(chan struct{})}
	}
	return true
}

func (r *relay) announced() { r.eofOnce.Do(func() { close(r.eof) }) }

func (r *relay) ended(got pluginwire.Received) {
	r.endOnce.Do(func() {
		if got.Status == pluginwire.StatusError {
			r.endErr = errors.New(got.Text)
		}
		close(r.end)
	})
}

// confirmEOF returns nil if the end of file that was read is a clean one.
func (r *relay) confirmEOF() error {
	timer := time.NewTimer(announceTimeout)
	defer timer.Stop()
	select {
	case <-r.eof:
		return nil
	case <-r.end:
		return r.endErr
	case <-r.w.gone:
		return r.afterGone()
	case <-timer.C:
		return errors.New("the plugin closed the tunnel without announcing it")
	}
}

// afterGone looks at what came before the channel's end.
func (r *relay) afterGone() error {
	select {
	case <-r.eof:
		return nil
	case <-r.end:
		return r.endErr
	default:
		return errors.New("the plugin is gone")
	}
}

func (r *relay) awaitEnd(ctx context.Context) error {
	select {
	case <-r.end:
		return r.endErr
	case <-r.w.gone:
		select {
		case <-r.end:
			return r.endErr
		default:
			return fmt.Errorf("%w: the plugin is gone", ErrNotClean)
		}
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *relay) announceEOF() error {
	return r.w.channel.Send(pluginwire.Record{Kind: pluginwire.EOF, Token: r.token}, nil)
}

// abort tells the plugin; one that is gone or has ended the tunnel needs it no
// more.
func (r *relay) abort(reason string) error {
	select {
	case <-r.end:
		return nil
	case <-r.w.gone:
		return nil
	default:
	}
	err := r.w.channel.Send(pluginwire.Record{Kind: pluginwire.Abort, Token: r.token, Text: reason}, nil)
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func (r *relay) forget() {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	delete(r.w.relays, r.token)
}
