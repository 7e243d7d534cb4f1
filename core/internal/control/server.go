package control

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/tunneld/tunneld/core/status"
)

const (
	// ioTimeout bounds the reading of a request and the writing of an answer.
	ioTimeout = 10 * time.Second
	// maxHeader and maxRequest bound a request, in bytes. Neither of the two
	// takes a body.
	maxHeader  = 8 << 10
	maxRequest = 4 << 10
	// maxStatus and maxReloads bound the requests at a time, those that wait
	// for their turn included.
	maxStatus  = 8
	maxReloads = 8
)

// Daemon is what the socket serves. Its methods are called by several
// goroutines.
type Daemon interface {
	// Status does not wait, neither for a reload nor for a drain.
	Status() status.Status
	// ReloadWith and RestartPlugin break off when ctx is done, which is when their client
	// leaves.
	ReloadWith(ctx context.Context, o status.ReloadOptions) status.Reload
	RestartPlugin(ctx context.Context, name string) status.Reload
}

// problem is the body of an answer that is an error.
type problem struct {
	Error string `json:"error"`
	Hint  string `json:"hint,omitempty"`
}

// Handler serves
//
//	GET /v1/status    status.Status
//	POST /v1/reload   status.Reload, when it has ended: 200 where it succeeded,
//	                  422 where it failed; with ?allow_empty=true also where
//	                  it takes all listeners away
//	POST /v1/plugins/NAME/restart  the same as a reload
//
// as JSON, and an error as {"error", "hint"}. It sets the deadlines of a
// connection itself.
func Handler(d Daemon) http.Handler {
	mux := http.NewServeMux()
	statuses, reloads := make(chan struct{}, maxStatus), make(chan struct{}, maxReloads)
	mux.HandleFunc("GET /v1/status", limited(statuses, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, d.Status())
	}))
	ended := func(w http.ResponseWriter, outcome status.Reload) {
		code := http.StatusOK
		if outcome.Error != "" {
			code = http.StatusUnprocessableEntity
		}
		answer(w, code, outcome)
	}
	mux.HandleFunc("POST /v1/reload", limited(reloads, func(w http.ResponseWriter, r *http.Request) {
		var o status.ReloadOptions
		if text := r.URL.Query().Get("allow_empty"); text != "" {
			var err error
			if o.AllowEmpty, err = strconv.ParseBool(text); err != nil {
				answer(w, http.StatusBadRequest, problem{"allow_empty is neither true nor false", "POST /v1/reload?allow_empty=true"})
				return
			}
		}
		ended(w, d.ReloadWith(r.Context(), o))
	}))
	mux.HandleFunc("POST /v1/plugins/{name}/restart", limited(reloads, func(w http.ResponseWriter, r *http.Request) {
		ended(w, d.RestartPlugin(r.Context(), r.PathValue("name")))
	}))
	mux.HandleFunc("/v1/status", wrongMethod(http.MethodGet+", "+http.MethodHead))
	mux.HandleFunc("/v1/reload", wrongMethod(http.MethodPost))
	mux.HandleFunc("/v1/plugins/{name}/restart", wrongMethod(http.MethodPost))
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusNotFound, problem{"there is nothing here", "GET /v1/status, POST /v1/reload or POST /v1/plugins/NAME/restart"})
	})
	return mux
}

// limited reads the request to its end, so that its context tells when the
// client leaves, and serves it if a slot is free.
func limited(slots chan struct{}, serve http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c := http.NewResponseController(w)
		_ = c.SetReadDeadline(time.Now().Add(ioTimeout))
		if _, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, maxRequest)); err != nil {
			answer(w, http.StatusBadRequest, problem{Error: "the request cannot be read: " + err.Error()})
			return
		}
		// A reload may take longer, and a deadline would pass for the client's
		// leaving.
		_ = c.SetReadDeadline(time.Time{})
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
			serve(w, r)
		default:
			answer(w, http.StatusServiceUnavailable, problem{"too many requests at a time", "wait for those in progress"})
		}
	}
}

func wrongMethod(allowed string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Allow", allowed)
		answer(w, http.StatusMethodNotAllowed, problem{"the method is not allowed", "allowed: " + allowed})
	}
}

func answer(w http.ResponseWriter, code int, body any) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(ioTimeout))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body) // the client may have left
}
