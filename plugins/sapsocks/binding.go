package sapsocks

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/tunneld/tunneld/plugins/sdk"
)

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

// isCredential says whether a name is one of a binding's own.
func isCredential(name string) bool {
	t := reflect.TypeFor[credentials]()
	for i := range t.NumField() {
		if t.Field(i).Tag.Get("json") == name {
			return true
		}
	}
	return false
}

// locate returns the JSON object in a document that holds credentials: the document
// itself, or a value of it. SAP's service operator makes such a value a text
// (secretKey within secretRootKey), and the cf command an object (a service key). The
// object is nil where nothing is a credential.
func locate(document []byte) (map[string]json.RawMessage, error) {
	var outer map[string]json.RawMessage
	if err := json.Unmarshal(document, &outer); err != nil {
		return nil, err
	}
	if holdsCredential(outer) {
		return outer, nil
	}
	for _, name := range slices.Sorted(maps.Keys(outer)) {
		inner, text := outer[name], ""
		if json.Unmarshal(inner, &text) == nil {
			inner = []byte(text)
		}
		var object map[string]json.RawMessage
		if json.Unmarshal(inner, &object) == nil && holdsCredential(object) {
			return object, nil
		}
	}
	return nil, nil
}

func holdsCredential(object map[string]json.RawMessage) bool {
	for name := range object {
		if isCredential(name) {
			return true
		}
	}
	return false
}

// decode reads credentials from an object that locate found.
func decode(object map[string]json.RawMessage) (credentials, error) {
	var c credentials
	document, err := json.Marshal(object)
	if err == nil {
		err = json.Unmarshal(document, &c)
	}
	return c, err
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
