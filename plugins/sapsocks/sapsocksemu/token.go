package sapsocksemu

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
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
