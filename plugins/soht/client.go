package soht

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/tunneld/tunneld/plugins/sdk"
)

// The status byte in front of what read and readwrite bring.
const (
	statusGone  = 0
	statusAlive = 1
)

const (
	// maxReply is the most data that a readwrite brings; a reply that is full
	// means that more is waiting.
	maxReply = 16384
	// maxOpenReply bounds the answer to open.
	maxOpenReply = 4 << 10
)

// write sends data by a write action. It is answered once the server has
// written them to the target, which may take as long as the target likes.
func (c *client) write(ctx context.Context, id string, data []byte) error {
	form := c.form()
	*form = appendWrite((*form)[:0], "write", id, data)
	return c.empty(ctx, "write", form, false)
}

// release frees the id at the server, and is repeated in the background where it
// is not answered.
func (c *client) release(ctx context.Context, id string) error {
	err := c.close(ctx, id)
	if err != nil {
		c.repeats.add(c, id, err)
	}
	return err
}

// close frees the id at the server.
func (c *client) close(ctx context.Context, id string) error {
	form := c.form()
	*form = appendAction((*form)[:0], "close", id)
	return c.empty(ctx, "close", form, true)
}

// empty sends a form whose answer has to be empty.
func (c *client) empty(ctx context.Context, action string, form *[]byte, repeatable bool) error {
	r, free, err := c.post(ctx, action, form, repeatable)
	if err != nil {
		return err
	}
	defer free()
	defer r.Body.Close()
	var start [1]byte
	switch n, err := io.ReadFull(r.Body, start[:]); {
	case n > 0:
		return c.notSOHT(action, r, page(r, start[:]))
	case err != io.EOF:
		return cut(action, "the answer broke off", err)
	}
	return nil
}

// poll does a readwrite without data: it puts what came into buf, whose first
// maxReply+1 bytes it uses. It returns io.EOF where the server says that the
// connection is closed.
func (c *client) poll(ctx context.Context, id string, buf []byte) ([]byte, error) {
	const action = "readwrite"
	form := c.form()
	*form = appendWrite((*form)[:0], action, id, nil)
	r, free, err := c.post(ctx, action, form, false)
	if err != nil {
		return nil, err
	}
	defer free()
	defer r.Body.Close()
	n, err := 0, error(nil)
	for err == nil && n <= maxReply {
		var m int
		m, err = r.Body.Read(buf[n : maxReply+1])
		n += m
		if n == maxReply+1 && err == nil {
			var more [1]byte
			if m, err = io.ReadFull(r.Body, more[:]); m > 0 {
				return nil, c.notSOHT(action, r, []byte("more data than a reply can hold"))
			}
		}
	}
	switch {
	case err != io.EOF:
		return nil, cut(action, "the answer broke off", err)
	case r.ContentLength < 0 && len(r.TransferEncoding) == 0 && !r.ProtoAtLeast(1, 1):
		// Over HTTP/1.1 a body that ends with its connection is the server's own
		// (Jetty's). An HTTP/1.0 proxy makes one of any, also of one that broke
		// off on its other side.
		return nil, &Error{
			Action: action, Reason: sdk.ReasonProtocol, Err: ErrCut,
			Message: "the answer has neither a length nor chunks, so it may be cut short unnoticed",
			Hint:    `a proxy in between speaks HTTP/1.0: set mode = "stateful"`,
		}
	case n == 0:
		return nil, reset(action)
	case buf[0] == statusAlive:
		return buf[1:n], nil
	case buf[0] == statusGone && n == 1:
		return nil, io.EOF
	}
	return nil, c.notSOHT(action, r, buf[:n])
}

// reset is an answer without even a status byte.
func reset(action string) *Error {
	return &Error{
		Action: action, Reason: sdk.ReasonUnavailable, Err: ErrReset,
		Message: "the target reset the connection (an empty answer)",
	}
}

// open asks for a connection to the target and returns its id.
func (c *client) open(ctx context.Context, login credentials, target sdk.Target) (string, error) {
	form := c.form()
	*form = appendOpen((*form)[:0], target.Host, target.Port, login.username, login.password.Reveal())
	r, free, err := c.post(ctx, "open", form, true)
	if err != nil {
		return "", err
	}
	defer free()
	defer r.Body.Close()
	body, err := io.ReadAll(io.LimitReader(r.Body, maxOpenReply))
	if err != nil {
		return "", cut("open", "the answer broke off", err)
	}
	line, rest, ended := strings.Cut(string(body), "\n")
	line = strings.TrimSuffix(line, "\r")
	if text, ok := strings.CutPrefix(line, "FAIL"); ok {
		return "", c.refusal(strings.TrimPrefix(strings.TrimSpace(text), "- "), target)
	}
	if line != "SUCCESS" {
		if len(body) < len("SUCCESS\n") && strings.HasPrefix("SUCCESS\n", string(body)) {
			return "", cut("open", fmt.Sprintf("the answer ended after %d bytes", len(body)), nil)
		}
		return "", c.notSOHT("open", r, page(r, body))
	}
	id, _, whole := strings.Cut(rest, "\n")
	if !ended || !whole {
		return "", cut("open", "the answer ended before the connection's id", nil)
	}
	id = strings.TrimSuffix(id, "\r")
	if _, err := strconv.ParseUint(id, 10, 63); err != nil || len(id) > maxIDLength {
		return "", c.notSOHT("open", r, []byte("SUCCESS "+id))
	}
	return id, nil
}
