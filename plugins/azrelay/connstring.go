package azrelay

import (
	"errors"
	"fmt"
	"net/url"
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
// the portal shows them. Case and order of the keys do not matter. An error
// holds no value.
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
		name, value, ok := strings.Cut(part, "=")
		if !ok {
			return c, errors.New("a part of it is not Key=Value")
		}
		name = strings.ToLower(strings.TrimSpace(name))
		set, known := fields[name]
		switch {
		case seen[name]:
			return c, fmt.Errorf("%s stands twice", name)
		case known:
			set(strings.TrimSpace(value))
			seen[name] = true
		}
	}
	if endpoint == "" {
		return c, errors.New("it has no Endpoint")
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Hostname() == "" || u.Scheme != "sb" {
		return c, errors.New("its Endpoint is not sb://host/")
	}
	c.host, c.port = u.Hostname(), u.Port()
	return c, nil
}
