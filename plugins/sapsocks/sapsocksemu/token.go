package sapsocksemu

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"strings"
	"time"
)

// claims are what the emulator puts into a token. No client reads them.
type claims struct {
	Issuer   string `json:"iss"`
	ClientID string `json:"client_id"`
	Expires  int64  `json:"exp"` // seconds since 1970
	ID       string `json:"jti"`
	Epoch    int    `json:"epoch"`
	Padding  string `json:"padding,omitempty"`
}

var encoding = base64.RawURLEncoding

// IssueToken returns a token that the proxy takes for so long.
func (s *Server) IssueToken(life time.Duration) string {
	s.mu.Lock()
	c := claims{
		Issuer:   s.TokenService() + "/oauth/token",
		ClientID: s.options.ClientID,
		Expires:  time.Now().Add(life).Unix(),
		ID:       rand.Text(),
		Epoch:    s.epoch,
		Padding:  strings.Repeat("x", s.options.TokenSize*3/4),
	}
	s.mu.Unlock()
	payload, err := json.Marshal(c)
	if err != nil {
		panic(err) // strings and numbers cannot fail
	}
	signed := encoding.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + encoding.EncodeToString(payload)
	return signed + "." + s.sign(signed)
}

func (s *Server) sign(text string) string {
	h := hmac.New(sha256.New, s.key)
	h.Write([]byte(text))
	return encoding.EncodeToString(h.Sum(nil))
}

// verify says what is wrong with a token.
func (s *Server) verify(token string) error {
	i := strings.LastIndexByte(token, '.')
	if i < 0 || !hmac.Equal([]byte(token[i+1:]), []byte(s.sign(token[:i]))) {
		return errors.New("not issued here")
	}
	_, payload, _ := strings.Cut(token[:i], ".")
	b, err := encoding.DecodeString(payload)
	if err != nil {
		return err
	}
	var c claims
	if err := json.Unmarshal(b, &c); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case time.Now().Unix() >= c.Expires:
		return errors.New("expired")
	case c.Epoch != s.epoch:
		return errors.New("revoked")
	}
	return nil
}

func (s *Server) tokenServer() *http.Server {
	mux := http.NewServeMux()
	path := "POST /oauth/token"
	if s.options.Grant == GrantIAS {
		path = "POST /oauth2/token"
	}
	mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
		if !s.enter() {
			abort()
		}
		defer s.wg.Done()
		s.grant(w, r)
	})
	server := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: patience,
		ReadTimeout:       patience,
		ErrorLog:          log.New(io.Discard, "", 0), // clients that refuse the certificate
	}
	if s.ca != nil {
		server.TLSConfig = &tls.Config{
			MinVersion:   tls.VersionTLS12,
			Certificates: []tls.Certificate{s.ca.server},
			ClientAuth:   tls.RequireAndVerifyClientCert,
			ClientCAs:    s.ca.pool,
		}
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
	switch {
	case f.Silent:
		select {
		case <-s.closing:
		case <-r.Context().Done():
		}
		abort()
	case f.Redirect != "":
		http.Redirect(w, r, f.Redirect, http.StatusTemporaryRedirect)
		return
	case f.Huge:
		s.flood(w)
		return
	case f.BreakOff:
		w.Header().Set("Content-Length", "1000")
		_, _ = io.WriteString(w, `{"access_token":"`)
		return // net/http closes, since the length is not reached
	case f.Status != 0 || f.Body != "":
		w.Header().Set("Content-Type", f.ContentType)
		if f.RetryAfter != "" {
			w.Header().Set("Retry-After", f.RetryAfter)
		}
		w.WriteHeader(max(f.Status, http.StatusOK))
		_, _ = io.WriteString(w, f.Body)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	if err := r.ParseForm(); err != nil {
		answerJSON(w, http.StatusBadRequest, map[string]any{"error": "invalid_request"})
		return
	}
	if status, answer := s.refusal(r); status != http.StatusOK {
		answerJSON(w, status, answer)
		return
	}
	s.issue(w, f)
}

// refusal says why a request is not granted.
func (s *Server) refusal(r *http.Request) (status int, answer map[string]any) {
	form := r.PostForm
	known := form.Get("client_id") == s.options.ClientID
	switch s.options.Grant {
	case GrantX509:
		known = known && form.Get("client_secret") == "" && r.TLS.PeerCertificates[0].Subject.CommonName == s.options.ClientID
	case GrantIAS:
		if form.Get("resource") != "urn:sap:identity:application:service:id:"+InstanceGUID {
			return http.StatusBadRequest, map[string]any{"error": "invalid_target"}
		}
		fallthrough
	default:
		known = known && form.Get("client_secret") == s.options.ClientSecret
	}
	switch {
	case form.Get("grant_type") != "client_credentials":
		return http.StatusBadRequest, map[string]any{"error": "unsupported_grant_type"}
	case !known:
		return http.StatusUnauthorized, map[string]any{"error": "unauthorized", "error_description": "Bad credentials"}
	}
	return http.StatusOK, nil
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
