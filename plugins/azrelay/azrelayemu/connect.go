package azrelayemu

import (
	"errors"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// entity is a hybrid connection and its listeners.
type entity struct {
	HybridConnection
	path string

	listeners []*control // under Server.mu
	next      int
}

// rendezvous is a sender that waits for a listener to accept.
type rendezvous struct {
	outcome chan outcome // takes one without blocking
}

// outcome is a listener's answer: its connection, or a status.
type outcome struct {
	listener *peer
	request  *http.Request
	done     chan struct{} // closed when the connection is no longer used

	status int
	reason string
}

// connect serves a sender.
func (s *Server) connect(p *peer, req *http.Request, e *entity, path string) {
	f := s.currentFaults()
	gone := watch(p)
	defer gone.stop()
	switch {
	case f.Status != 0:
		s.refuse(p, path, f.Status, f.Reason)
		return
	case f.Hang:
		select {
		case <-gone.done:
		case <-s.quit:
		}
		return
	}
	if !e.Anonymous {
		if _, no := s.authorize(requestToken(req), req.Host, e, path, Send); no != nil {
			s.refuse(p, path, no.status, no.text)
			return
		}
	}
	c := s.pick(e)
	if c == nil {
		s.refuse(p, path, http.StatusNotFound, "There are no listeners connected for the endpoint")
		return
	}
	id, r := newID(), &rendezvous{outcome: make(chan outcome, 1)}
	s.mu.Lock()
	s.pending[id] = r
	s.mu.Unlock()
	if err := c.offer(s.offer(req, path, id, p.conn.RemoteAddr())); err != nil {
		s.give(id, r)
		s.refuse(p, path, http.StatusNotFound, "There are no listeners connected for the endpoint")
		return
	}
	timer := time.NewTimer(s.options.AcceptTimeout)
	defer timer.Stop()
	var o outcome
	select {
	case o = <-r.outcome:
	case <-timer.C:
		if o = s.give(id, r); o.listener == nil {
			s.refuse(p, path, http.StatusGatewayTimeout, "The listener did not accept the connection in time")
			return
		}
	case <-gone.done:
		o = s.give(id, r)
		s.log.Debug("sender gone", "path", path)
	case <-s.quit:
		o = s.give(id, r)
	}
	if o.listener == nil {
		if o.status != 0 {
			s.respond(p, o.status, o.reason)
		}
		return
	}
	defer close(o.done)
	gone.stop()
	s.meet(p, req, e, o, f)
}

// give withdraws a rendezvous. Where a listener came first, it returns that.
func (s *Server) give(id string, r *rendezvous) outcome {
	s.mu.Lock()
	_, waiting := s.pending[id]
	delete(s.pending, id)
	s.mu.Unlock()
	if waiting {
		return outcome{}
	}
	return <-r.outcome
}

// meet answers both handshakes and forwards until the tunnel ends.
func (s *Server) meet(p *peer, req *http.Request, e *entity, o outcome, f Faults) {
	// The listener picks one of the sender's subprotocols by asking for it.
	protocol := ""
	for offered := range strings.SplitSeq(req.Header.Get("Sec-WebSocket-Protocol"), ",") {
		if offered = strings.TrimSpace(offered); offered != "" && offered == o.request.Header.Get("Sec-WebSocket-Protocol") {
			protocol = offered
		}
	}
	// Known before the 101s are out, so that whoever has one finds the tunnel; a
	// frame of the service's own waits for the locks.
	t := &tunnel{entity: e, ends: [2]*peer{p, o.listener}, faults: f}
	p.mu.Lock()
	o.listener.mu.Lock()
	s.mu.Lock()
	s.tunnels[t] = struct{}{}
	s.mu.Unlock()
	err := errors.Join(s.upgrade(o.listener, o.request, protocol, Faults{}), s.upgrade(p, req, protocol, f))
	o.listener.mu.Unlock()
	p.mu.Unlock()
	if err != nil {
		p.reset()
		o.listener.reset()
	} else {
		s.join(t)
	}
	s.mu.Lock()
	delete(s.tunnels, t)
	s.mu.Unlock()
}

// acceptRendezvous serves a listener that accepts or rejects a sender.
func (s *Server) acceptRendezvous(p *peer, req *http.Request, path string) {
	query := req.URL.Query()
	id := query.Get("sb-hc-id")
	s.mu.Lock()
	r := s.pending[id]
	delete(s.pending, id)
	s.mu.Unlock()
	if r == nil {
		s.refuse(p, path, http.StatusNotFound, "The rendezvous does not exist or has ended")
		return
	}
	if code := query.Get("sb-hc-statusCode"); code != "" {
		status, err := strconv.Atoi(code)
		if err != nil || status < 400 || status > 599 {
			status = http.StatusBadRequest
		}
		r.outcome <- outcome{status: status, reason: query.Get("sb-hc-statusDescription")}
		s.refuse(p, path, http.StatusGone, "The connection was rejected")
		return
	}
	o := outcome{listener: p, request: req, done: make(chan struct{})}
	r.outcome <- o
	<-o.done
}

// pick returns a listener of e, in turn, or nil.
func (s *Server) pick(e *entity) *control {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(e.listeners) == 0 {
		return nil
	}
	e.next++
	return e.listeners[e.next%len(e.listeners)]
}

// acceptMessage announces a sender to a listener.
type acceptMessage struct {
	Accept acceptBody `json:"accept"`
}

type acceptBody struct {
	Address        string            `json:"address"`
	ID             string            `json:"id"`
	ConnectHeaders map[string]string `json:"connectHeaders"`
	RemoteEndpoint remoteEndpoint    `json:"remoteEndpoint"`
}

type remoteEndpoint struct {
	Address string `json:"address"`
	Port    int    `json:"port"`
}

func (s *Server) offer(req *http.Request, path, id string, remote net.Addr) acceptMessage {
	query := url.Values{"sb-hc-action": {"accept"}, "sb-hc-id": {id}}
	for k, v := range req.URL.Query() {
		if !strings.HasPrefix(k, "sb-hc-") {
			query[k] = v
		}
	}
	u := url.URL{Scheme: strings.SplitN(s.URL(), ":", 2)[0], Host: s.Addr(), Path: "/$hc/" + path, RawQuery: query.Encode()}
	m := acceptMessage{acceptBody{Address: u.String(), ID: id, ConnectHeaders: map[string]string{"Host": req.Host}}}
	for k, v := range req.Header {
		if k != http.CanonicalHeaderKey("ServiceBusAuthorization") {
			m.Accept.ConnectHeaders[k] = strings.Join(v, ", ")
		}
	}
	if tcp, ok := remote.(*net.TCPAddr); ok {
		m.Accept.RemoteEndpoint = remoteEndpoint{tcp.IP.String(), tcp.Port}
	}
	return m
}

// watcher notices that a waiting client goes away.
type watcher struct {
	peer *peer
	done chan struct{} // closed when the client is gone
	idle chan struct{} // closed when the watch is over
}

// watch begins to watch p, which nobody else reads until stop.
func watch(p *peer) *watcher {
	w := &watcher{peer: p, done: make(chan struct{}), idle: make(chan struct{})}
	go func() {
		defer close(w.idle)
		if _, err := p.br.Peek(1); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			close(w.done)
		}
	}()
	return w
}

// stop ends the watch; it may be called again.
func (w *watcher) stop() {
	_ = w.peer.conn.SetReadDeadline(time.Unix(1, 0))
	<-w.idle
	_ = w.peer.conn.SetReadDeadline(time.Time{})
}
