package sapsocks

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tunneld/tunneld/plugins/sdk"
)

// label is the service's name in VCAP_SERVICES.
const label = "connectivity"

// binding is what the platform gives an application that is bound to the
// connectivity service.
type binding struct {
	host, port   string // of the SOCKS5 proxy; empty: not in the binding
	clientID     string
	clientSecret sdk.Secret
	tokenURL     string // the token service, with or without its path
	certificate  string // PEM, of an X.509 binding
	key          sdk.Secret
}

// credentials are a binding's own names.
type credentials struct {
	ClientID        string     `json:"clientid"`
	ClientSecret    sdk.Secret `json:"clientsecret"`
	TokenServiceURL string     `json:"token_service_url"`
	URL             string     `json:"url"` // the deprecated name
	ProxyHost       string     `json:"onpremise_proxy_host"`
	SOCKS5Port      text       `json:"onpremise_socks5_proxy_port"`
	Certificate     string     `json:"certificate"`
	Key             sdk.Secret `json:"key"`
	CertURL         string     `json:"certurl"`
}

// text is a JSON string, or a number as its digits: the proxy's port is a
// string in all bindings seen, which says nothing of the next.
type text string

func (t *text) UnmarshalJSON(b []byte) error {
	if s := strings.Trim(string(b), "0123456789"); s == "" {
		*t = text(b)
		return nil
	}
	return json.Unmarshal(b, (*string)(t))
}

// binding checks nothing but what would be lost: the rest may be overridden.
func (c credentials) binding() (binding, error) {
	b := binding{
		host:         c.ProxyHost,
		port:         string(c.SOCKS5Port),
		clientID:     c.ClientID,
		clientSecret: c.ClientSecret,
		tokenURL:     c.TokenServiceURL,
	}
	if b.tokenURL == "" {
		b.tokenURL = c.URL
	}
	if c.Certificate != "" && !c.Key.IsZero() {
		b.certificate, b.key, b.clientSecret = c.Certificate, c.Key, sdk.Secret{}
		if c.CertURL != "" {
			b.tokenURL = c.CertURL
		}
	}
	if b.port == "" && b.host != "" {
		b.port = defaultPort
	}
	if b.port != "" {
		if _, err := parsePort(b.port); err != nil {
			return b, fmt.Errorf("onpremise_socks5_proxy_port %w", err)
		}
	}
	return b, nil
}

// defaultPort is what onpremise_socks5_proxy_port is unless SAP changes it.
const defaultPort = "20004"

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is not a port from 1 to 65535", s)
	}
	return uint16(n), nil
}

// errVCAP is why vcap_services cannot be used, with what to do about it.
type errVCAP struct{ summary, detail string }

func (e *errVCAP) Error() string { return e.summary }

// vcapEntry is one binding of VCAP_SERVICES.
type vcapEntry struct {
	Name         string          `json:"name"`
	InstanceName string          `json:"instance_name"`
	InstanceGUID string          `json:"instance_guid"`
	Credentials  json.RawMessage `json:"credentials"`
}

func (e vcapEntry) is(name string) bool {
	return name == e.Name || name == e.InstanceName || name == e.InstanceGUID
}

// parseVCAP picks one binding of the connectivity service. No error shows any of
// the document but names.
func parseVCAP(document, instance string) (binding, error) {
	var services map[string][]vcapEntry
	if err := json.Unmarshal([]byte(document), &services); err != nil {
		return binding{}, &errVCAP{"vcap_services is not a JSON document of services: " + jsonProblem(err), `Set it to the whole variable: vcap_services = env("VCAP_SERVICES").`}
	}
	entry, err := pick(services, instance)
	if err != nil {
		return binding{}, err
	}
	var c credentials
	if err := json.Unmarshal(entry.Credentials, &c); err != nil {
		return binding{}, &errVCAP{fmt.Sprintf("the credentials of binding %q cannot be read: %s", entry.Name, jsonProblem(err)), "Bind the application to the service instance again."}
	}
	b, err := c.binding()
	if err != nil {
		return binding{}, &errVCAP{fmt.Sprintf("binding %q: %v", entry.Name, err), "Bind the application to the service instance again, or set proxy."}
	}
	return b, nil
}

func pick(services map[string][]vcapEntry, instance string) (vcapEntry, error) {
	entries := services[label]
	if len(entries) == 0 {
		return vcapEntry{}, &errVCAP{"vcap_services has no binding of the connectivity service, only of: " + list(keys(services)), "Bind the application to an instance of service connectivity, plan lite."}
	}
	var names []string
	var found []vcapEntry
	for _, e := range entries {
		names = append(names, e.Name)
		if instance == "" || e.is(instance) {
			found = append(found, e)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return vcapEntry{}, &errVCAP{"vcap_services has several bindings of the connectivity service: " + list(names), "Set instance to one of them."}
	default:
		return vcapEntry{}, &errVCAP{fmt.Sprintf("vcap_services has no connectivity binding or instance %q, only: %s", instance, list(names)), "Set instance to one of them."}
	}
}

func keys(m map[string][]vcapEntry) []string {
	var names []string
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// list prints names for a diagnostic; "nothing" where there are none.
func list(names []string) string {
	if len(names) == 0 {
		return "nothing"
	}
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = strconv.Quote(n)
	}
	return strings.Join(quoted, ", ")
}

// jsonProblem says where a document is broken without showing any of it: an
// error's own text may quote what is there.
func jsonProblem(err error) string {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Sprintf("it is broken at byte %d", syntax.Offset)
	case errors.As(err, &kind) && kind.Field != "":
		return fmt.Sprintf("%s is of type %s", kind.Field, strings.Fields(kind.Value)[0])
	case errors.As(err, &kind):
		return "it is of type " + strings.Fields(kind.Value)[0]
	default:
		return "it is broken"
	}
}
