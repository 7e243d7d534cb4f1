package sapsocksemu

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"strings"
)

func (s *Server) tokenServer() *http.Server {
	mux := http.NewServeMux()
	path := "/oauth/token"
	if s.options.Grant == GrantIAS {
		path = "/oauth2/token"
	}
	for _, method := range []string{http.MethodPost, http.MethodGet} {
		mux.HandleFunc(method+" "+path, func(w http.ResponseWriter, r *http.Request) {
			if !s.enter() {
				abort()
			}
			defer s.wg.Done()
			s.grant(w, r)
		})
	}
	server := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: patience,
		ReadTimeout:       patience,
		ErrorLog:          log.New(io.Discard, "", 0), // clients that refuse the certificate
	}
	if s.tls != nil {
		server.TLSConfig = &tls.Config{
			MinVersion:   tls.VersionTLS12,
			Certificates: []tls.Certificate{s.tls.server},
		}
	}
	if s.options.Grant == GrantX509 {
		server.TLSConfig.ClientAuth = tls.RequireAndVerifyClientCert
		server.TLSConfig.ClientCAs = s.tls.authority.Pool()
	}
	return server
}

// enter counts a request for Close; false: it is too late.
func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.wg.Add(1)
	}
	return !s.closed
}

// abort ends a request without an answer: returning would be one.
func abort() { panic(http.ErrAbortHandler) }

func (s *Server) grant(w http.ResponseWriter, r *http.Request) {
	f := s.now().Token
	if f.Delay > 0 && !s.pause(f.Delay) {
		abort()
	}
	if s.misbehave(w, r, f) {
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	q, err := readTokenRequest(r)
	no := &tokenRefusal{http.StatusBadRequest, "invalid_request", "The request cannot be read"}
	if err == nil {
		no = s.refusal(q)
	}
	log := s.log.With("remote", r.RemoteAddr, "client", q.clientID, "by", q.by)
	if no == nil {
		log.Debug("token granted")
		s.issue(w, f)
		return
	}
	log.Debug("token refused", "status", no.status, "err", no.code+": "+no.description)
	if no.status == http.StatusUnauthorized && q.by == byBasic {
		w.Header().Set("WWW-Authenticate", `Basic realm="emulated"`) // RFC 6749, 5.2
	}
	answerJSON(w, no.status, map[string]any{"error": no.code, "error_description": no.description})
}

// misbehave answers as the faults want it; false: they leave the answer to the service.
func (s *Server) misbehave(w http.ResponseWriter, r *http.Request, f TokenFaults) bool {
	fault := func(does string) {
		s.log.Debug("fault", "remote", r.RemoteAddr, "at", "token service", "does", does)
	}
	switch {
	case f.Silent:
		fault("stay silent")
		select {
		case <-s.closing:
		case <-r.Context().Done():
		}
		abort()
	case f.Redirect != "":
		fault("redirect")
		http.Redirect(w, r, f.Redirect, http.StatusTemporaryRedirect)
	case f.Huge:
		fault("answer without an end")
		s.flood(w)
	case f.BreakOff:
		fault("break off")
		w.Header().Set("Content-Length", "1000")
		_, _ = io.WriteString(w, `{"access_token":"`)
		// net/http closes, since the length is not reached.
	case f.Status != 0 || f.Body != "":
		fault(fmt.Sprintf("answer %d", max(f.Status, http.StatusOK)))
		w.Header().Set("Content-Type", f.ContentType)
		if f.RetryAfter != "" {
			w.Header().Set("Retry-After", f.RetryAfter)
		}
		w.WriteHeader(max(f.Status, http.StatusOK))
		_, _ = io.WriteString(w, f.Body)
	default:
		return false
	}
	return true
}

// How a client of the token service proves itself.
const (
	byBasic       = "HTTP Basic"
	byForm        = "form"
	byQuery       = "query"
	byCertificate = "certificate"
)

// tokenRequest is what a client asks the token service for.
type tokenRequest struct {
	by                     string
	clientID, clientSecret string
	certified              string // whom the client's certificate is for
	grantType, resource    string
}

// readTokenRequest reads a form, or a query where the method is GET. A client may send id
// and secret by HTTP Basic instead (RFC 6749, 2.3.1).
func readTokenRequest(r *http.Request) (tokenRequest, error) {
	q := tokenRequest{by: byForm}
	if err := r.ParseForm(); err != nil {
		return q, err
	}
	form := r.PostForm
	if r.Method == http.MethodGet {
		q.by, form = byQuery, r.Form
	}
	q.clientID, q.clientSecret = form.Get("client_id"), form.Get("client_secret")
	q.grantType, q.resource = form.Get("grant_type"), form.Get("resource")
	if user, password, ok := r.BasicAuth(); ok {
		q.by, q.clientID, q.clientSecret = byBasic, user, password
	}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 && q.clientSecret == "" {
		q.by, q.certified = byCertificate, r.TLS.PeerCertificates[0].Subject.CommonName
	}
	return q, nil
}

// is says whether id or secret is what was sent. By Basic both are form-encoded, which
// many clients forget.
func (q tokenRequest) is(sent, want string) bool {
	if sent == want {
		return true
	}
	decoded, err := url.QueryUnescape(sent)
	return q.by == byBasic && err == nil && decoded == want
}

// tokenRefusal is why no token is granted.
type tokenRefusal struct {
	status            int
	code, description string
}

// refusal says why a request is not granted; nil: it is.
func (s *Server) refusal(q tokenRequest) *tokenRefusal {
	known := q.is(q.clientID, s.options.ClientID)
	if s.options.Grant == GrantX509 {
		known = known && q.certified == s.options.ClientID
	} else {
		known = known && q.is(q.clientSecret, s.options.ClientSecret)
	}
	switch {
	case s.options.Grant == GrantIAS && q.resource != Resource:
		return &tokenRefusal{http.StatusBadRequest, "invalid_target", "The resource is not known"}
	case q.grantType != "client_credentials":
		return &tokenRefusal{http.StatusBadRequest, "unsupported_grant_type", "The grant is not client_credentials"}
	case !known:
		return &tokenRefusal{http.StatusUnauthorized, "unauthorized", "Bad credentials"}
	}
	return nil
}

func (s *Server) issue(w http.ResponseWriter, f TokenFaults) {
	life := s.options.TokenLife
	answer := map[string]any{"token_type": "bearer", "expires_in": int(life.Seconds())}
	if f.NoExpiry {
		delete(answer, "expires_in")
	}
	if f.BornExpired {
		life, answer["expires_in"] = 0, -1
	}
	answer["access_token"] = s.IssueToken(life)
	s.mu.Lock()
	s.issued++
	s.mu.Unlock()
	answerJSON(w, http.StatusOK, answer)
}

func answerJSON(w http.ResponseWriter, status int, answer map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer)
}

// flood writes until the client has had enough.
func (s *Server) flood(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	_, err := io.WriteString(w, `{"access_token":"`)
	chunk := strings.Repeat("x", 64<<10)
	for err == nil {
		select {
		case <-s.closing:
			return
		default:
			_, err = io.WriteString(w, chunk)
		}
	}
}
