package soht

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/tunneld/tunneld/internal/version"
	"github.com/tunneld/tunneld/plugins/sdk"
)

// Validate checks what the schema cannot.
func (c *Config) Validate() []sdk.Diagnostic {
	var ds []sdk.Diagnostic
	fail := func(summary, detail string, path ...string) {
		ds = append(ds, sdk.Diagnostic{Summary: summary, Detail: detail, Path: path})
	}
	warn := func(summary, detail string, path ...string) {
		ds = append(ds, sdk.Diagnostic{Warning: true, Summary: summary, Detail: detail, Path: path})
	}
	https := false
	switch u, err := url.Parse(c.URL); {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		fail("url is not the address of a service", `Write it as "https://host/soht/service".`, "url")
	case u.User != nil:
		fail("url holds credentials", "Set username and password for the SOHT server, or headers for a gateway.", "url")
	case u.Fragment != "":
		fail("url holds a fragment", "Remove the # and what follows: it is never sent.", "url")
	default:
		https = u.Scheme == "https"
		if !https && c.Username != "" && !sdk.IsLoopback(u.Hostname()) {
			warn("the login is sent unencrypted", "Use an https url: anybody in between can read the password.", "url")
		}
		if !https && c.TLS != nil {
			fail("tls without https", "Use an https url, or leave the tls block out.", "tls")
		}
	}
	ds = append(ds, sdk.ValidateSecret(c.Password, "password")...)
	for name, value := range c.Headers {
		if err := checkHeader(name, value); err != nil {
			fail("header cannot be sent: "+err.Error(), "Leave it out or write it differently.", "headers", name)
		}
	}
	if c.TLS != nil {
		ds = append(ds, c.TLS.Validate("tls")...)
	}
	return ds
}

// ownHeaders are the plugin's, or the connection's. With an Idempotency-Key
// net/http (1.26) takes a POST for repeatable, and sends a write again whose
// answer is lost: its data would arrive twice.
var ownHeaders = []string{
	"Accept-Encoding", "Connection", "Content-Encoding", "Content-Length", "Content-Type", "Expect",
	"Idempotency-Key", "Keep-Alive", "Proxy-Authorization", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
	"X-Idempotency-Key",
}

// checkHeader says why a header cannot be sent (RFC 9110, sections 5.5 and
// 5.6.2). It does not repeat the value.
func checkHeader(name, value string) error {
	if name == "" || strings.ContainsFunc(name, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	}) {
		return errors.New("the name has a character that header names cannot have")
	}
	for _, own := range ownHeaders {
		if http.CanonicalHeaderKey(name) == own {
			return fmt.Errorf("%s would change how requests are sent", own)
		}
	}
	if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
		return errors.New("the value has a control character")
	}
	return nil
}

// header returns the headers of each request, and the Host where one is set.
func (c *Config) header() (h http.Header, host string) {
	h = http.Header{
		"Content-Type": {"application/x-www-form-urlencoded"},
		"User-Agent":   {"tunneld-soht/" + version.Text()},
	}
	for name, value := range c.Headers {
		if http.CanonicalHeaderKey(name) == "Host" {
			host = value
			continue
		}
		h.Set(name, value)
	}
	return h, host
}

// credentials are the login at the SOHT server; the user name is empty where
// there is none.
type credentials struct {
	username string
	password sdk.Secret
}

func (c *Config) login() credentials { return credentials{c.Username, c.Password} }

// secrets are what is sent to the far end and the gateways in confidence, as they
// see it.
func (c *Config) secrets() []string {
	var all []string
	if !c.Password.IsZero() {
		all = append(all, c.Password.Reveal(), "password="+c.Password.Reveal())
	}
	for name, value := range c.Headers {
		if http.CanonicalHeaderKey(name) != "Host" {
			value = strings.TrimSpace(value)
			_, token, _ := strings.Cut(value, " ") // behind "Bearer" and the like
			all = append(all, value, token)
		}
	}
	return all
}
