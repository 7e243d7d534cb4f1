package listen

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tunneld/tunneld/core/internal/tunnel"
)

// Gateway takes the HTTP requests of one client to their targets. Its methods are called one
// after the other.
type Gateway interface {
	// Begin says that the head of a request has come as a whole. It returns what checks the
	// client's user and password; nil: nobody is asked. An error is told to the client, and
	// this is its last request.
	Begin() (Login, *tunnel.DialError)
	// Refused says why a client was refused that did not get as far as Route.
	Refused(ctx context.Context, err error)
	// Route finds the way of the request, and says whether the connection serves that was
	// dialed last. If it does not, Dial comes next.
	Route(Asked) (kept bool, err *tunnel.DialError)
	// Dial returns a connection to the target of the request. It may block; it returns soon
	// after ctx is done.
	Dial(ctx context.Context) (Upstream, *tunnel.DialError)
	// End says how the request has ended, and returns whether the connection that it has used
	// may be kept for the next. Each Begin has one.
	End(Exchange) (keep bool)
	// Idle says that the client is as one in its handshake again, until the next Begin.
	Idle()
}

// Asked is what a request asks for.
type Asked struct {
	Target tunnel.Target
	// Denied and User are as those of a Request.
	Denied *tunnel.DialError
	User   string
	// Kept says that the connection that was dialed last can be used again.
	Kept bool
}

// Exchange is a request that was answered, or was not.
type Exchange struct {
	Method string
	// URL is what the client asked for, without a query: that often holds what others are
	// not to see.
	URL    string
	Status int // of the answer; 0: there was none
	// Up and Down are the bytes sent to and received from the target.
	Up, Down int64
	// Err is why the answer has not come, or not as a whole; nil: it has.
	Err error
}

// ServerOptions are how a client's requests are served.
type ServerOptions struct {
	Gateway Gateway
	// Idle is the longest time without a byte from or to the client; 0: there is none.
	Idle time.Duration
	// Log gets what net/http reports.
	Log *slog.Logger
}

// Server answers the requests of one client that are not CONNECT, and passes them on. It
// makes no connection of its own, and shares none with another client.
type Server struct {
	client *Client
	o      ServerOptions
	front  *front
	server http.Server
	proxy  httputil.ReverseProxy
	// transport speaks HTTP on dialed, which is all that it is for.
	transport http.Transport
	dialed    *far
	far       atomic.Pointer[far] // the one that may be used again; nil: there is none
	now       *exchange

	ended    func() error // why the connection is broken off; nil: it is not
	accepted bool
	hijacked bool          // the client speaks another protocol by now
	over     chan struct{} // closed once the connection is

	mu    sync.Mutex
	quiet *time.Timer // looks whether the client is
}

// exchange is the request under way.
type exchange struct {
	method, url string
	asked       Asked
	last        bool     // of its connection
	sent        *sending // its body; nil: there is none
	far         *far     // over which it has gone; nil: it has not
	up, down    int64    // of that, before it
	status      int
	err         error // why there is no answer of the target's, or not all of it
}

// Server serves a client that is Plain. Serve is called, once.
func (c *Client) Server(o ServerOptions) *Server {
	s := &Server{client: c, o: o, front: newFront(c.conn, c.Ahead), over: make(chan struct{})}
	s.front.torn = s.torn
	var one http.Protocols
	one.SetHTTP1(true)
	s.server = http.Server{
		Handler:                      s,
		ReadHeaderTimeout:            c.conn.handshake,
		IdleTimeout:                  o.Idle,
		MaxHeaderBytes:               maxHeader - serverSlop,
		ConnState:                    s.turned,
		ErrorLog:                     slog.NewLogLogger(o.Log.Handler(), slog.LevelError),
		DisableGeneralOptionsHandler: true,
		Protocols:                    &one,
	}
	s.transport = http.Transport{
		DialContext:            func(context.Context, string, string) (net.Conn, error) { return s.dialed, nil },
		DisableCompression:     true,
		ExpectContinueTimeout:  continueTime,
		MaxResponseHeaderBytes: maxHeader,
		Protocols:              &one,
	}
	s.proxy = httputil.ReverseProxy{
		Transport:      s,
		Rewrite:        s.rewrite,
		ModifyResponse: s.modify,
		ErrorHandler:   s.unanswered,
		ErrorLog:       slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), // Exchange.Err has it
		BufferPool:     &copyBuffers,
	}
	return s
}

const (
	// serverSlop is what http.Server adds to MaxHeaderBytes.
	serverSlop = 4 << 10
	// continueTime is how long a client that expects 100 (Continue) waits for the target to
	// say so (RFC 9110, section 10.1.1).
	continueTime = time.Second
)

