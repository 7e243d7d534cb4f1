package listen

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// maxURL bounds what is kept of a URL for the log, in bytes.
const maxURL = 1 << 10

// shownURL is a URL for the log.
func shownURL(u *url.URL) string {
	shown := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}
	text := shown.String()
	return text[:min(len(text), maxURL)]
}

// RoundTrip passes a request on over the connection that there is, or over a new one.
func (s *Server) RoundTrip(r *http.Request) (*http.Response, error) {
	for {
		f, kept, err := s.reach(r)
		if err != nil {
			return nil, err
		}
		s.now.far, s.now.up, s.now.down = f, f.up.Load(), f.down.Load()
		res, err := f.http.RoundTrip(r)
		if err == nil {
			return res, nil
		}
		if !kept || r.Context().Err() != nil || f.down.Load() > s.now.down || !repeats(r) {
			return nil, cmp.Or(f.broken(), err)
		}
		// The far end had closed it meanwhile.
		s.discard()
	}
}

// repeats says whether a request may be sent once more (RFC 9110, section 9.2.2).
func repeats(r *http.Request) bool {
	return r.Body == nil && slices.Contains([]string{http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete}, r.Method)
}

// reach returns a connection to the target of the request under way, and whether it was there
// before.
func (s *Server) reach(r *http.Request) (f *far, kept bool, err error) {
	s.now.asked.Kept = s.far.Load() != nil && s.far.Load().begin()
	kept, refusal := s.o.Gateway.Route(s.now.asked)
	if kept {
		return s.far.Load(), true, nil
	}
	s.discard() // it may have the place of an upstream's that the next needs
	if refusal != nil {
		return nil, false, refusal
	}
	// When the client leaves, net/http cancels without saying so.
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(r.Context()))
	defer cancel(nil)
	defer context.AfterFunc(r.Context(), func() { cancel(cmp.Or(s.ended(), ErrLeft)) })()
	ctx, stop := s.client.conn.watched(ctx)
	defer stop()
	up, refusal := s.o.Gateway.Dial(ctx)
	if refusal != nil {
		return nil, false, refusal
	}
	s.dialed = &far{Upstream: up, busy: true}
	s.dialed.http, err = s.transport.NewClientConn(ctx, "http", s.now.asked.Target.String())
	if err != nil {
		up.Abort()
		return nil, false, err
	}
	s.far.Store(s.dialed)
	return s.dialed, false, nil
}

// rewrite makes the request that is sent of the client's. Fields that are for this hop alone
// are gone by then, Proxy-Authorization among them.
func (s *Server) rewrite(p *httputil.ProxyRequest) {
	in, out := p.In, p.Out
	// The proxy of net/http takes away what a server behind it may trust. Here the client
	// says what it wants to the server of its choice.
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if values := in.Header[name]; values != nil && !isListed(in.Header, name) {
			out.Header[name] = slices.Clone(values)
		}
	}
	out.URL.RawQuery = in.URL.RawQuery
	if in.Method == http.MethodOptions && in.URL.Path == "" && in.URL.RawQuery == "" {
		out.URL.Path = "*" // RFC 9112, section 3.2.4
	}
	out.Host = in.URL.Host // whatever the Host field says (RFC 9112, section 3.2.2)
	out.Trailer = in.Trailer
	out.Header.Add("Via", via(in.ProtoMinor))
	if out.Body != nil {
		s.now.sent = &sending{ReadCloser: out.Body}
		out.Body = s.now.sent
	}
}

// via is this proxy in the field of that name (RFC 9110, section 7.6.3).
func via(minor int) string { return fmt.Sprintf("1.%d tunneld", minor) }

// sending is the body of a request, as its client sends it.
type sending struct {
	io.ReadCloser
	mu  sync.Mutex
	err error
}

func (b *sending) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.err = err
	}
	return n, err
}

