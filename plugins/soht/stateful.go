package soht

import (
	"context"
	"io"
	"net/http"

	"github.com/tunneld/tunneld/plugins/sdk"
)

// stateful is the stream of mode "stateful": one read that lasts as long as the
// tunnel, and writes beside it.
type stateful struct {
	*tunnel
	answered chan struct{} // closed once body is set, or the read has failed
	body     io.ReadCloser
	tail     *tail // made by the first Read
}

func newStateful(c *client, id string, writeSize int) sdk.Stream {
	t, life, requests := newTunnel(c, id, writeSize)
	s := &stateful{tunnel: t, answered: make(chan struct{})}
	s.spawn(func() { s.request(life, requests) })
	s.spawn(func() { s.send(requests, nil) })
	return s
}

// request begins the read. Its answer comes with the target's first byte, which
// may be never: nothing waits for it but Read.
func (s *stateful) request(life, requests context.Context) {
	defer close(s.answered)
	ctx, cancel := context.WithCancel(requests)
	form := s.client.form()
	*form = appendAction((*form)[:0], "read", s.id)
	r, free, err := s.client.post(ctx, "read", form, false)
	if err != nil {
		cancel()
		s.cancel(err)
		return
	}
	free()
	// An answer with a body that has not ended is cancelled without harm; with
	// data coming, it would not end by itself.
	context.AfterFunc(life, cancel)
	if err := s.client.status(r); err != nil {
		_ = r.Body.Close()
		s.cancel(err)
		return
	}
	s.body = r.Body
}

// Close also gives the read's connection back where its body was read to the end.
func (s *stateful) Close() error {
	err := s.tunnel.Close()
	if s.body != nil {
		_ = s.body.Close()
	}
	return err
}

// Abort is Close.
func (s *stateful) Abort(string) { _ = s.Close() }

// Read returns io.EOF only at the target's end of file as the server marks it.
func (s *stateful) Read(p []byte) (int, error) {
	select {
	case <-s.answered:
	case <-s.done:
		return 0, s.cause()
	}
	if s.body == nil {
		return 0, s.cause()
	}
	if s.tail == nil {
		s.tail = newTail(s.body, s.spawn)
	}
	n, err := s.tail.Read(p)
	if err == nil || err == io.EOF {
		return n, err
	}
	// The first cause is the one to tell: a failed write ends the read, too.
	s.cancel(err)
	return n, s.cause()
}

// status reads the status byte of a read's answer.
func (c *client) status(r *http.Response) error {
	var b [1]byte
	switch n, err := r.Body.Read(b[:]); {
	case n == 0 && err == io.EOF:
		return reset("read")
	case n == 0:
		return cut("read", "the answer broke off", err)
	}
	switch b[0] {
	case statusAlive:
		return nil
	case statusGone:
		return &Error{
			Action: "read", Reason: sdk.ReasonUnavailable, Err: ErrUnknown,
			Message: "the server does not know the connection, or has closed it",
			Hint:    "check that all requests reach the same server: a load balancer in between has to be sticky",
		}
	}
	start := make([]byte, sdk.MaxPage)
	start[0] = b[0]
	n, _ := r.Body.Read(start[1:])
	return c.notSOHT("read", r, start[:1+n])
}
