package sapsocks

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/tunneld/tunneld/plugins/sdk"
)

// Validate checks what the schema cannot. It reads the files that the
// configuration names and dials nothing.
func (c *Config) Validate() []sdk.Diagnostic {
	var p problems
	if c.Auth != "jwt" && c.Auth != "none" {
		p.add(fmt.Sprintf("unknown auth %q", c.Auth), `Write "jwt", or "none" for a proxy in trusted mode.`, "auth")
	}
	c.checkLocation(&p)
	c.checkSources(&p)
	if c.Timeouts.Connect <= 0 {
		p.add("timeouts.connect is not positive", "Every step is bounded: write a duration as \"10s\".", "timeouts", "connect")
	}
	if c.Timeouts.Handshake <= 0 {
		p.add("timeouts.handshake is not positive", "Every step is bounded: write a duration as \"10s\".", "timeouts", "handshake")
	}
	b, err := c.binding()
	if err != nil {
		p = append(p, c.bindingDiagnostic(err))
	}
	_, more := c.merge(b, err == nil)
	p = append(p, more...)
	return append(p, c.TLS.Validate("tls")...)
}

func (c *Config) checkLocation(p *problems) {
	switch n := len(c.LocationID); {
	case n > maxLocation:
		p.add(fmt.Sprintf("location_id is %d bytes long", n), fmt.Sprintf("At most %d fit into the proxy's handshake. Take the location id from the Cloud Connector.", maxLocation), "location_id")
	case n > 0 && c.Auth == "none":
		p.add("location_id cannot be sent without authentication", `It travels with the token: remove it, or auth = "none".`, "location_id")
	}
}

// checkSources finds attributes that contradict each other or do nothing.
func (c *Config) checkSources(p *problems) {
	vcap, folder := !c.VCAPServices.IsZero(), c.ServiceBinding != ""
	if vcap && folder {
		p.add("both vcap_services and service_binding", "Remove one of them.", "service_binding")
	}
	if c.Instance != "" && !vcap {
		p.add("instance picks among the bindings of vcap_services, which is empty", `Set vcap_services = env("VCAP_SERVICES"), or remove instance.`, "instance")
	}
	if !c.Token.IsZero() && c.OAuth != nil {
		p.add("both token and oauth", "Remove token, so that tokens are renewed, or oauth.", "token")
	}
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
	case !c.VCAPServices.IsZero():
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
		Detail:  "Name the folder of one binding, which holds a file for each credential.",
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
