package azrelay

import (
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/tunneld/tunneld/internal/hostname"
	"github.com/tunneld/tunneld/plugins/azrelay/internal/bridge"
	"github.com/tunneld/tunneld/plugins/azrelay/internal/sas"
	"github.com/tunneld/tunneld/plugins/sdk"
)

// minTokenTTL keeps a token valid for longer than a dial takes.
const minTokenTTL = time.Minute

// settings is what a Config means, worked out.
type settings struct {
	// namespace is the host of the Host header and of the token's audience.
	namespace string
	// path is the hybrid connection with its suffix, query what it brings along.
	path, query string
	// scheme is ws or wss; address is what to connect to, and host its name.
	scheme, address, host string
	keyName               string
	key, token            sdk.Secret
}

// audience is the URI that tokens are signed for, in the form of Microsoft's
// own client.
func (s *settings) audience() string { return "http://" + s.namespace + "/" + s.path + "/" }

// settings works out what c means. The diagnostics hold no secret.
func (c *Config) settings() (*settings, []sdk.Diagnostic) {
	var ds diagnostics
	s := &settings{namespace: c.Namespace, key: trim(c.Key), keyName: c.KeyName, token: trim(c.ReadyToken)}
	entity := c.HybridConnection
	port := ""
	if !c.ConnectionString.IsZero() {
		var ok bool
		if entity, port, ok = c.fromConnectionString(s, &ds); !ok {
			return s, ds // what else is missing stands in it, perhaps
		}
	}
	s.setPath(entity, &ds)
	s.setEndpoint(c.Endpoint, port, &ds)
	s.checkCredentials(&ds)
	return s, ds
}

// fromConnectionString fills s and returns the entity's path and the endpoint's
// port; ok is false where it cannot be read.
func (c *Config) fromConnectionString(s *settings, ds *diagnostics) (entity, port string, ok bool) {
	p, err := parseConnectionString(c.ConnectionString.Reveal())
	if err != nil {
		ds.add("connection_string", "cannot read the connection string: "+err.Error(),
			"Copy it whole from the portal: Endpoint=sb://…/;SharedAccessKeyName=…;SharedAccessKey=…;EntityPath=…. The only other key allowed is SharedAccessSignature.")
		return "", "", false
	}
	s.namespace, s.keyName, s.key = p.host, p.keyName, p.key
	*ds = append(*ds, sdk.ValidateText(p.keyName, "connection_string", "SharedAccessKeyName")...)
	if !p.token.IsZero() {
		if !c.ReadyToken.IsZero() {
			ds.add("token", "connection_string has a token already", "Leave one of the two out.")
		}
		s.token = p.token
	}
	switch {
	case p.entity == "":
		return c.HybridConnection, p.port, true
	case c.HybridConnection != "":
		ds.add("hybrid_connection", "connection_string names a hybrid connection already", "Leave one of the two out.")
	}
	return p.entity, p.port, true
}

func (s *settings) setPath(entity string, ds *diagnostics) {
	path, query, _ := strings.Cut(entity, "?")
	s.path, s.query = strings.Trim(path, "/"), query
	if s.path == "" {
		ds.add("hybrid_connection", "no hybrid connection is named", "Set hybrid_connection to the path of the hybrid connection.")
		return
	}
	if strings.ContainsFunc(entity, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '#' }) {
		ds.add("hybrid_connection", "the path has a character that is not allowed", "Leave out spaces, control characters and #.")
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		ds.add("hybrid_connection", "the query is not escaped correctly", "Escape % as %25 and ; as %3B.")
	}
	for k := range values {
		if strings.HasPrefix(strings.ToLower(k), "sb-hc-") {
			ds.add("hybrid_connection", fmt.Sprintf("the query has %s, which belongs to the protocol", k), "Leave it out; tunneld sets what the protocol needs.")
		}
	}
}

