package sapsocks

import (
	"errors"
	"io/fs"
	"time"

	"github.com/tunneld/tunneld/plugins/sdk"
)

// Validate checks what the schema cannot. It reads the files that the
// configuration names and dials nothing.
func (c *Config) Validate() []sdk.Diagnostic {
	var p problems
	c.checkLocation(&p)
	c.checkSources(&p)
	b, err := c.binding()
	if err != nil {
		p = append(p, c.bindingDiagnostic(err))
	}
	_, more := c.merge(b, err == nil)
	p = append(p, more...)
	return append(p, c.TLS.Validate("tls")...)
}

func (c *Config) checkLocation(p *problems) {
	if c.LocationID != "" && c.Auth == "none" {
		p.add("location_id cannot be sent without authentication", `It travels with the token: remove it, or auth = "none".`, "location_id")
	}
}

// checkSources finds attributes that contradict each other or do nothing.
func (c *Config) checkSources(p *problems) {
	if c.OAuth != nil {
		*p = append(*p, sdk.ValidateSecret(c.OAuth.ClientSecret, "oauth", "client_secret")...)
	}
	if c.Auth == "none" && (!c.Token.IsZero() || c.OAuth != nil) {
		path := "token"
		if c.OAuth != nil {
			path = "oauth"
		}
		p.warn(`auth = "none" sends no token: `+path+" has no effect", "Remove it.", path)
	}
}

// binding reads the binding that the configuration names; an empty one where it
// names none.
func (c *Config) binding() (binding, error) {
	switch {
	case c.VCAPServices.IsSet() && c.ServiceBinding == "":
		return parseVCAP(c.VCAPServices.Reveal(), c.Instance)
	case c.ServiceBinding != "":
		return readBinding(c.ServiceBinding)
	default:
		return binding{}, nil
	}
}

func (c *Config) bindingDiagnostic(err error) sdk.Diagnostic {
	var vcap *errVCAP
	if errors.As(err, &vcap) {
		return sdk.Diagnostic{Summary: vcap.summary, Detail: vcap.detail, Path: []string{"vcap_services"}}
	}
	return sdk.Diagnostic{
		NotYet:  errors.Is(err, fs.ErrNotExist),
		Summary: "the service binding cannot be read: " + err.Error(),
		Detail:  "Name the folder of one binding, which holds a file for each credential, or one JSON file with all.",
		Path:    []string{"service_binding"},
	}
}

// checkKeyPair says early what would fail at the first token.
func (c *Config) checkKeyPair(s *tokenService, p *problems) {
	path := []string{"oauth", "cert_file"}
	if s.certFile == "" {
		path = nil
	}
	pair, err := s.keyPair()
	if err != nil {
		*p = append(*p, sdk.Diagnostic{
			NotYet:  errors.Is(err, fs.ErrNotExist),
			Summary: "cannot use the client's certificate: " + err.Error(),
			Detail:  "Certificate and private key have to be PEM and belong together.",
			Path:    path,
		})
		return
	}
	if end := pair.Leaf.NotAfter; time.Now().After(end) {
		p.warn("the client's certificate has expired on "+end.UTC().Format(time.DateOnly), "Rotate the binding's credentials.", path...)
	}
}
