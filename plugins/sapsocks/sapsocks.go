// Package sapsocks is the plugin for the SOCKS5 proxy of SAP BTP Connectivity:
// it reaches on-premise hosts through a Cloud Connector. The proxy's method 0x80
// carries a JWT and the location id of a Cloud Connector; behind the handshake
// the connection is plain bytes, so the socket is handed over (direct).
//
// The package does not listen and does not parse tokens. The format is
// documented by SAP in "Using the TCP Protocol for Cloud Applications".
package sapsocks

import (
	"errors"
	"fmt"

	"github.com/tunneld/tunneld/internal/version"
	"github.com/tunneld/tunneld/plugins/sdk"
)

// Plugin describes the plugin for sdk.Serve.
func Plugin() sdk.Plugin {
	return sdk.Plugin{
		Name:    "sapsocks",
		Version: version.Text(),
		Summary: "on-premise hosts through the SOCKS5 proxy of SAP BTP Connectivity",
		Targets: sdk.TargetsWithPort,
		New:     func() sdk.Dialer { return new(Config) },
	}
}

// Config is the body of an upstream "sapsocks" block, and the upstream itself.
// What is written out overrides what a binding holds.
type Config struct {
	VCAPServices   sdk.Secret `tunneld:"vcap_services" doc:"the application's VCAP_SERVICES on Cloud Foundry, or a default-env.json: the connectivity binding in it gives proxy and credentials"`
	Instance       string     `tunneld:"instance" required_with:"vcap_services" doc:"the binding or service instance to use, where vcap_services has several for connectivity, or a user-provided one"`
	ServiceBinding string     `tunneld:"service_binding" path:"folder" conflicts_with:"vcap_services" doc:"the folder of a service binding on Kubernetes, with a file for each credential or one JSON file with all; followed when it is rotated"`
	Proxy          string     `tunneld:"proxy" doc:"host:port of the SOCKS5 proxy, instead of the binding's"`
	Token          sdk.Secret `tunneld:"token" conflicts_with:"oauth" doc:"a ready-made access token, sent as it is; it is not renewed"`
	OAuth          *OAuth     `tunneld:"oauth" doc:"where access tokens come from, instead of the binding's values"`
	Auth           string     `tunneld:"auth" default:"jwt" one_of:"jwt,none" doc:"jwt, or none for a proxy in trusted mode"`
	// Its base64 has to fit into a length byte: 255/4*3.
	LocationID string  `tunneld:"location_id" max:"189" doc:"the location id of the Cloud Connector; absent for the one without"`
	TLS        sdk.TLS `tunneld:"tls" doc:"TLS to the token service; the proxy itself speaks plain TCP"`

	Timeouts sdk.Timeouts `tunneld:"timeouts" min:"1ms" doc:"connect: to the proxy, and to the token service; handshake: for the proxy's handshake, then anew for its answer to the request, and for the token service's answer"`

	running *upstream // from Start on
}

// OAuth says where access tokens come from: a token service that grants them to
// a client (RFC 6749, section 4.4). Each attribute overrides what the binding
// has for it.
type OAuth struct {
	TokenURL     string     `tunneld:"token_url" doc:"the token service's address; /oauth/token (/oauth2/token with resource) is added where it has no path. For a token of another subscriber, write its subdomain here"`
	ClientID     string     `tunneld:"client_id" doc:"the client's id"`
	ClientSecret sdk.Secret `tunneld:"client_secret" doc:"the client's secret"`
	CertFile     string     `tunneld:"cert_file" path:"file" doc:"PEM file with the client's certificate chain, instead of a secret; followed when it is rotated"`
	KeyFile      string     `tunneld:"key_file" path:"file" doc:"PEM file with the certificate's private key; followed when it is rotated"`
	Resource     string     `tunneld:"resource" doc:"for SAP Cloud Identity Services: urn:sap:identity:application:service:id:<instance_guid>"`
}

// Start begins to keep a token at hand.
func (c *Config) Start(env *sdk.Env) error {
	if c.running != nil {
		return errors.New("start sapsocks: it was started before")
	}
	u, err := start(c, env)
	if err != nil {
		return fmt.Errorf("start sapsocks: %w", err)
	}
	c.running = u
	return nil
}

// Close stops what Start began. Dials that wait for a token fail.
func (c *Config) Close() error {
	if c.running != nil {
		c.running.close()
	}
	return nil
}
