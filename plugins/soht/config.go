package soht

import (
	"net/http"
	"net/url"

	"github.com/tunneld/tunneld/internal/hostname"
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
	case !hostname.IsName(u.Hostname()):
		fail("url has a host that is no name", "Write the name as it is looked up.", "url")
	case u.User != nil:
		fail("url holds credentials", "Set username and password for the SOHT server, or headers for a gateway.", "url")
	case u.Fragment != "":
		fail("url holds a fragment", "Remove the # and what follows: it is never sent.", "url")
	default:
		https = u.Scheme == "https"
		if !https && c.Username != "" && !sdk.IsLoopback(u.Hostname()) {
			warn("the login is sent unencrypted", "Use an https url: anybody in between can read the password.", "url")
		}
		if https && c.ViaConnect {
			warn("via_connect has no effect with an https url", "Leave it out: such requests go through CONNECT anyway.", "via_connect")
		}
		if !https && c.TLS != nil {
			fail("tls without https", "Use an https url, or leave the tls block out.", "tls")
		}
	}
	ds = append(ds, sdk.ValidateSecret(c.Password, "password")...)
	ds = append(ds, sdk.ValidateHeaders(c.Headers, ownHeaders, "headers")...)
	if c.TLS != nil {
		ds = append(ds, c.TLS.Validate("tls")...)
	}
	return ds
}

// ownHeaders are the plugin's, or the connection's. With an Idempotency-Key
// net/http (1.26) takes a POST for repeatable, and sends a write again whose
// answer is lost: its data would arrive twice.
var ownHeaders = []string{
	"Accept-Encoding", "Content-Encoding", "Content-Type", "Expect",
	"Idempotency-Key", "Keep-Alive", "Proxy-Authorization", "Proxy-Connection",
	"X-Idempotency-Key",
}

// header returns the headers of each request to u, and the Host among them.
func (c *Config) header(u *url.URL) (h http.Header, host string) {
	host = hostname.Header(u)
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
	return append(all, sdk.HeaderSecrets(c.Headers)...)
}
