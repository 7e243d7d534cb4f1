package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"time"

	"github.com/tunneld/tunneld/internal/pluginwire"
)

var (
	question = bytes.Repeat([]byte("what the client says. "), 500)
	answer   = bytes.Repeat([]byte("what the target says. "), 700)
)

// declared is the outcome of a check of what the plugin says it cannot.
func (r *run) declared() (outcome, bool) {
	if !r.main.Info().GetNoHalfClose() {
		return outcome{}, false
	}
	return declare("the plugin says that its protocol cannot end one direction alone (no_half_close)"), true
}

func (r *run) halfCloseClient(ctx context.Context) outcome {
	if o, ok := r.declared(); ok {
		return o
	}
	if r.target == nil {
		return r.halfCloseEcho(ctx)
	}
	c, far, err := r.pair(ctx, r.main)
	if err != nil {
		return fail("%v", err)
	}
	defer r.target.Drop(far)
	defer c.drop()
	_ = far.SetDeadline(time.Now().Add(r.opts.Timeout))
	if err := errors.Join(c.write(question), c.closeWrite()); err != nil {
		return fail("%v", err)
	}
	got, err := io.ReadAll(far)
	if err != nil || !bytes.Equal(got, question) {
		return fail("the target, whose client has ended its direction, read %d of %d bytes: %v", len(got), len(question), ending(err))
	}
	if _, err := far.Write(answer); err != nil {
		return fail("the target's answer after its client's end of file: %v", err)
	}
	_ = far.CloseWrite()
	return rested(c, answer, "the target's answer after its client's end of file")
}

func (r *run) halfCloseEcho(ctx context.Context) outcome {
	c, err := r.tunnel(ctx, r.main)
	if err != nil {
		return fail("%v", err)
	}
	defer c.drop()
	if err := errors.Join(c.write(question), c.closeWrite()); err != nil {
		return fail("%v", err)
	}
	return rested(c, question, "the echo after the client's end of file")
}

// rested wants the rest of what a client reads to be want.
func rested(c *client, want []byte, what string) outcome {
	got, err := c.rest()
	switch {
	case err != nil:
		return fail("%s: %v", what, err)
	case !bytes.Equal(got, want):
		return fail("%s: %d bytes arrived, and %d were sent", what, len(got), len(want))
	}
	return pass("")
}

// ending names what ended a read.
func ending(err error) string {
	switch {
	case err == nil:
		return "end of file"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "and then nothing, not even an end of file"
	}
	return err.Error()
}

func (r *run) halfCloseTarget(ctx context.Context) outcome {
	if o, ok := r.declared(); ok {
		return o
	}
	c, far, err := r.pair(ctx, r.main)
	if err != nil {
		return fail("%v", err)
	}
	defer r.target.Drop(far)
	defer c.drop()
	_ = far.SetDeadline(time.Now().Add(r.opts.Timeout))
	if _, err := far.Write(answer); err != nil {
		return fail("%v", err)
	}
	_ = far.CloseWrite()
	if o := rested(c, answer, "what the target said before its end of file"); o.result != Pass {
		return o
	}
	if err := errors.Join(c.write(question), c.closeWrite()); err != nil {
		return fail("the client's bytes after the target's end of file: %v", err)
	}
	got, err := io.ReadAll(far)
	if err != nil || !bytes.Equal(got, question) {
		return fail("of the client's bytes after the target's end of file %d of %d arrived: %s", len(got), len(question), ending(err))
	}
	return pass("")
}

