package websocks

import (
	"errors"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/tunneld/tunneld/internal/hostname"
	"github.com/tunneld/tunneld/plugins/sdk"
)

// farEnd is what a URL says.
type farEnd struct {
	secure  bool
	address string // "host:port", to connect to; the host may end in a dot
	host    string // without port and brackets, to verify a certificate for
	header  string // the Host header
	path    string // of the request line, with the query
}

// parseURL takes a URL apart. Its errors do not repeat the URL, which may hold
// a password by mistake.
func parseURL(s string) (farEnd, error) {
	u, err := url.Parse(s)
	if err != nil {
		return farEnd{}, errors.New("not a URL")
	}
	var f farEnd
	port := "80"
	switch u.Scheme {
	case "ws":
	case "wss":
		f.secure, port = true, "443"
	default:
		return farEnd{}, errors.New("the scheme is neither ws nor wss")
	}
	switch {
	case u.User != nil:
		return farEnd{}, errors.New("user name and password belong in their own attributes")
	case hostname.WithoutDot(u.Hostname()) == "":
		return farEnd{}, errors.New("no host")
	case strings.Contains(u.Hostname(), "]"):
		return farEnd{}, errors.New("the host has a ] without its [")
	case u.Fragment != "" || strings.HasSuffix(s, "#"):
		return farEnd{}, errors.New("a fragment (#…) has no meaning here") // RFC 6455, section 3
	case strings.ContainsFunc(u.Host, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		return farEnd{}, errors.New("the host has a space or a control character")
	}
	name, err := hostname.ASCII(u.Hostname())
	if err != nil {
		return farEnd{}, errors.New("the host is no name that can be looked up")
	}
	host, zone, scoped := strings.Cut(name, "%")
	f.host = hostname.WithoutDot(host)
	f.header = f.host
	if strings.Contains(host, ":") {
		f.header = "[" + host + "]"
	}
	if p := u.Port(); p != "" && p != port {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return farEnd{}, errors.New("the port is not 1 to 65535")
		}
		port = p
		f.header += ":" + p
	}
	if scoped {
		host += "%" + zone
	}
	f.address = net.JoinHostPort(host, port)
	f.path = u.RequestURI()
	if strings.ContainsFunc(f.path, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return farEnd{}, errors.New("the query has a space or a character beyond ASCII: percent-encode it")
	}
	return f, nil
}

// Notes says how a direction over wss:// ends.
func (c *Config) Notes() []sdk.Diagnostic {
	far, err := parseURL(c.URL)
	if err != nil || !far.secure || c.RequireCloseNotify {
		return nil
	}
	return []sdk.Diagnostic{{
		Summary: "by default a direction over wss:// ends by TCP alone (require_close_notify = false)",
		Detail:  "The plugin no longer sends TLS's close_notify, which the original server takes for an error. If the server sends close_notify, require_close_notify = true makes an end without it an error.",
		Path:    []string{"url"},
	}}
}

// Validate checks what the schema cannot.
func (c *Config) Validate() []sdk.Diagnostic {
	var ds []sdk.Diagnostic
	add := func(summary, detail string, path ...string) {
		ds = append(ds, sdk.Diagnostic{Summary: summary, Detail: detail, Path: path})
	}
	far, err := parseURL(c.URL)
	if err != nil {
		add("unusable url: "+err.Error(), `Write it as "wss://host/path" or "ws://host:port/path".`, "url")
	}
	if c.TLS != nil {
		if err == nil && !far.secure {
			add("a tls block, but the url is not encrypted", "Write the url with wss://, or remove the block.", "tls")
		}
		ds = append(ds, c.TLS.Validate("tls")...)
	}
	if c.RequireCloseNotify && err == nil && !far.secure {
		add("require_close_notify, but the url is not encrypted", "Write the url with wss://, or remove the attribute.", "require_close_notify")
	}
	switch {
	case strings.Contains(c.Username, ":"):
		// RFC 7617, section 2; the server splits at it.
		add("a user name cannot contain a colon", "Use the name that the server knows; the password may contain anything.", "username")
	case c.Username != strings.TrimSpace(c.Username):
		add("the user name begins or ends with a space", "Remove it: the server strips it before it compares.", "username")
	}
	ds = append(ds, sdk.ValidateSecret(c.Password, "password")...)
	return append(ds, c.validateHeaders()...)
}

// The headers that are the upgrade's own.
var ownHeaders = []string{"Sec-WebSocket-Extensions", "Sec-WebSocket-Key", "Sec-WebSocket-Protocol", "Sec-WebSocket-Version"}

func (c *Config) validateHeaders() []sdk.Diagnostic {
	ds := sdk.ValidateHeaders(c.Headers, ownHeaders, "headers")
	for name, value := range c.Headers {
		add := func(summary, detail string) {
			ds = append(ds, sdk.Diagnostic{Summary: summary, Detail: detail, Path: []string{"headers", name}})
		}
		switch {
		case strings.EqualFold(name, "Authorization") && c.Username != "":
			add("the header is made from username and password", "Remove either.")
		case strings.EqualFold(name, "Host") && !hostHeader(value):
			add("not a host", `Write "host" or "host:port".`)
		}
	}
	return ds
}

func hostHeader(s string) bool {
	u, err := url.Parse("ws://" + s)
	return err == nil && u.Host == s && u.Hostname() != "" && !strings.Contains(u.Hostname(), "]") &&
		!strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '%' })
}
