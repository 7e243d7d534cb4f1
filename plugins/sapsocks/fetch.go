package sapsocks

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/tunneld/tunneld/internal/hostname"
	"github.com/tunneld/tunneld/plugins/sdk"
)

// maxRetryAfter bounds what a token service may say of its own recovery.
const maxRetryAfter = 10 * time.Minute

// fetch asks the token service for a token, once. Its errors are *sdk.DialError.
// The request and the reading of the answer (at most 1 MiB) are those of
// golang.org/x/oauth2; keeping tokens is not, see tokens.
func (s *tokenService) fetch(ctx context.Context, c *Config, out sdk.Outbound) (*oauth2.Token, error) {
	ctx, cancel := context.WithTimeout(ctx, c.Timeouts.Connect+c.Timeouts.Handshake)
	defer cancel()
	transport, err := s.transport(c, out)
	if err != nil {
		return nil, err
	}
	defer transport.CloseIdleConnections()
	answer := &answerReader{RoundTripper: transport}
	client := &http.Client{
		Transport: answer,
		// A redirect would carry the client's secret to wherever it points.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	cc := clientcredentials.Config{
		ClientID:     s.clientID,
		ClientSecret: s.clientSecret.Reveal(),
		TokenURL:     s.url,
		AuthStyle:    oauth2.AuthStyleInParams,
	}
	if s.resource != "" {
		cc.EndpointParams = url.Values{"resource": {s.resource}}
	}
	got, err := cc.Token(context.WithValue(ctx, oauth2.HTTPClient, client))
	if err != nil {
		return nil, s.failure(ctx, err, answer.broken)
	}
	if len(got.AccessToken) > maxToken {
		return nil, s.words().failure(TokenUnreadable, fmt.Sprintf("a token of %d bytes", len(got.AccessToken)), nil)
	}
	return got, nil
}

func (s *tokenService) words() words { return words{tokenURL: sdk.RedactURLs(s.url)} }

// transport is made anew for each fetch, which is once in hours: no idle connection
// is left. Its proxy is the upstream's via, or without one the environment's: the
// service is mostly on the internet, where the connectivity proxy is not. Its errors
// are *sdk.DialError.
func (s *tokenService) transport(c *Config, out sdk.Outbound) (*http.Transport, error) {
	notAsked := func(err error) (*http.Transport, error) {
		return nil, s.words().failure(TokenNotAsked, err.Error(), err)
	}
	u, err := url.Parse(s.url)
	if err != nil {
		return notAsked(errors.New("its address is not a URL"))
	}
	out, err = out.OrEnvironment()
	if err != nil {
		return notAsked(fmt.Errorf("the environment names no usable proxy: %w", err))
	}
	t := c.TLS
	if s.certFile != "" {
		t.CertFile, t.KeyFile = s.certFile, s.keyFile
	}
	config, err := t.Config(u.Hostname())
	if err != nil {
		return notAsked(err)
	}
	if s.certFile == "" && s.x509() {
		pair, err := s.keyPair()
		if err != nil {
			return nil, s.words().failure(BindingUnreadable, "the client's certificate: "+err.Error(), err)
		}
		// A session that is resumed would be of the certificate that began it.
		config.Certificates, config.GetClientCertificate, config.ClientSessionCache = []tls.Certificate{pair}, nil, nil
	}
	transport := &http.Transport{
		TLSClientConfig:        config,
		TLSHandshakeTimeout:    c.Timeouts.Handshake,
		ResponseHeaderTimeout:  c.Timeouts.Handshake,
		MaxResponseHeaderBytes: 64 << 10,
		DisableKeepAlives:      true,
		DisableCompression:     true,
	}
	out.Within(c.Timeouts.Connect).Use(transport)
	sdk.ReportAlerts(transport)
	return transport, nil
}

// answerReader remembers with what the reading of an answer broke off: of that
// the oauth2 package keeps the text alone. It serves one request.
type answerReader struct {
	http.RoundTripper
	broken error
}

// RoundTrip makes the request; the caller closes the answer's body.
func (a *answerReader) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Host = hostname.Header(r.URL)
	answer, err := a.RoundTripper.RoundTrip(r)
	if err == nil {
		answer.Body = answerBody{answer.Body, a}
	}
	return answer, err
}

type answerBody struct {
	io.ReadCloser
	of *answerReader
}

// Read reads on, and remembers any error but that of a whole answer.
func (b answerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		b.of.broken = err
	}
	return n, err
}

// failure turns an error of the oauth2 package into the user's. broken is that
// with which the answer broke off, if it did. The text of a RetrieveError is not
// used: it holds the whole answer.
func (s *tokenService) failure(ctx context.Context, err, broken error) *sdk.DialError {
	w := s.words()
	var refused *oauth2.RetrieveError
	var transport *url.Error
	var op *net.OpError
	switch {
	case errors.As(err, &refused):
		return s.refusal(refused)
	case s.x509() && errors.As(err, &op) && op.Op == "remote error":
		// A TLS alert: with TLS 1.3 it comes when the handshake seems done.
		return w.failure(TokenRefused, excerpt(op.Err.Error()), err)
	case errors.As(err, &transport):
		return w.network(TokenUnreachable, s.scrub(transport.Err.Error()), err)
	case ctx.Err() != nil:
		return w.network(TokenUnreachable, "no complete answer in time", ctx.Err())
	case broken != nil:
		return w.failure(TokenUnavailable, "its answer breaks off: "+excerpt(broken.Error()), broken)
	default:
		return w.failure(TokenUnreadable, s.scrub(err.Error()), err)
	}
}

// refusal is an answer with a status other than success, or with an error in it.
func (s *tokenService) refusal(e *oauth2.RetrieveError) *sdk.DialError {
	code := e.Response.StatusCode
	detail := fmt.Sprintf("HTTP status %d", code)
	if e.ErrorCode != "" {
		detail += ", " + s.scrub(e.ErrorCode)
		if e.ErrorDescription != "" {
			detail += " (" + s.scrub(e.ErrorDescription) + ")"
		}
	}
	w := s.words()
	meaning := sdk.HTTPRefusal(sdk.StageCredential, code, e.Response.Header)
	switch {
	case code == http.StatusUnauthorized, code == http.StatusForbidden,
		e.ErrorCode == "invalid_client", e.ErrorCode == "unauthorized_client":
		return w.failure(TokenRefused, detail, nil)
	case meaning.Retryable, code/100 == 5:
		f := w.failure(TokenUnavailable, detail, nil)
		f.RetryAfter = min(meaning.RetryAfter, maxRetryAfter)
		return f
	case code >= 300 && code < 400:
		return w.failure(TokenRedirected, detail, nil)
	default:
		return w.failure(TokenRejected, detail, nil)
	}
}

// scrub makes a text of a peer fit for a log: short, in one line, and without
// the secrets, should the peer repeat them. The address's query may be one.
func (s *tokenService) scrub(text string) string {
	secrets := []string{s.clientSecret.Reveal()}
	if _, query, _ := strings.Cut(s.url, "?"); query != "" {
		secrets = append(secrets, query)
		values, _ := url.ParseQuery(query) // what of it can be read
		for _, v := range values {
			secrets = append(secrets, v...)
		}
	}
	return excerpt(text, secrets...)
}

// excerpt makes a text of a peer fit for a log line.
func excerpt(text string, secrets ...string) string { return sdk.Excerpt(text, 200, secrets...) }
