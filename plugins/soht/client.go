package soht

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

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
	// idleTimeout is how long a connection is kept for reuse: less than the
	// 5 s after which the strictest of the usual servers (Apache httpd) drops
	// it. A POST that meets the server's close in mid-air cannot be repeated,
	// since nobody knows whether it was carried out, and costs the tunnel.
	idleTimeout = 4 * time.Second
	// maxIdle bounds the connections that are kept.
	maxIdle = 64
	// maxReplyHeader bounds the headers of an answer.
	maxReplyHeader = 64 << 10
	// maxOpenReply bounds the answer to open.
	maxOpenReply = 4 << 10
	// closeTimeout bounds the close of a connection that has ended: a plugin
	// that is told to stop has no longer either.
	closeTimeout = 2 * time.Second
)

// client is the HTTP side of one upstream and one set of socket options.
type client struct {
	url       *url.URL
	host      string // of the Host header, where the user set one
	header    http.Header
	transport *http.Transport
	forms     *sync.Pool // of *[]byte
}

// newTransport returns a transport that dials with dial. It follows neither
// redirects nor the environment's proxy, keeps no cookies and puts no limit on
// the wait for an answer: read's begins with the target's first byte.
func newTransport(dial func(context.Context, string, string) (net.Conn, error), via *url.URL, tlsConfig *tls.Config, handshake time.Duration) *http.Transport {
	var protocols http.Protocols
	// Not HTTP/2: there all tunnels would share one connection and its end.
	protocols.SetHTTP1(true)
	t := &http.Transport{
		DialContext:            dial,
		TLSClientConfig:        tlsConfig,
		TLSHandshakeTimeout:    handshake,
		DisableCompression:     true,
		MaxIdleConns:           maxIdle,
		MaxIdleConnsPerHost:    maxIdle,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxReplyHeader,
		// Bulk: measured, four times the default takes a quarter off a
		// download; more gains nothing.
		ReadBufferSize:  16 << 10,
		WriteBufferSize: 16 << 10,
		Protocols:       &protocols,
		OnProxyConnectResponse: func(_ context.Context, _ *url.URL, _ *http.Request, r *http.Response) error {
			return checkStatus(connect, r)
		},
	}
	if via != nil {
		t.Proxy = http.ProxyURL(via)
	}
	return t
}

// formBody is a form on its way, whose buffer is free once each copy that the
// transport made of it is closed.
type formBody struct {
	bytes.Reader
	open   *atomic.Int32
	closed bool
}

func newFormBody(form []byte, open *atomic.Int32) *formBody {
	open.Add(1)
	b := &formBody{open: open}
	b.Reset(form)
	return b
}

// Close is called by one goroutine at a time.
func (b *formBody) Close() error {
	if !b.closed {
		b.closed = true
		b.open.Add(-1)
	}
	return nil
}

// form takes a buffer for one request's form.
func (c *client) form() *[]byte {
	if b, ok := c.forms.Get().(*[]byte); ok {
		return b
	}
	return new([]byte)
}

// post sends one form and returns the answer with its headers checked. The
// caller closes the answer's body and then calls free, which gives the form's
// buffer back; post does both itself where it fails. A request that may be
// repeated is, where a kept connection turns out to be closed.
func (c *client) post(ctx context.Context, action string, form *[]byte, repeatable bool) (r *http.Response, free func(), err error) {
	var open atomic.Int32
	free = func() {
		// The transport may still be writing a form whose answer came early.
		if open.Load() == 0 {
			c.forms.Put(form)
		}
	}
	req := &http.Request{
		Method:        http.MethodPost,
		URL:           c.url,
		Host:          c.host,
		Header:        c.header.Clone(),
		Body:          newFormBody(*form, &open),
		ContentLength: int64(len(*form)),
		GetBody:       func() (io.ReadCloser, error) { return newFormBody(*form, &open), nil },
	}
	if repeatable {
		// The transport takes the key as the permission; without a value it
		// is not sent.
		req.Header["Idempotency-Key"] = nil
	}
	r, err = c.transport.RoundTrip(req.WithContext(ctx))
	if err != nil {
		free()
		if cause := context.Cause(ctx); cause != nil {
			return nil, nil, cause
		}
		if e := (*Error)(nil); errors.As(err, &e) {
			return nil, nil, e
		}
		return nil, nil, exchange(action, err)
	}
	if err := checkStatus(action, r); err != nil {
		_ = r.Body.Close()
		free()
		return nil, nil, err
	}
	return r, free, nil
}

// write sends data by a write action. It is answered once the server has
// written them to the target, which may take as long as the target likes.
func (c *client) write(ctx context.Context, id string, data []byte) error {
	form := c.form()
	*form = appendWrite((*form)[:0], "write", id, data)
	return c.empty(ctx, "write", form, false)
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
	var start [maxQuote]byte
	switch n, err := io.ReadFull(r.Body, start[:]); {
	case n > 0:
		return notSOHT(action, r, start[:n])
	case err != io.EOF:
		return cut(action, "the answer broke off", err)
	}
	return nil
}

// poll does a readwrite: it sends data, and puts what came for it into buf,
// whose first maxReply+1 bytes it uses. It returns io.EOF where the server says
// that the connection is closed.
func (c *client) poll(ctx context.Context, id string, data, buf []byte) ([]byte, error) {
	const action = "readwrite"
	form := c.form()
	*form = appendWrite((*form)[:0], action, id, data)
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
				return nil, notSOHT(action, r, []byte("more data than a reply holds"))
			}
		}
	}
	switch {
	case err != io.EOF:
		return nil, cut(action, "the answer broke off", err)
	case r.ContentLength < 0 && len(r.TransferEncoding) == 0:
		return nil, &Error{
			Action: action, Reason: sdk.ReasonProtocol, Err: ErrCut,
			Message: "the answer has neither a length nor chunks, so that nobody can tell whether it is whole",
			Hint:    `a proxy that speaks HTTP/1.0 stands in between: set mode = "stateful"`,
		}
	case n == 0:
		return nil, reset(action)
	case buf[0] == statusAlive:
		return buf[1:n], nil
	case buf[0] == statusGone:
		return nil, io.EOF
	}
	return nil, notSOHT(action, r, buf[:n])
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
		return "", refusal(strings.TrimPrefix(strings.TrimSpace(text), "- "), target)
	}
	if line != "SUCCESS" {
		if len(body) < len("SUCCESS\n") && strings.HasPrefix("SUCCESS\n", string(body)) {
			return "", cut("open", fmt.Sprintf("the answer ended after %d bytes", len(body)), nil)
		}
		return "", notSOHT("open", r, body)
	}
	id, _, whole := strings.Cut(rest, "\n")
	if !ended || !whole {
		return "", cut("open", "the answer ended before the connection's id", nil)
	}
	id = strings.TrimSuffix(id, "\r")
	if _, err := strconv.ParseUint(id, 10, 63); err != nil || len(id) > maxIDLength {
		return "", notSOHT("open", r, []byte("SUCCESS "+id))
	}
	return id, nil
}
