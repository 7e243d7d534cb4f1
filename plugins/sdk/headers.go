package sdk

import (
	"maps"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/net/http/httpguts"
)

// connectionHeaders are those of the connection and of the body, which are never a user's.
var connectionHeaders = []string{"Connection", "Content-Length", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}

// ValidateHeaders checks headers of a request that a user has written (RFC 9110, sections
// 5.1 and 5.5); path is where they stand in the upstream's body, usually "headers". own
// are the names, in any case, that the plugin needs for itself; those of the connection
// and of a body are refused anyway. The diagnostics are errors, one for each header, and
// repeat no value.
func ValidateHeaders(headers map[string]string, own []string, path ...string) []Diagnostic {
	own = slices.Concat(connectionHeaders, own)
	var ds []Diagnostic
	seen := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		add := func(summary, detail string) {
			ds = append(ds, Diagnostic{Summary: summary, Detail: detail, Path: append(slices.Clone(path), name)})
		}
		lower := strings.ToLower(name)
		its := slices.IndexFunc(own, func(o string) bool { return strings.EqualFold(o, name) })
		switch value := headers[name]; {
		case !httpguts.ValidHeaderFieldName(name):
			add("not the name of a header", "Use letters, digits and hyphens.")
		case its >= 0:
			add("the header "+own[its]+" belongs to the request itself", "Remove it: the plugin sends what the protocol needs.")
		case seen[lower]:
			add("the header is given twice, in different case", "Remove one.")
		case !httpguts.ValidHeaderFieldValue(value) || strings.TrimFunc(value, unicode.IsSpace) != value:
			add("the header's value has a line break, a control character or outer spaces", "Wrap the value in trimspace(…) if it comes from a file.")
		}
		seen[lower] = true
	}
	return ds
}

// HeaderSecrets returns what of such headers a far end may repeat and nobody is to see:
// each value, and what stands behind its first space, as in "Bearer …". Pass it to Excerpt
// or Redact. Host is no secret.
func HeaderSecrets(headers map[string]string) []string {
	var all []string
	for name, value := range headers {
		if strings.EqualFold(name, "Host") {
			continue
		}
		_, token, _ := strings.Cut(value, " ")
		all = append(all, value, token)
	}
	return all
}
