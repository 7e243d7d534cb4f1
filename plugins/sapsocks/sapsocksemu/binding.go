package sapsocksemu

import (
	"crypto/tls"
	"encoding/json"
	"net"

	"github.com/tunneld/tunneld/internal/emu"
)

// Proxy returns the SOCKS5 proxy's address, "host:port".
func (s *Server) Proxy() string { return s.proxy.Addr().String() }

// TokenService returns the token service's URL without a path.
func (s *Server) TokenService() string {
	if s.tls != nil {
		return "https://" + s.web.Addr().String()
	}
	return "http://" + s.web.Addr().String()
}

// ClientID returns the id of the client that is granted tokens.
func (s *Server) ClientID() string { return s.options.ClientID }

// ClientSecret returns the secret of the client that is granted tokens.
func (s *Server) ClientSecret() string { return s.options.ClientSecret }

// Authority returns the certificate that the token service is to be trusted by,
// in PEM; empty unless it speaks TLS.
func (s *Server) Authority() string {
	if s.tls == nil {
		return ""
	}
	return string(s.tls.authority.PEM())
}

// Instance is the name of the service instance of VCAPServices.
const Instance = "emulated-connectivity"

// InstanceGUID is its id.
const InstanceGUID = "6e0b2c3a-9d4f-4a4e-8c5b-1f2e3d4c5b6a"

// Resource is what GrantIAS is asked for a token of.
const Resource = "urn:sap:identity:application:service:id:" + InstanceGUID

// Credentials returns what a binding to the emulated service holds.
func (s *Server) Credentials() map[string]string {
	host, port, _ := net.SplitHostPort(s.Proxy())
	c := map[string]string{
		"clientid":                    s.options.ClientID,
		"token_service_url":           s.TokenService(),
		"url":                         s.TokenService(),
		"credential-type":             "binding-secret",
		"onpremise_proxy_host":        host,
		"onpremise_proxy_port":        "20003",
		"onpremise_socks5_proxy_port": port,
	}
	if s.options.Grant != GrantX509 {
		c["clientsecret"] = s.options.ClientSecret
		return c
	}
	c["credential-type"] = "x509"
	c["certificate"], c["key"] = s.tls.clientCertificate, s.tls.clientKey
	c["certurl"] = s.TokenService()
	return c
}

// VCAPServices returns the VCAP_SERVICES of an application that is bound to the
// emulated service.
func (s *Server) VCAPServices() string {
	entry := map[string]any{
		"name":          "my-connectivity",
		"instance_name": Instance,
		"instance_guid": InstanceGUID,
		"label":         "connectivity",
		"plan":          "lite",
		"tags":          []string{"connectivity", "conn", "connsvc"},
		"credentials":   s.Credentials(),
	}
	b, err := json.Marshal(map[string]any{"connectivity": []any{entry}})
	if err != nil {
		panic(err) // maps of strings cannot fail
	}
	return string(b)
}

// identity is what the token service and the client of an X.509 binding prove themselves
// with, all made anew and never stored.
type identity struct {
	authority                    *emu.Authority
	server                       tls.Certificate
	clientCertificate, clientKey string // PEM
}

func newIdentity(clientID string) (*identity, error) {
	authority, err := emu.NewAuthority()
	if err != nil {
		return nil, err
	}
	i := &identity{authority: authority}
	if i.server, err = authority.Server(); err != nil {
		return nil, err
	}
	client, err := authority.Client(clientID)
	if err != nil {
		return nil, err
	}
	certificate, key, err := emu.PEM(client)
	i.clientCertificate, i.clientKey = string(certificate), string(key)
	return i, err
}
