package sohtemu

import (
	"bytes"
	"net/http"
	"strconv"
	"time"
)

// Faults are what goes wrong, all of it switchable while the server runs. The
// zero value is a server that works.
type Faults struct {
	// Delay passes before each request is looked at: the round trip of a
	// network.
	Delay time.Duration
	// On is what goes wrong with the requests of one action: "open", "read",
	// "write", "readwrite", "close".
	On map[string]Fault
	// OpenFail answers each open with "FAIL - " and this text.
	OpenFail string
	// ForgetIDs makes every id an unknown one.
	ForgetIDs bool
	// CutReadAfter breaks read's HTTP connection after so many bytes of data.
	CutReadAfter int64
	// NoMark ends read's body without the 00 at the target's end of file.
	NoMark bool
	// MarkDelay passes between that 00 and the end of the body.
	MarkDelay time.Duration
	// ByteAtATime sends read's data a byte a chunk.
	ByteAtATime bool
	// NoKeepAlive closes the HTTP connection after each answer.
	NoKeepAlive bool
	// HangUp closes the HTTP connection after each answer and does not say so,
	// as tinyproxy does.
	HangUp bool
	// HTTP10 answers as an HTTP/1.0 proxy does that hides the answer's length: the
	// end of the connection is the end of the body.
	HTTP10 bool
}

// Fault is what goes wrong with an action. At most one of Status, Silent, Drop
// and Cut is set.
type Fault struct {
	// After is how many requests, counted from SetFaults, are answered properly
	// first.
	After int
	// Status and Header and Body are the whole answer, as an intermediary would
	// give it.
	Status int
	Header map[string]string
	Body   string
	// Silent never answers.
	Silent bool
	// Drop does what was asked, save for a read, and closes the HTTP
	// connection without an answer.
	Drop bool
	// Cut does what was asked and breaks the answer off half-way through its
	// body, or one byte short of a body of one.
	Cut bool
}

// LoginPage is the answer of a gateway that wants somebody to log in.
func LoginPage() Fault {
	return Fault{
		Status: http.StatusOK,
		Header: map[string]string{"Content-Type": "text/html; charset=utf-8"},
		Body:   "<!DOCTYPE html><html><body><form method=post>Please log in</form></body></html>\n",
	}
}

// Redirect is the answer of a gateway that sends everybody to location.
func Redirect(location string) Fault {
	return Fault{Status: http.StatusFound, Header: map[string]string{"Location": location}}
}

// SetFaults replaces the faults, also for connections that are open.
func (s *Server) SetFaults(f Faults) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = f
	s.since = make(map[string]int)
}

func (s *Server) currentFaults() Faults {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.faults
}

// fault counts a request and returns what goes wrong with it.
func (s *Server) fault(action string) (Fault, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Requests[action]++
	s.since[action]++
	f, ok := s.faults.On[action]
	return f, ok && s.since[action] > f.After
}

// does is what a fault does, as the log has it.
func (f Fault) does() string {
	switch {
	case f.Silent:
		return "stay silent"
	case f.Drop:
		return "close without an answer"
	case f.Cut:
		return "break off"
	}
	return "answer " + strconv.Itoa(f.Status)
}

// apply answers in place of the action, or lets serve answer and spoils that.
func (f Fault) apply(w http.ResponseWriter, r *http.Request, action string, serve func(http.ResponseWriter)) {
	switch {
	case f.Silent:
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	case f.Drop:
		if action != "read" {
			serve(&recorder{header: make(http.Header)})
		}
		panic(http.ErrAbortHandler)
	case f.Cut:
		rec := &recorder{header: make(http.Header)}
		serve(rec)
		body := rec.body.Bytes()
		w.Header().Set("Content-Length", strconv.Itoa(max(len(body), 1)))
		_, _ = w.Write(body[:len(body)/2])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	default:
		for k, v := range f.Header {
			w.Header().Set(k, v)
		}
		w.WriteHeader(f.Status)
		_, _ = w.Write([]byte(f.Body))
	}
}

// recorder keeps an answer.
type recorder struct {
	header http.Header
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(int)             {}
func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) }
func (r *recorder) FlushError() error           { return nil }

// unframed hides from net/http how long an answer is, which then ends with its
// connection.
func unframed(w http.ResponseWriter) {
	w.Header().Set("Transfer-Encoding", "identity")
	w.Header().Set("Connection", "close")
}