func (b *sending) failed() error {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

// receiving is the body of an answer.
type receiving struct {
	io.ReadCloser
	exchange *exchange
}

func (b receiving) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) && b.exchange.err == nil {
		b.exchange.err = fmt.Errorf("the answer has not come as a whole: %w", cmp.Or(b.exchange.far.broken(), err))
	}
	return n, err
}

// modify makes the answer that the client gets of the target's.
func (s *Server) modify(res *http.Response) error {
	if res.StatusCode < 200 && res.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("it has the status %03d", res.StatusCode) // net/http would panic
	}
	res.Header.Add("Via", via(res.ProtoMinor))
	if res.StatusCode != http.StatusSwitchingProtocols {
		res.Body = receiving{res.Body, s.now}
		return nil
	}
	s.now.status = res.StatusCode
	to := res.Header.Get("Upgrade")
	dropHop(res.Header)
	res.Header.Set("Connection", "Upgrade")
	res.Header.Set("Upgrade", to)
	return nil
}

// unanswered tells the client that there is no answer to its request.
func (s *Server) unanswered(w http.ResponseWriter, _ *http.Request, err error) {
	s.now.err = err
	if sent := s.now.sent.failed(); sent != nil {
		s.now.err, s.now.last = fmt.Errorf("the request's body: %w", sent), true
		answer(w, httpAnswer(http.StatusBadRequest, requestError, "the request's body has not come as a whole"))
		return
	}
	var refusal *tunnel.DialError
	if !errors.As(err, &refusal) {
		refusal = noAnswer(err)
	}
	answer(w, httpRefusal(refusal))
}

// noAnswer is the error of a target that was reached, and has not answered as it should.
func noAnswer(err error) *tunnel.DialError {
	e := &tunnel.DialError{
		Stage:   pluginv1.Stage_STAGE_REQUEST,
		Reason:  pluginv1.Reason_REASON_PROTOCOL,
		Message: "the server's answer cannot be passed on: " + strings.TrimPrefix(err.Error(), "net/http: "),
		Hint:    "see what listens there: it has to speak HTTP/1",
		Err:     err,
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		e.Message, e.Hint = "the server closed the connection without a whole answer", "see the server's log"
	}
	return e
}

// hopFields are for one hop alone, also where Connection does not name them (RFC 9110, section
// 7.6.1).
var hopFields = []string{
	"Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

// dropHop removes the fields that are for one hop alone.
func dropHop(h http.Header) {
	for _, value := range h["Connection"] {
		for name := range strings.SplitSeq(value, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range hopFields {
		h.Del(name)
	}
}

// isListed says whether Connection names a field.
func isListed(h http.Header, field string) bool {
	for _, value := range h["Connection"] {
		for name := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(strings.TrimSpace(name), field) {
				return true
			}
		}
	}
	return false
}

// recorder is the way to the client of one answer.
type recorder struct {
	http.ResponseWriter
	exchange *exchange
	minor    int // the client's version is HTTP/1.minor
}

// WriteHeader implements http.ResponseWriter.
func (w *recorder) WriteHeader(status int) {
	if status < 200 {
		// HTTP/1.0 has no such answers (RFC 9110, section 15.2), and net/http says 100 (Continue)
		// when the body is read, which is when the target has said so.
		if w.minor > 0 && status != http.StatusContinue {
			dropHop(w.Header())
			w.ResponseWriter.WriteHeader(status)
		}
		return
	}
	w.exchange.status = status
	if w.exchange.last {
		w.Header().Set("Connection", "close")
	}
	if _, ok := w.Header()["Content-Type"]; !ok {
		w.Header()["Content-Type"] = nil // net/http would guess one
	}
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// copyBuffers are shared by all who copy an answer.
var copyBuffers bufferPool

const copySize = 32 << 10

// bufferPool implements httputil.BufferPool.
type bufferPool struct{ pool sync.Pool }

func (p *bufferPool) Get() []byte {
	if b, ok := p.pool.Get().(*[copySize]byte); ok {
		return b[:]
	}
	return make([]byte, copySize)
}

func (p *bufferPool) Put(b []byte) { p.pool.Put((*[copySize]byte)(b)) }