// Serve answers requests until the connection is over. It returns why a request was not read
// as a whole; nil: all were. ctx breaks the connection off.
func (s *Server) Serve(ctx context.Context) error {
	conn := s.client.conn
	if !conn.forget() {
		return context.Cause(ctx)
	}
	conn.watch(ctx)
	defer conn.forget()
	if s.o.Idle > 0 {
		defer s.watchQuiet()()
	}
	s.ended = func() error { return context.Cause(ctx) }
	s.server.BaseContext = func(net.Listener) context.Context { return ctx }
	_ = s.server.Serve(single{s}) // net.ErrClosed, once the connection is over
	s.discard()
	return s.front.unread()
}

// Drain has the request under way be the last, and ends the connection if there is none. It
// may be called by others.
func (s *Server) Drain() { s.server.SetKeepAlivesEnabled(false) }

// Unkeep ends the connection that is kept for the next request, if there is one. It may be
// called by others.
func (s *Server) Unkeep() {
	if f := s.far.Load(); f != nil {
		f.retire()
	}
}

// watchQuiet breaks off a client that takes or sends nothing for too long, until stop is
// called.
func (s *Server) watchQuiet() (stop func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quiet = time.AfterFunc(s.o.Idle, s.checkQuiet)
	return func() { s.quiet.Stop() }
}

func (s *Server) checkQuiet() {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Where it is the target that is quiet, its tunnel ends before, and the client is told.
	rest := s.o.Idle + answerTime - s.front.quiet()
	if rest <= 0 {
		s.front.breakOff()
		return
	}
	s.quiet.Reset(rest)
}

// single is a listener that has one connection.
type single struct{ *Server }

func (l single) Accept() (net.Conn, error) {
	if !l.accepted {
		l.accepted = true
		return l.front, nil
	}
	<-l.over
	return nil, net.ErrClosed
}

func (single) Close() error     { return nil }
func (l single) Addr() net.Addr { return l.front.LocalAddr() }

// turned follows what net/http does with the connection.
func (s *Server) turned(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateIdle:
		s.front.await()
		s.o.Gateway.Idle()
	case http.StateHijacked:
		s.hijacked = true
	case http.StateClosed:
		close(s.over)
	}
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.front.answering()
	s.now = &exchange{method: r.Method, url: shownURL(r.URL), last: closes(r)}
	rec := &recorder{ResponseWriter: w, exchange: s.now, minor: r.ProtoMinor}
	login, refusal := s.o.Gateway.Begin()
	whole := false
	defer func() { s.end(r, whole) }()
	if refusal != nil {
		s.now.last = true
		answer(rec, httpRefusal(refusal))
	} else {
		s.pass(rec, r, login)
	}
	whole = true
}

// closes says whether a request is the last of its connection. With HTTP/1.0 clients proxies
// keep none (RFC 9112, section 9.3). Behind a chunked body none is kept, either: if the
// request had a Content-Length as well, which net/http does not tell, somebody in front of
// this proxy may take something else for the next request (section 6.1).
func closes(r *http.Request) bool { return !r.ProtoAtLeast(1, 1) || len(r.TransferEncoding) > 0 }

// pass passes a request on, or says why not.
func (s *Server) pass(w *recorder, r *http.Request, login Login) {
	fail := s.ask(r, login)
	switch {
	case fail != nil && fail.Reset:
		s.o.Gateway.Refused(r.Context(), fail.Err)
		s.front.breakOff()
		panic(http.ErrAbortHandler)
	case fail != nil:
		s.o.Gateway.Refused(r.Context(), fail.Err)
		answer(w, fail.Answer)
	default:
		if final := forwards(r); final != nil {
			answer(w, final)
			return
		}
		s.proxy.ServeHTTP(w, r)
	}
}

// end ends an exchange. whole says that nothing has kept the answer from being passed on.
func (s *Server) end(r *http.Request, whole bool) {
	x := s.now
	e := Exchange{Method: x.method, URL: x.url, Status: x.status, Err: x.err}
	switch {
	case s.hijacked:
		e.Err = cmp.Or(s.ended(), x.err, x.far.broken(), s.front.gone())
	case !whole && x.err == nil, x.err != nil && r.Context().Err() != nil:
		e.Err = cmp.Or(s.ended(), ErrLeft)
	}
	if x.far != nil {
		e.Up, e.Down = x.far.up.Load()-x.up, x.far.down.Load()-x.down
		if !x.far.rest(e.Err == nil) {
			s.far.Store(nil)
		}
	}
	if !whole {
		s.front.breakOff() // half an answer must not look like a whole one
	}
	if !s.o.Gateway.End(e) {
		s.discard()
	}
	if s.hijacked {
		close(s.over)
	}
}

// torn says whether the connection is broken off, and whether a client that speaks another
// protocol has lost its target.
func (s *Server) torn() bool {
	return s.ended() != nil || s.hijacked && s.now.far.broken() != nil
}

