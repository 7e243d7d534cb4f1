package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/tunneld/tunneld/core/internal/tunnel"
)

// client is the daemon's side of a tunnel. It is done with by finish, abort or
// drop.
type client struct {
	*tunnel.Conn
	in   io.Reader
	wait time.Duration
	gone bool
	late func(time.Duration) // called for a record that came after what it announces
	// lateness is the delay from which on late is called.
	lateness time.Duration
}

// dial makes a tunnel through an instance.
func (r *run) dial1(ctx context.Context, i *instance, generation uint64, target tunnel.Target) (*client, error) {
	ctx, cancel := context.WithTimeout(ctx, r.opts.Timeout)
	defer cancel()
	c, err := r.stream(ctx, i, generation, target)
	if err != nil {
		return nil, err
	}
	return &client{
		Conn: c, in: io.MultiReader(bytes.NewReader(c.ReadAhead), c.Stream), wait: r.opts.Timeout, lateness: r.opts.lateness,
		late: i.ledger.late,
	}, nil
}

// stream dials and makes what the kit reads and writes of it.
func (r *run) stream(ctx context.Context, i *instance, generation uint64, target tunnel.Target) (*tunnel.Conn, error) {
	c, err := i.Dial(ctx, generation, r.upstream.Name, tunnel.Dial{
		Target: target, Source: "127.0.0.1:1", Listener: "kit", Route: "kit", Connection: "kit", Socket: r.upstream.Socket,
	})
	if err != nil {
		return nil, err
	}
	if err := c.UseStream(); err != nil {
		if c.Relay != nil {
			c.Relay.Abort(err.Error())
			c.Relay.Ended()
		}
		return nil, err
	}
	return c, nil
}

// lateness is how long after an end of file the word on it may be handled: it
// was sent before.
const lateness = time.Second

// tunnel makes a tunnel to the target through the instance's first generation.
func (r *run) tunnel(ctx context.Context, i *instance) (*client, error) {
	c, err := r.dial1(ctx, i, firstGeneration, r.dest)
	if err != nil {
		return nil, explained(err)
	}
	return c, nil
}

// explained adds the hint to a failed dial.
func explained(err error) error {
	var d *tunnel.DialError
	if errors.As(err, &d) && d.Hint != "" {
		return fmt.Errorf("%w (%s)", err, d.Hint)
	}
	return err
}

// pair makes a tunnel and returns the target's side of it as well, which the
// caller gives back with the service's Drop.
func (r *run) pair(ctx context.Context, i *instance) (*client, *net.TCPConn, error) {
	c, err := r.tunnel(ctx, i)
	if err != nil {
		return nil, nil, err
	}
	first, arrived, forget := r.target.Expect()
	if err := c.write(first); err != nil {
		forget()
		c.drop()
		return nil, nil, fmt.Errorf("write through the tunnel: %w", err)
	}
	t := time.NewTimer(r.opts.Timeout)
	defer t.Stop()
	select {
	case far := <-arrived:
		return c, far, nil
	case <-t.C:
		err = fmt.Errorf("what was written did not arrive at the target within %s", r.opts.Timeout)
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	forget()
	c.drop()
	return nil, nil, err
}

func (c *client) write(b []byte) error {
	_ = c.Stream.SetWriteDeadline(time.Now().Add(c.wait))
	_, err := c.Stream.Write(b)
	return err
}

// read fills b.
func (c *client) read(b []byte) error {
	_ = c.Stream.SetReadDeadline(time.Now().Add(c.wait))
	n, err := io.ReadFull(c.in, b)
	if err == nil {
		return nil
	}
	return fmt.Errorf("after %d of %d bytes: %w", n, len(b), c.readError(err))
}

// readError tells an end of file that was announced from one that was not.
func (c *client) readError(err error) error {
	if (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)) && c.Relay != nil {
		if confirm := c.Relay.ConfirmEOF(); confirm != nil {
			return confirm
		}
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return io.EOF
	}
	return err
}

// ask writes b and wants it back.
func (c *client) ask(b []byte) error {
	sent := make(chan error, 1)
	go func() { sent <- c.write(b) }()
	got := make([]byte, len(b))
	err := c.read(got)
	if err != nil {
		// Nobody reads the rest.
		_ = c.Stream.SetWriteDeadline(time.Now())
	}
	if writeErr := <-sent; err == nil && writeErr != nil {
		err = fmt.Errorf("write: %w", writeErr)
	}
	if err != nil {
		return err
	}
	if at := differ(got, b); at >= 0 {
		return fmt.Errorf("byte %d came back as %#02x, and was sent as %#02x", at, got[at], b[at])
	}
	return nil
}

func differ(a, b []byte) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

// rest reads to a clean end of file.
func (c *client) rest() ([]byte, error) {
	_ = c.Stream.SetReadDeadline(time.Now().Add(c.wait))
	b, err := io.ReadAll(io.LimitReader(c.in, 1<<20))
	if err != nil {
		return b, fmt.Errorf("after %d bytes: %w", len(b), err)
	}
	if c.Relay != nil {
		begun := time.Now()
		if err := c.Relay.ConfirmEOF(); err != nil {
			return b, fmt.Errorf("after %d bytes: %w", len(b), err)
		}
		if took := time.Since(begun); took > c.lateness {
			c.late(took)
		}
	}
	return b, nil
}

// closeWrite ends the client's direction.
func (c *client) closeWrite() error {
	if c.Relay != nil {
		if err := c.Relay.AnnounceEOF(); err != nil {
			return err
		}
	}
	return c.Stream.(interface{ CloseWrite() error }).CloseWrite()
}

// finish ends a tunnel of which both directions have ended: it returns what is
// wrong with the plugin's word on it.
func (c *client) finish(ctx context.Context) error {
	var err error
	if c.Relay != nil {
		ctx, cancel := context.WithTimeout(ctx, c.wait)
		defer cancel()
		if err = c.Relay.ConfirmEnd(ctx); err != nil {
			c.drop()
			return err
		}
	}
	c.forget()
	return nil
}

// abort breaks the tunnel off, as the daemon does when its client does.
func (c *client) abort(reason string) {
	if c.gone {
		return
	}
	if c.Relay != nil {
		c.Relay.Abort(reason)
	} else if t, ok := c.Stream.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	c.forget()
}

// drop abandons a tunnel that is of no more interest.
func (c *client) drop() { c.abort("the kit is done with it") }

func (c *client) forget() {
	if c.gone {
		return
	}
	c.gone = true
	_ = c.Stream.Close()
	if c.Relay != nil {
		c.Relay.Ended()
	}
}
