package azrelay

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/tunneld/tunneld/plugins/sdk"
)

// connection is a connection string taken apart.
type connection struct {
	host, port string
	keyName    string
	key        sdk.Secret
	token      sdk.Secret
	entity     string
}

// parseConnectionString reads Key=Value pairs with semicolons between them, as
// the portal shows them. Case and order of the keys do not matter. What is not
// known is an error: without the credential that it may stand for, the dial
// would be anonymous. An error holds no value.
func parseConnectionString(s string) (connection, error) {
	var c connection
	endpoint := ""
	fields := map[string]func(string){
		"endpoint":              func(v string) { endpoint = v },
		"sharedaccesskeyname":   func(v string) { c.keyName = v },
		"sharedaccesskey":       func(v string) { c.key = sdk.NewSecret(v) },
		"sharedaccesssignature": func(v string) { c.token = sdk.NewSecret(v) },
		"entitypath":            func(v string) { c.entity = v },
	}
	seen := make(map[string]bool)
	for part := range strings.SplitSeq(s, ";") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		written, value, ok := strings.Cut(part, "=")
		if !ok {
			return c, errors.New("a part of it is not Key=Value")
		}
		written, value = strings.TrimSpace(written), strings.TrimSpace(value)
		name := strings.ToLower(written)
		set, known := fields[name]
		switch {
		case !known:
			return c, fmt.Errorf("its key %s is not supported", shownKey(written))
		case seen[name]:
			return c, fmt.Errorf("%s appears twice", name)
		case value == "" && strings.HasPrefix(name, "sharedaccess"):
			return c, fmt.Errorf("its %s is empty", name)
		}
		set(value)
		seen[name] = true
	}
	if endpoint == "" {
		return c, errors.New("it has no Endpoint")
	}
	if scheme, _, found := strings.Cut(endpoint, "://"); found && !strings.EqualFold(scheme, "sb") {
		return c, fmt.Errorf("its Endpoint begins with %s and not with sb://", shownScheme(scheme))
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Hostname() == "" || u.Scheme != "sb" {
		return c, errors.New("its Endpoint is not sb://host/")
	}
	c.host, c.port = u.Hostname(), u.Port()
	return c, nil
}

// shownScheme is a scheme as an error may show it.
func shownScheme(scheme string) string {
	if lower := strings.ToLower(scheme); slices.Contains([]string{"http", "https", "ws", "wss", "amqp", "amqps", "tcp"}, lower) {
		return lower + "://"
	}
	return "another scheme"
}

// maxShownKey is shorter than a policy's key in base64, in bytes.
const maxShownKey = 40

// shownKey is an unknown key as an error may show it: a stray semicolon makes a
// part of a secret look like a key.
func shownKey(name string) string {
	letters := strings.IndexFunc(name, func(r rune) bool {
		return r != ' ' && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}) < 0
	if name == "" || len(name) > maxShownKey || !letters {
		return "(not shown, since it may be a part of a secret)"
	}
	return strconv.Quote(name)
}