// discard ends the connection that is kept for the next request.
func (s *Server) discard() {
	if f := s.far.Swap(nil); f != nil && f.rest(true) {
		_ = f.http.Close() // closes f
	}
}

// ask finds out what a request asks for, and of whom.
func (s *Server) ask(r *http.Request, login Login) *Failure {
	host, port, fail := absolute(r)
	if fail != nil {
		return fail
	}
	s.now.asked.Target, s.now.asked.Denied = named(host, port)
	s.now.asked.User = s.client.User
	if login == nil {
		return nil
	}
	var c credentials
	for _, value := range r.Header[authorization] {
		if c.fields++; c.fields == 1 {
			c.value, c.long = []byte(value[:min(len(value), maxCredentials)]), len(value) > maxCredentials
		}
	}
	user, fail := c.prove(s.prover(r.Context(), login))
	if fail == nil {
		s.now.asked.User = user
	}
	return fail
}

// prover checks the user and the password of one request.
func (s *Server) prover(ctx context.Context, login Login) prover {
	conn := s.client.conn
	until := time.Time{}
	if conn.handshake > 0 {
		until = time.Now().Add(conn.handshake)
	}
	return conn.proves(ctx, login, until)
}

func badRequest(text, hint string) *Failure {
	return &Failure{Err: &mistake{text, hint}, Answer: httpAnswer(http.StatusBadRequest, requestError, text+"\n"+hint)}
}

// absolute is the target of a request in absolute-form (RFC 9112, section 3.2.2).
func absolute(r *http.Request) (host string, port uint16, fail *Failure) {
	const askFor = "make the client ask for http://HOST/PATH, as clients do that are set to an HTTP proxy, or let it use CONNECT"
	u := r.URL
	switch {
	case r.ProtoMajor != 1:
		return "", 0, &Failure{
			Err:    &mistake{fmt.Sprintf("the client speaks %s, and only HTTP/1 is supported", r.Proto), "set the client to HTTP/1.1"},
			Answer: httpAnswer(http.StatusHTTPVersionNotSupported, requestError, "this proxy speaks HTTP/1.1"),
		}
	case r.Method == http.MethodConnect:
		return "", 0, badRequest("CONNECT behind another request of the same connection", "let the client make a connection of its own for it")
	case u.Scheme == "" || u.Host == "" && u.Opaque == "":
		return "", 0, badRequest(fmt.Sprintf("the request is for %.*q, which names no server", quoted, r.RequestURI), askFor)
	case strings.EqualFold(u.Scheme, "https"):
		return "", 0, badRequest("the request is for an https:// URI", "make the client use CONNECT for https://, as browsers and curl do: nobody can speak TLS with the server in its place")
	case !strings.EqualFold(u.Scheme, "http") || u.Opaque != "":
		return "", 0, badRequest(fmt.Sprintf("the request is for a URI of the scheme %.*q", quoted, u.Scheme), askFor)
	case u.User != nil:
		// RFC 9110, section 4.2.4. It is not repeated: it may have a password.
		return "", 0, badRequest("the request's URI has a user", "make the client send it in an Authorization field")
	}
	host, port = u.Hostname(), 80
	if text := u.Port(); text != "" {
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			n = 0
		}
		port = uint16(n)
	}
	if port == 0 || !validHost(host, strings.HasPrefix(u.Host, "[")) {
		return "", 0, badRequest(fmt.Sprintf("the request is for the server %.*q", quoted, u.Host), "check the address that the client asks for: a name or an IP address (IPv6 in brackets), and a port from 1 to 65535")
	}
	return host, port, nil
}

// forwards counts a request's Max-Forwards down, and returns the answer to one that may not go
// further (RFC 9110, section 7.6.2).
func forwards(r *http.Request) (final []byte) {
	const field = "Max-Forwards"
	if r.Method != http.MethodOptions && r.Method != http.MethodTrace {
		return nil
	}
	left, err := strconv.ParseUint(r.Header.Get(field), 10, 32)
	switch {
	case err != nil:
		return nil
	case left > 0:
		r.Header.Set(field, strconv.FormatUint(left-1, 10))
		return nil
	case r.Method == http.MethodOptions:
		return httpAnswer(http.StatusOK, "", "this is tunneld, an HTTP proxy")
	}
	// To repeat the request would be to show what is in it.
	return httpAnswer(http.StatusNotImplemented, "", "this proxy does not trace")
}

// answer says what httpAnswer has made.
func answer(w http.ResponseWriter, b []byte) {
	res, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(b)), nil)
	if err != nil {
		panic(err) // it is tunneld's own
	}
	for name, values := range res.Header {
		if name != "Connection" {
			w.Header()[name] = values
		}
	}
	w.WriteHeader(res.StatusCode)
	_, _ = io.Copy(w, res.Body) // a client that is gone
}
