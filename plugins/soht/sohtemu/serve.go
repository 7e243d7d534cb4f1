package sohtemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// maxReply is the most data that one readwrite brings.
const maxReply = 16384

// The status byte.
const (
	gone  = 0
	alive = 1
)

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	faults := s.currentFaults()
	if faults.NoKeepAlive {
		w.Header().Set("Connection", "close")
	}
	if faults.HTTP10 {
		// net/http answers in the version that the request has.
		r.Proto, r.ProtoMinor = "HTTP/1.0", 0
		unframed(w)
	}
	switch {
	case r.URL.Path == s.options.Path+"/plain":
		s.plain(w, r)
		return
	case r.URL.Path != s.options.Path:
		http.NotFound(w, r)
		return
	case r.Method != http.MethodPost:
		defer s.thread(r.Context())()
		s.fault(r.Method)
		w.Header().Set("Content-Type", "text/html")
		return
	}
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(s.options.FormLimit)))
	if err != nil {
		s.errorPage(w, http.StatusBadRequest)
		return
	}
	fields, err := parseForm(string(raw))
	if err != nil {
		s.errorPage(w, http.StatusBadRequest)
		return
	}
	action := fields["action"]
	if s.options.Observe != nil {
		s.options.Observe(Form{Action: action, Raw: raw})
	}
	if !sleep(r.Context(), faults.Delay) {
		panic(http.ErrAbortHandler)
	}
	defer s.thread(r.Context())()
	if f, ok := s.fault(action); ok {
		s.options.Log.Debug("fault", "remote", r.RemoteAddr, "at", action, "does", f.does())
		f.apply(w, r, action, func(w http.ResponseWriter) { s.act(w, r, fields) })
		return
	}
	s.act(w, r, fields)
}

// thread takes one of the container's and returns what gives it back. A request
// whose client does not wait for one is not served.
func (s *Server) thread(ctx context.Context) (giveBack func()) {
	select {
	case s.threads <- struct{}{}:
		return func() { <-s.threads }
	case <-ctx.Done():
		panic(http.ErrAbortHandler)
	}
}

// errorPage answers as the container does when the servlet fails.
func (s *Server) errorPage(w http.ResponseWriter, status int) {
	s.options.Log.Debug("error page", "status", status)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	s.framing(w)
	w.WriteHeader(status)
	s.body(w, []byte("<html><body><h1>HTTP Status "+strconv.Itoa(status)+"</h1></body></html>\n"))
}

// framing is called before anything of an answer is written.
func (s *Server) framing(w http.ResponseWriter) {
	if s.options.Container == Jetty {
		unframed(w)
	}
}

// body writes what net/http would else send with its length.
func (s *Server) body(w http.ResponseWriter, b []byte) {
	_, _ = w.Write(b[:1])
	_ = http.NewResponseController(w).Flush()
	_, _ = w.Write(b[1:])
}

// sleep returns false when ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (s *Server) act(w http.ResponseWriter, r *http.Request, fields map[string]string) {
	action := fields["action"]
	if action == "open" {
		s.open(w, r, fields)
		return
	}
	id, err := strconv.Atoi(fields["id"])
	if err != nil {
		s.errorPage(w, http.StatusInternalServerError)
		return
	}
	switch action {
	case "read":
		s.read(w, r, id)
	case "write":
		s.write(w, id, fields)
	case "readwrite":
		s.readWrite(w, id, fields)
	case "close":
		s.remove(id)
	}
}

func (s *Server) open(w http.ResponseWriter, r *http.Request, fields map[string]string) {
	log := s.options.Log.With("remote", r.RemoteAddr, "target", net.JoinHostPort(fields["host"], fields["port"]))
	fail := func(text string) {
		log.Debug("refused", "answer", "FAIL - "+text)
		fmt.Fprintf(w, "FAIL - %s\n", text)
	}
	if no := s.login(fields["username"], fields["password"]); no != "" {
		fail(no)
		return
	}
	if text := s.currentFaults().OpenFail; text != "" {
		fail(text)
		return
	}
	if fields["host"] == "" || fields["port"] == "" {
		fail("Host or port parameter not specified.")
		return
	}
	target, err := s.dial(r.Context(), fields["host"], fields["port"])
	if err != nil {
		fail(javaText(err))
		return
	}
	id, ok := s.add(target)
	if !ok {
		_ = target.Close()
		panic(http.ErrAbortHandler)
	}
	log.Debug("connected", "id", id, "backend", target.RemoteAddr().String())
	fmt.Fprintf(w, "SUCCESS\n%d\n", id)
}

// login says what is wrong with one; empty: nothing.
func (s *Server) login(user, password string) string {
	if len(s.options.Users) == 0 {
		return ""
	}
	want, known := s.options.Users[user]
	switch {
	case user == "" || password == "":
		return "Username and Password Required!"
	case !known:
		return "Invalid Username!"
	case password != want:
		return "Invalid Password!"
	}
	return ""
}

// javaText is what Java's exception says where a dial has failed.
func javaText(err error) string {
	var timeout net.Error
	var errno syscall.Errno
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return "connect timed out"
	case errors.As(err, &errno):
		text := errno.Error()
		return strings.ToUpper(text[:1]) + text[1:]
	}
	return err.Error()
}

