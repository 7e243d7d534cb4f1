package listen

import (
	"fmt"
	"net/netip"
	"strings"
	"unicode"

	"golang.org/x/net/idna"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/hostname"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// named is the target that a client names, in ASCII, or why no client may name it.
//
// Routes tell names and IP addresses apart, and so does who resolves the name,
// here or at the far end. What one takes for a name and the other for an address
// would be a way around the routes.
func named(host string, port uint16) (tunnel.Target, *tunnel.DialError) {
	t := tunnel.Target{Host: host, Port: port}
	ip, err := netip.ParseAddr(strings.TrimRight(host, "."))
	why, hint := "", ""
	switch {
	case err != nil:
		t.Host, why, hint = inASCII(host)
	case ip.Zone() != "":
		why, hint = "it has an IPv6 zone, which only a configured target may have",
			"ask for the address without the zone, or make it the target of a tcp listener"
	default:
		// There are upstreams that cannot carry IPv4 as IPv6.
		t.Host = ip.Unmap().String()
	}
	if why == "" {
		return t, nil
	}
	return t, &tunnel.DialError{
		Stage:   pluginv1.Stage_STAGE_REQUEST,
		Reason:  pluginv1.Reason_REASON_DENIED,
		Message: fmt.Sprintf("clients may not ask for %s: %s", t, why),
		Hint:    hint,
	}
}

// maxName is the most bytes that protocols carry of a name.
const maxName = 255

// inASCII is a name as it is looked up, in any place, and compared, or why it is none.
func inASCII(host string) (ascii, why, hint string) {
	if why, hint = noName(host); why != "" {
		return host, why, hint
	}
	ascii, err := hostname.ASCII(host)
	if err == nil && len(ascii) > maxName {
		err = fmt.Errorf("it has more than %d bytes in ASCII", maxName)
	}
	if err != nil {
		return host, err.Error(), "check the name, or ask for it in its ASCII form, with xn--"
	}
	if ascii != host {
		why, hint = noName(ascii)
	}
	return ascii, why, hint
}

// noName says why host, which is no IP address in a usual form, is no name
// either. It returns empty texts where it is one.
func noName(host string) (why, hint string) {
	if !hostname.IsASCII(host) {
		// The errors are of labels that no resolver takes.
		ascii, _ := asLookedUp.ToASCII(host)
		host, _ = idna.ToUnicode(ascii)
	}
	host = strings.TrimRight(host, ".")
	const write = "write an IPv4 address as four decimal numbers (10.1.2.3), and an IPv6 address without brackets"
	switch {
	case isNumber(host):
		return "resolvers differ on which IP address that is", write
	case host == "", strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(":%[]", r) }):
		return "it is neither a name nor an IP address", write
	case strings.HasSuffix(strings.ToLower(host), ".ipv6-literal.net"):
		return "Windows takes it for an IPv6 address", write
	}
	return "", ""
}

// asLookedUp maps what resolvers of names beyond ASCII do (UTS #46): full-width
// digits and full stops are ordinary ones, for instance. It is the mapping that
// drops most, and refuses least.
var asLookedUp = idna.New(idna.MapForLookup(), idna.Transitional(true), idna.StrictDomainName(false))

// isNumber says whether all labels of a name are numbers of C, decimal, octal or
// hexadecimal. inet_aton(3), which many resolvers try first, takes one to four of
// them for an address; some also cut the numbers off that are too large, and some
// take the digits of any script. No top-level domain is a number (RFC 3696,
// section 2).
func isNumber(name string) bool {
	for label := range strings.SplitSeq(name, ".") {
		digit := unicode.IsDigit
		if hex, ok := strings.CutPrefix(strings.ToLower(label), "0x"); ok {
			label, digit = hex, isHex
		} else if label == "" {
			return false
		}
		if strings.ContainsFunc(label, func(r rune) bool { return !digit(r) }) {
			return false
		}
	}
	return true
}

func isHex(r rune) bool { return unicode.IsDigit(r) || r >= 'a' && r <= 'f' }