// end ends a tunnel cleanly: the target first where it takes part, which any
// protocol can, else the client.
func (r *run) end(ctx context.Context) outcome {
	var c *client
	var err error
	if r.target == nil {
		if c, err = r.tunnel(ctx, r.main); err != nil {
			return fail("%v", err)
		}
		defer c.drop()
		if o, ok := r.declared(); ok {
			return skip("the target cannot be made to end first, and %s", o.detail)
		}
		if r.lacks(LackHalfClose) {
			return skip("the target cannot be made to end first, and the far end lacks half-close")
		}
		if err := errors.Join(c.write(question), c.closeWrite()); err != nil {
			return fail("%v", err)
		}
		if o := rested(c, question, "the echo"); o.result != Pass {
			return o
		}
	} else {
		var far *net.TCPConn
		if c, far, err = r.pair(ctx, r.main); err != nil {
			return fail("%v", err)
		}
		defer c.drop()
		_, err = far.Write(answer)
		r.target.Drop(far)
		if err != nil {
			return fail("%v", err)
		}
		if o := rested(c, answer, "what the target said before it closed"); o.result != Pass {
			return o
		}
		if err := c.closeWrite(); err != nil && c.Relay != nil {
			return fail("end the client's direction after the target's: %v", err)
		}
	}
	if err := c.finish(ctx); err != nil {
		return fail("both directions have ended, and the plugin's record is: %v", err)
	}
	if !r.relay {
		return pass("by the connection itself")
	}
	return pass("by an END record")
}

func (r *run) lacks(what string) bool { return slices.Contains(r.opts.Lacks, what) }

func (r *run) abort(ctx context.Context) outcome {
	return r.broken(ctx, r.main, func(c *client) { c.abort("the kit breaks off") })
}

// broken ends a tunnel in the middle of an upload and wants the target not to
// see a clean end.
func (r *run) broken(ctx context.Context, i *instance, breakOff func(c *client)) outcome {
	c, far, err := r.pair(ctx, i)
	if err != nil {
		return fail("%v", err)
	}
	defer r.target.Drop(far)
	defer c.drop()
	if err := c.write(question); err != nil {
		return fail("%v", err)
	}
	_ = far.SetReadDeadline(time.Now().Add(r.opts.Timeout))
	if _, err := io.ReadFull(far, make([]byte, len(question))); err != nil {
		return fail("the client's bytes at the target: %v", err)
	}
	breakOff(c)
	return r.unclean(far)
}

// unclean wants the next that a target reads to be anything but a clean end.
func (r *run) unclean(far *net.TCPConn) outcome {
	patience := r.patience(pluginwire.NoAbort)
	_ = far.SetReadDeadline(time.Now().Add(patience))
	n, err := far.Read(make([]byte, 1))
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fail("the target sees no end at all within %s", patience)
	case err == nil:
		return fail("the target reads %d bytes that nobody sent", n)
	case !errors.Is(err, io.EOF):
		return pass("the target sees a reset")
	case r.relay && r.cannot(pluginwire.NoAbort):
		return declare("the target sees a clean end of file; the plugin says that its protocol has only one kind of end (%s)", pluginwire.NoAbort)
	case r.relay:
		return fail("the target sees a clean end of file")
	}
	// On the direct path it is the far end that makes of a reset what it likes.
	return pass("the target sees an end of file: the far end does not pass a reset on")
}

func (r *run) targetReset(ctx context.Context) outcome {
	c, far, err := r.pair(ctx, r.main)
	if err != nil {
		return fail("%v", err)
	}
	defer c.drop()
	// Bytes that the client has seen show that the tunnel carried them, so that
	// the reset cannot overtake them.
	_, err = far.Write(answer)
	if err == nil {
		err = c.read(make([]byte, len(answer)))
	}
	if err != nil {
		r.target.Drop(far)
		return fail("what the target said: %v", err)
	}
	_ = far.SetLinger(0)
	r.target.Drop(far)
	return r.uncleanForClient(ctx, c)
}

func (r *run) uncleanForClient(ctx context.Context, c *client) outcome {
	got, err := c.rest()
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fail("the client sees no end at all within %s", r.opts.Timeout)
	case err != nil:
		return pass("the client sees: %s", trimmed(err))
	case len(got) > 0:
		return fail("the client reads %d bytes that nobody sent", len(got))
	case !r.relay:
		return pass("the client sees an end of file: the far end does not pass a reset on")
	}
	// END may still take the clean end of file back.
	if err := errors.Join(c.closeWrite(), c.finish(ctx)); err != nil {
		return pass("the client sees: %s", trimmed(err))
	}
	// Of all that can go wrong this alone is what a protocol may have to do.
	return r.unlessDeclared(fail("the client sees a clean end"), pluginwire.NoReset)
}

// trimmed is an error without where it happened.
func trimmed(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		return fmt.Sprint(op.Err)
	}
	return err.Error()
}