// read streams what the target sends. Nothing of the answer, not even its
// headers, leaves before the target's first byte.
func (s *Server) read(w http.ResponseWriter, r *http.Request, id int) {
	c := s.lookup(id)
	if c == nil {
		_, _ = w.Write([]byte{gone})
		return
	}
	rc := http.NewResponseController(w)
	status := []byte{alive}
	buf := make([]byte, 1+32<<10)
	buf[0] = alive
	begun := false
	var sent int64
	for {
		n, err := c.target.Read(buf[1:])
		f := s.currentFaults()
		if n > 0 {
			out := buf[:1+n]
			if begun {
				out = buf[1 : 1+n]
			}
			begun = true
			cut := f.CutReadAfter > 0 && sent+int64(n) >= f.CutReadAfter
			if cut {
				out = out[:len(out)-int(sent+int64(n)-f.CutReadAfter)]
			}
			sent += int64(n)
			if err := send(w, rc, out, f.ByteAtATime); err != nil || cut {
				// A client that is gone takes the connection and all that was
				// buffered with it. It is not missed before there is data for it.
				s.remove(id)
				panic(http.ErrAbortHandler)
			}
		}
		switch {
		case err == nil:
			continue
		case errors.Is(err, io.EOF) && !c.broken.Load():
			if !begun {
				_, _ = w.Write(status)
			}
			if !f.NoMark {
				_, _ = w.Write([]byte{gone})
			}
			if f.MarkDelay > 0 {
				_ = rc.Flush()
				sleep(r.Context(), f.MarkDelay)
			}
			s.remove(id)
		default:
			// A reset: what is sent by now is all there is, and the id stays.
		}
		return
	}
}

func send(w io.Writer, rc *http.ResponseController, b []byte, single bool) error {
	step := len(b)
	if single {
		step = 1
	}
	for ; len(b) > 0; b = b[step:] {
		if _, err := w.Write(b[:step]); err != nil {
			return err
		}
		if err := rc.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// write is 200 whatever becomes of the data.
func (s *Server) write(w http.ResponseWriter, id int, fields map[string]string) {
	data, whole, err := payload(fields)
	if err != nil {
		s.errorPage(w, http.StatusInternalServerError)
		return
	}
	s.deliver(id, data, whole)
}

// payload returns the data of a form, and false where there is less of it than
// datalength says.
func payload(fields map[string]string) ([]byte, bool, error) {
	n, err := strconv.Atoi(fields["datalength"])
	if err != nil {
		return nil, false, err
	}
	data, err := decodeData(fields["data"])
	if err != nil {
		return nil, false, err
	}
	if n < 0 || n > len(data) {
		return nil, false, nil
	}
	return data[:n], true, nil
}

// deliver writes data to the target, or drops the connection where a part of
// the data is missing.
func (s *Server) deliver(id int, data []byte, whole bool) {
	c := s.lookup(id)
	if c == nil {
		return
	}
	if !whole {
		s.remove(id)
		return
	}
	if len(data) == 0 {
		return
	}
	s.mu.Lock()
	c.writes++
	s.stats.WritesInFlight = max(s.stats.WritesInFlight, c.writes)
	s.mu.Unlock()
	// An error shows at the read side alone. The kernel tells it once, and end
	// of file from then on: hence the mark.
	if _, err := c.target.Write(data); err != nil {
		c.broken.Store(true)
	}
	s.mu.Lock()
	c.writes--
	s.mu.Unlock()
}

func (s *Server) readWrite(w http.ResponseWriter, id int, fields map[string]string) {
	data, whole, err := payload(fields)
	if err != nil {
		s.errorPage(w, http.StatusInternalServerError)
		return
	}
	s.deliver(id, data, whole)
	s.framing(w)
	c := s.lookup(id)
	if c == nil {
		_, _ = w.Write([]byte{gone})
		return
	}
	c.poll.Lock()
	defer c.poll.Unlock()
	_ = c.target.SetReadDeadline(time.Now().Add(s.options.IdlePoll))
	buf := make([]byte, 1+maxReply)
	buf[0] = alive
	n, err := c.target.Read(buf[1:])
	switch {
	case err == nil || errors.Is(err, os.ErrDeadlineExceeded):
		s.body(w, buf[:1+n])
	case errors.Is(err, io.EOF) && !c.broken.Load():
		s.remove(id)
		_, _ = w.Write([]byte{gone})
	default:
		// A reset: an empty body, and the id stays.
	}
}

// plain sends what a target sends and nothing else.
func (s *Server) plain(w http.ResponseWriter, r *http.Request) {
	host, port, err := net.SplitHostPort(r.URL.Query().Get("target"))
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	target, err := s.dial(r.Context(), host, port)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	stop := context.AfterFunc(r.Context(), func() { _ = target.Close() })
	defer stop()
	defer target.Close()
	rc := http.NewResponseController(w)
	buf := make([]byte, 32<<10)
	for {
		n, err := target.Read(buf)
		if n > 0 && send(w, rc, buf[:n], false) != nil {
			return
		}
		if err != nil {
			return
		}
	}
}
