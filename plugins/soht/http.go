package soht

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tunneld/tunneld/plugins/sdk"
)

const (
	// idleTimeout is how long a connection is kept for reuse: less than the
	// 5 s after which the strictest of the usual servers (Apache httpd) drops
	// it. A POST that meets the server's close in mid-air cannot be repeated,
	// since nobody knows whether it was carried out, and costs the tunnel.
	idleTimeout = 4 * time.Second
	// maxIdle bounds the connections that are kept.
	maxIdle = 64
	// maxReplyHeader bounds the headers of an answer.
	maxReplyHeader = 64 << 10
	// maxProbeReply is what is read of the page that a GET brings.
	maxProbeReply = 64 << 10
	// closeTimeout bounds the wait for the answer to a close, which is repeated
	// then: a plugin that is told to stop has no longer either.
	closeTimeout = 2 * time.Second
)

// client is the HTTP side of one upstream and one set of socket options.
type client struct {
	url       *url.URL
	host      string // of the Host header
	header    http.Header
	transport atomic.Pointer[http.Transport]
	forms     *sync.Pool // of *[]byte
	pollTime  time.Duration
	repeats   *repeater
	secrets   []string // what no text of a peer's may repeat

	// doubtful holds until it is known whether connections are kept, where an
	// answer's headers cannot be believed.
	doubtful atomic.Bool
}

// neverReuse makes each request from here on take a connection of its own.
func (c *client) neverReuse() {
	c.changeTransport(func(t *http.Transport) { t.DisableKeepAlives = true })
}

// follow makes connections from here on be made with conf, where the files of the tls
// block have changed: each state of them has sessions of its own. Connections that were
// made with what they held before are not used again.
func (c *client) follow(conf *tls.Config) {
	if c.transport.Load().TLSClientConfig.ClientSessionCache != conf.ClientSessionCache {
		c.changeTransport(func(t *http.Transport) { t.TLSClientConfig = conf })
	}
}

// changeTransport puts a changed copy in the transport's place.
func (c *client) changeTransport(change func(*http.Transport)) {
	for {
		was := c.transport.Load()
		t := was.Clone()
		change(t)
		sdk.ReportAlerts(t)
		if c.transport.CompareAndSwap(was, t) {
			was.CloseIdleConnections()
			return
		}
	}
}

// newTransport returns a transport whose connections are out's. It follows no
// redirects, keeps no cookies and puts no limit on the wait for an answer: read's
// begins with the target's first byte.
func (c *Config) newTransport(cl *client, out sdk.Outbound, tlsConfig *tls.Config) *http.Transport {
	var protocols http.Protocols
	// Not HTTP/2: there all tunnels would share one connection and its end.
	protocols.SetHTTP1(true)
	t := &http.Transport{
		TLSClientConfig:        tlsConfig,
		TLSHandshakeTimeout:    c.Timeouts.Handshake,
		DisableCompression:     true,
		MaxIdleConns:           maxIdle,
		MaxIdleConnsPerHost:    maxIdle,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxReplyHeader,
		Protocols:              &protocols,
	}
	out.Use(t)
	if c.ViaConnect {
		t.Proxy = nil // a connection of DialContext goes through CONNECT
	} else if proxy, err := t.Proxy(&http.Request{URL: cl.url}); proxy != nil && err == nil {
		t.DialContext = dialFunc(t.DialContext).marked()
		cl.doubtful.Store(true)
	}
	sdk.ReportAlerts(t)
	return t
}

// probe asks for the blank page that the server has for a GET, so that the next
// request shows whether the connection was kept. tinyproxy (1.11) closes its
// connections behind each answer and takes the header out that would say so;
// a write on one of them is lost, or is not, and cannot be repeated.
func (c *client) probe(ctx context.Context) {
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { use(info.Conn) },
	})
	req := &http.Request{Method: http.MethodGet, URL: c.url, Host: c.host, Header: c.header.Clone()}
	req.Header.Del("Content-Type")
	r, err := c.transport.Load().RoundTrip(req.WithContext(ctx))
	if err != nil {
		return // the open behind it says what is wrong
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, maxProbeReply))
	_ = r.Body.Close()
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
// repeated is, where a kept connection turns out to be closed, on a connection
// of its own, since the other kept ones may be closed as well. Any other request
// that this happens to may have been carried out, or not.
func (c *client) post(ctx context.Context, action string, form *[]byte, repeatable bool) (r *http.Response, free func(), err error) {
	var open atomic.Int32
	free = func() {
		// The transport may still be writing a form whose answer came early.
		if open.Load() == 0 {
			c.forms.Put(form)
		}
	}
	var reused atomic.Bool
	transport := c.transport.Load()
	r, err = c.roundTrip(ctx, transport, *form, &open, &reused)
	if err != nil && repeatable && reused.Load() && ctx.Err() == nil {
		transport = transport.Clone()
		transport.DisableKeepAlives = true
		r, err = c.roundTrip(ctx, transport, *form, &open, &reused)
	}
	if err != nil {
		free()
		if cause := context.Cause(ctx); cause != nil {
			return nil, nil, cause
		}
		if e := (*Error)(nil); errors.As(err, &e) {
			return nil, nil, e
		}
		return nil, nil, c.exchange(action, err)
	}
	if err := c.checkStatus(action, r); err != nil {
		_ = r.Body.Close()
		free()
		return nil, nil, err
	}
	return r, free, nil
}

// roundTrip makes one request through t; open counts the bodies that t has not
// closed yet, and reused tells whether it went out on a kept connection.
func (c *client) roundTrip(ctx context.Context, t *http.Transport, form []byte, open *atomic.Int32, reused *atomic.Bool) (*http.Response, error) {
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { reused.Store(info.Reused) },
	})
	req := &http.Request{
		Method:        http.MethodPost,
		URL:           c.url,
		Host:          c.host,
		Header:        c.header.Clone(),
		Body:          newFormBody(form, open),
		ContentLength: int64(len(form)),
		GetBody:       func() (io.ReadCloser, error) { return newFormBody(form, open), nil },
	}
	return t.RoundTrip(req.WithContext(ctx))
}