// setEndpoint works out where to connect. port is the connection string's.
func (s *settings) setEndpoint(endpoint, port string, ds *diagnostics) {
	s.scheme = "wss"
	if scheme, rest, ok := strings.Cut(endpoint, "://"); ok {
		s.scheme, endpoint = scheme, strings.TrimSuffix(rest, "/")
		if s.scheme != "ws" && s.scheme != "wss" {
			ds.add("endpoint", "the scheme is neither ws nor wss", `Write host:port, or "ws://host:port" for plain connections.`)
			return
		}
	}
	if strings.Contains(s.namespace, "/") || strings.ContainsFunc(s.namespace, func(r rune) bool { return r <= ' ' }) {
		ds.add("namespace", "the namespace is a host name", "Leave out the scheme and the path: myrelay.servicebus.windows.net")
		return
	}
	namespace, err := hostname.ASCII(s.namespace)
	if err != nil {
		ds.add("namespace", "the namespace is no name that can be looked up", "Write it as the portal shows it: myrelay.servicebus.windows.net")
		return
	}
	if endpoint == "" {
		if s.namespace == "" {
			ds.add("namespace", "no namespace is named", "Set namespace, or connection_string, or endpoint.")
			return
		}
		endpoint = net.JoinHostPort(strings.Trim(s.namespace, "[]"), orDefault(port, "443"))
	}
	if wrong := sdk.ValidateHostPort(endpoint, "endpoint"); wrong != nil {
		*ds = append(*ds, wrong...)
		return
	}
	host, _, _ := net.SplitHostPort(endpoint)
	s.address, s.host = endpoint, hostname.WithoutDot(host)
	if namespace == "" {
		namespace, _ = hostname.ASCII(host) // it was checked
	}
	s.namespace = hostname.WithoutDot(namespace)
}

func (s *settings) checkCredentials(ds *diagnostics) {
	switch {
	case s.keyName != "" && s.key.IsZero():
		ds.add("key_name", "a key's name without the key", "Set key.")
	case s.keyName == "" && !s.key.IsZero():
		ds.add("key", "a key without its name", "Set key_name to the name of the shared access policy.")
	case !s.key.IsZero() && !s.token.IsZero():
		ds.add("token", "both a key and a ready-made token", "Leave one of the two out.")
	}
	if s.token.IsZero() {
		return
	}
	if _, err := sas.Parse(s.token.Reveal()); err != nil {
		ds.add("token", "the token is not a shared access signature: "+err.Error(), "It reads SharedAccessSignature sr=…&sig=…&se=…&skn=…")
	}
}

// Notes says when an unanswered ping ends a tunnel.
func (c *Config) Notes() []sdk.Diagnostic {
	if c.PingTimeout > 0 || c.PingInterval == 0 {
		return nil
	}
	return []sdk.Diagnostic{{
		Summary: fmt.Sprintf("ping_timeout is %s by default", 2*c.PingInterval),
		Detail:  `A tunnel now ends if a ping is not answered in that time while no byte flows; before, it stayed open. ping_timeout = "24h" or longer is nearly the old behaviour.`,
		Path:    []string{"ping_interval"},
	}}
}

// Validate checks what the schema cannot.
func (c *Config) Validate() []sdk.Diagnostic {
	s, out := c.settings()
	ds := diagnostics(out)
	switch {
	case c.PortName == "":
	case c.Framing == FramingRaw:
		ds.add("port_name", "only azbridge has port names", `Set framing = "azbridge", or leave it out.`)
	default:
		if err := bridge.CheckName(c.PortName); err != nil {
			ds.add("port_name", err.Error(), "Use the name in azbridge's configuration.")
		}
	}
	if c.PingTimeout > 0 && c.PingInterval == 0 {
		ds.add("ping_timeout", "there are no pings that could stay unanswered", "Set ping_interval, or leave ping_timeout out.")
	}
	ds = append(ds, sdk.ValidateHeaders(c.Headers, ownHeaders, "headers")...)
	if s.scheme == "ws" && s.host != "" && !sdk.IsLoopback(s.host) {
		ds.warn("endpoint", "the connection is not encrypted: anybody in between can read the token and all data", "Use ws:// for an emulator on this machine only.")
	}
	return append(ds, c.TLS.Validate("tls")...)
}

// ownHeaders are the upgrade's own, and the service's. Host is the namespace.
var ownHeaders = []string{
	"Host", "Sec-WebSocket-Accept", "Sec-WebSocket-Extensions", "Sec-WebSocket-Key",
	"Sec-WebSocket-Protocol", "Sec-WebSocket-Version", "ServiceBusAuthorization",
}

// trim takes off the line break that a file ends in: no key, token or URL has
// space around it.
func trim(s sdk.Secret) sdk.Secret { return sdk.NewSecret(strings.TrimSpace(s.Reveal())) }

func orDefault(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

// diagnostics gathers what is wrong.
type diagnostics []sdk.Diagnostic

func (d *diagnostics) add(attribute, summary, detail string) {
	*d = append(*d, sdk.Diagnostic{Summary: summary, Detail: detail, Path: []string{attribute}})
}

func (d *diagnostics) warn(attribute, summary, detail string) {
	*d = append(*d, sdk.Diagnostic{Warning: true, Summary: summary, Detail: detail, Path: []string{attribute}})
}
