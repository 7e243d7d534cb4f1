package azrelayemu

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/tunneld/tunneld/plugins/azrelay/internal/sas"
)

// ownKey is the key name of the built-in listeners; their key is made anew for
// each run.
const ownKey = "azrelayemu-built-in"

// refusal is why a token is not enough.
type refusal struct {
	status int
	text   string
}

// requestToken returns a request's token: the header's, else the query's.
func requestToken(req *http.Request) string {
	if t := req.Header.Get("ServiceBusAuthorization"); t != "" {
		return t
	}
	return req.URL.Query().Get("sb-hc-token")
}

// authorize checks a token for path at e and returns when it ends.
func (s *Server) authorize(token, host string, e *entity, path string, want Rights) (time.Time, *refusal) {
	if token == "" {
		return time.Time{}, &refusal{http.StatusUnauthorized, "MissingToken: Relay security token is required"}
	}
	t, err := sas.Parse(token)
	if err != nil {
		return time.Time{}, &refusal{http.StatusUnauthorized, "MalformedToken: " + err.Error()}
	}
	key, ok := s.key(e, t.KeyName)
	if !ok || !t.Verify(key.Value) {
		return time.Time{}, &refusal{http.StatusUnauthorized, "InvalidSignature: The token has an invalid signature"}
	}
	if now := s.options.Now(); !t.Expires.After(now) {
		return time.Time{}, &refusal{http.StatusUnauthorized, fmt.Sprintf("ExpiredToken: The token is expired. Expiration time: '%s', current time: '%s'",
			t.Expires.UTC().Format(time.RFC1123), now.UTC().Format(time.RFC1123))}
	}
	if !s.audience(t.Resource, host, path) {
		return time.Time{}, &refusal{http.StatusUnauthorized, "InvalidAudience: The authorization header contains a token with a wrong audience"}
	}
	if !key.Rights.has(want) {
		name := "Send"
		if want == Listen {
			name = "Listen"
		}
		return time.Time{}, &refusal{http.StatusForbidden, fmt.Sprintf("'%s' claim(s) are required to perform this operation. Resource: '%s'", name, e.path)}
	}
	return t.Expires, nil
}

// key finds a policy: the entity's first.
func (s *Server) key(e *entity, name string) (Key, bool) {
	if name == ownKey {
		return Key{Value: s.own, Rights: Listen}, true
	}
	if k, ok := e.Keys[name]; ok {
		return k, true
	}
	k, ok := s.options.Keys[name]
	return k, ok
}

// audience says whether a token for resource covers path: scheme, port, case
// and a slash at the end do not matter, and a token for more than the path
// covers it too.
func (s *Server) audience(resource, host, path string) bool {
	u, err := url.Parse(resource)
	if err != nil {
		return false
	}
	name := strings.ToLower(u.Hostname())
	if name != hostname(host) && (s.options.Namespace == "" || name != strings.ToLower(s.options.Namespace)) {
		return false
	}
	covered, path := entityPath(u.Path), entityPath(path)
	return covered == "" || covered == path || strings.HasPrefix(path, covered+"/")
}

// hostname is a Host header's name, without port and in lower case.
func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.ToLower(strings.Trim(host, "[]"))
}
