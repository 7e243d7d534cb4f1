package sapsocks

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/tunneld/tunneld/plugins/sdk"
)

// maxToken bounds a ready-made token in bytes. One of 20 KB is normal.
const maxToken = 1 << 20

// settings are a configuration and its binding as one.
type settings struct {
	proxy    string // host:port
	trusted  bool   // no authentication
	location string // in base64; empty: none
	jwt      string // ready-made
	service  *tokenService
}

// tokenService is who grants access tokens, and to whom.
type tokenService struct {
	url          string // complete
	clientID     string
	clientSecret sdk.Secret
	resource     string
	// An X.509 client has one of these pairs instead of a secret: files, which are
	// followed, or PEM text.
	certFile, keyFile string
	certificate       string
	key               sdk.Secret
}

// x509 says whether the client proves itself with a certificate.
func (s *tokenService) x509() bool { return s.certFile != "" || s.certificate != "" }

func (s *tokenService) keyPair() (tls.Certificate, error) {
	if s.certFile != "" {
		return sdk.LoadKeyPair(s.certFile, s.keyFile)
	}
	return tls.X509KeyPair([]byte(s.certificate), []byte(s.key.Reveal()))
}

// problems collects what is wrong with a configuration.
type problems []sdk.Diagnostic

func (p *problems) add(summary, detail string, path ...string) {
	*p = append(*p, sdk.Diagnostic{Summary: summary, Detail: detail, Path: path})
}

func (p *problems) warn(summary, detail string, path ...string) {
	*p = append(*p, sdk.Diagnostic{Warning: true, Summary: summary, Detail: detail, Path: path})
}

// merge puts configuration and binding together and says what is wrong with
// them. b is empty where there is no binding; found says whether its absence
// has been complained of already.
func (c *Config) merge(b binding, found bool) (settings, problems) {
	var p problems
	p = append(p, sdk.ValidateText(b.host, c.bindingSource(), "onpremise_proxy_host")...)
	p = append(p, sdk.ValidateText(b.clientID, c.bindingSource(), "clientid")...)
	p = append(p, sdk.ValidateSecret(b.clientSecret, c.bindingSource(), "clientsecret")...)
	s := settings{
		trusted:  c.Auth == "none",
		location: base64.StdEncoding.EncodeToString([]byte(c.LocationID)),
		jwt:      strings.TrimSpace(c.Token.Reveal()),
	}
	s.proxy = c.mergeProxy(b, found, &p)
	switch {
	case s.trusted:
		return s, p
	case s.jwt != "":
		if len(s.jwt) > maxToken {
			p.add(fmt.Sprintf("token is %d bytes long", len(s.jwt)), fmt.Sprintf("At most %d are sent.", maxToken), "token")
		}
		return s, p
	}
	s.service = c.mergeService(b, found, &p)
	return s, p
}

// bindingSource is the attribute that names the binding.
func (c *Config) bindingSource() string {
	if c.ServiceBinding != "" {
		return "service_binding"
	}
	return "vcap_services"
}

func (c *Config) mergeProxy(b binding, found bool, p *problems) string {
	switch {
	case c.Proxy != "":
		*p = append(*p, sdk.ValidateHostPort(c.Proxy, "proxy")...)
		return c.Proxy
	case b.host != "":
		return net.JoinHostPort(b.host, b.port)
	case found:
		p.add("no proxy: proxy is not set, and the binding has none", `Set proxy = "host:20004" to the connectivity proxy's address.`, "proxy")
	}
	return ""
}

func (c *Config) mergeService(b binding, found bool, p *problems) *tokenService {
	s := &tokenService{
		url:          b.tokenURL,
		clientID:     b.clientID,
		clientSecret: b.clientSecret,
		certificate:  b.certificate,
		key:          b.key,
	}
	o := c.OAuth
	if o == nil {
		o = new(OAuth)
	}
	s.resource = o.Resource
	if o.ClientID != "" {
		s.clientID = o.ClientID
	}
	switch {
	case !o.ClientSecret.IsZero() && (o.CertFile != "" || o.KeyFile != ""):
		p.add("both a client secret and a certificate", "Remove one of client_secret and cert_file.", "oauth", "client_secret")
	case !o.ClientSecret.IsZero():
		s.clientSecret, s.certificate, s.key = o.ClientSecret, "", sdk.Secret{}
	case o.CertFile != "" && o.KeyFile != "":
		s.certFile, s.keyFile, s.clientSecret = o.CertFile, o.KeyFile, sdk.Secret{}
	case o.CertFile != "":
		p.add("a certificate without its private key", "Set key_file as well.", "oauth", "cert_file")
	case o.KeyFile != "":
		p.add("a private key without its certificate", "Set cert_file as well.", "oauth", "key_file")
	}
	path := "/oauth/token"
	if s.resource != "" {
		path = "/oauth2/token" // SAP Cloud Identity Services
	}
	s.url = c.mergeTokenURL(b, o, path, p)
	if found {
		c.checkService(s, p)
	}
	return s
}

// mergeTokenURL completes the token service's address. A binding's is a base to
// which the path is added, unless it ends in it already; one that was written
// out is left alone if it has a path.
func (c *Config) mergeTokenURL(b binding, o *OAuth, path string, p *problems) string {
	raw, at := b.tokenURL, []string(nil)
	if o.TokenURL != "" {
		raw, at = o.TokenURL, []string{"oauth", "token_url"}
	}
	if raw == "" {
		return ""
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		p.add("the token service's address is not a URL", "Write https://host/oauth/token.", at...)
		return ""
	case u.User != nil:
		p.add("the token service's address contains a user or password", "Write them as client_id and client_secret.", at...)
		return ""
	case u.Scheme == "http" && !sdk.IsLoopback(u.Hostname()):
		p.add("the token service's address is not encrypted: the client's secret would be readable on its way", "Write https://.", at...)
		return ""
	}
	trimmed := strings.TrimRight(u.Path, "/")
	written := o.TokenURL != "" && trimmed != ""
	if whole := strings.HasSuffix(trimmed, "/oauth/token") || strings.HasSuffix(trimmed, "/oauth2/token"); !written && !whole {
		trimmed += path
	}
	u.Path, u.RawPath, u.Fragment = trimmed, "", ""
	return u.String()
}

// checkService says what a token cannot be had without.
func (c *Config) checkService(s *tokenService, p *problems) {
	if c.OAuth == nil && s.url == "" && s.clientID == "" {
		p.add("no credentials: none of token, oauth and a binding is set", `Set one of them, or auth = "none" for a proxy in trusted mode.`)
		return
	}
	if s.url == "" && (c.OAuth == nil || c.OAuth.TokenURL == "") {
		p.add("no address of the token service", "Set oauth.token_url.", "oauth", "token_url")
	}
	if s.clientID == "" {
		p.add("no client id", "Set oauth.client_id.", "oauth", "client_id")
	}
	if s.clientSecret.IsZero() && !s.x509() && (c.OAuth == nil || c.OAuth.CertFile == "" && c.OAuth.KeyFile == "") {
		p.add("no client secret and no certificate", "Set oauth.client_secret, or oauth.cert_file and oauth.key_file.", "oauth", "client_secret")
	}
	if s.x509() {
		c.checkKeyPair(s, p)
	}
}
