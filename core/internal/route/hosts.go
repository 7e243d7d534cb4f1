package route

import (
	"net/netip"
	"regexp"
	"strings"

	"github.com/tunneld/tunneld/internal/cidr"
	"github.com/tunneld/tunneld/internal/hostname"
)

var hostsKey = Key{
	Name:  "hosts",
	Check: checkHost,
	Doubt: doubtGlob,
	In:    func(r *Rule) *[]string { return &r.Hosts },
}

var (
	hostRE = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?$`)
	zoneRE = regexp.MustCompile(`^[A-Za-z0-9_.-]{0,32}$`)
)

// ValidHost says whether s is a DNS name, with or without a trailing dot, or an
// IP literal without brackets.
func ValidHost(s string) bool {
	if ip, err := netip.ParseAddr(s); err == nil {
		return zoneRE.MatchString(ip.Zone())
	}
	return len(s) <= 254 && hostRE.MatchString(s) && !strings.Contains(s, "..")
}

// checkHost returns an empty text, or a sentence for the user.
func checkHost(s string) string {
	if strings.Contains(s, "/") {
		_, problem := cidr.Parse(s)
		return problem
	}
	s, problem := inASCII(s)
	if problem != "" {
		return problem
	}
	switch {
	case ValidHost(s):
		return ""
	case strings.HasPrefix(s, "["):
		return `An IPv6 address is written without brackets here: "fd00::1".`
	case strings.Contains(s, ":"):
		return "It is neither a name nor an IP address. A port belongs in ports = [ … ]."
	}
	plain := strings.NewReplacer("*", "x", "?", "x").Replace(s)
	if !ValidHost(plain) {
		return `A host is a name, a glob of * and ?, an IP address or a CIDR: "db.corp", "*.corp", "10.0.0.0/8".`
	}
	return ""
}

// NoName says of a name beyond ASCII, for the user, that it has no form to look up.
const NoName = "The name has a character or a label that no host's name can have (IDNA, RFC 5891)."

// inASCII is a name or a glob in the form in which names are compared. problem is empty, or
// a sentence for the user.
func inASCII(s string) (ascii, problem string) {
	labels := []string{s}
	if strings.ContainsAny(s, "*?") {
		labels = strings.Split(s, ".")
	}
	for i, label := range labels {
		if strings.ContainsAny(label, "*?") && !hostname.IsASCII(label) {
			return s, "Names beyond ASCII are compared in their xn-- form, which has no part that a wildcard could stand for. Write the whole label, or * for it."
		}
		ascii, err := hostname.ASCII(label)
		if err != nil {
			return s, NoName
		}
		labels[i] = ascii
	}
	return strings.Join(labels, "."), ""
}

// addressGlobRE is part of an IPv4 address and wildcards. Without a dot it may be
// meant for labels.
var addressGlobRE = regexp.MustCompile(`^[0-9.*?]*([0-9*?]\.[0-9]|[0-9]\.[0-9*?])[0-9.*?]*$`)

// doubtGlob is for globs that look as if they were meant for IP addresses too.
func doubtGlob(s string) (summary, detail string) {
	switch summary = "Glob that matches no IP address"; {
	case s == "*":
		return summary, `"*" is every name. To match IP addresses as well, leave hosts out; to match only names, write "?*".`
	case strings.ContainsAny(s, "*?") && addressGlobRE.MatchString(s):
		return summary, `A glob matches only names. Write addresses as a CIDR: "10.0.0.0/8".`
	}
	return "", ""
}

// host is what a client asks for, or an element of Rule.Hosts, in the form in
// which hosts are compared: lower case, no trailing dot, IP literals in their
// shortest form, IPv4-mapped as IPv4.
type host struct {
	every bool         // all names, labels and IP literals; the rest is unset
	text  string       // a name, a glob or an IP literal; unset: a CIDR
	net   netip.Prefix // of a CIDR, and of an IP literal as long as it is
}

// literal is a host as a client asks for it.
func literal(s string) host {
	s = strings.TrimSuffix(s, ".")
	a, err := netip.ParseAddr(s)
	if err != nil {
		return host{text: strings.ToLower(s)}
	}
	return host{text: a.Unmap().String(), net: cidr.Of(a)}
}

// pattern is an element of Rule.Hosts.
func pattern(s string) host {
	if strings.Contains(s, "/") {
		network, _ := cidr.Parse(s) // it was checked
		return host{net: network}
	}
	s, _ = inASCII(s)
	for strings.Contains(s, "**") {
		s = strings.ReplaceAll(s, "**", "*")
	}
	return literal(s)
}

// glob says whether s matches pattern, in which "*" is any run of bytes and "?"
// one byte. Its time is bounded by the product of the two lengths.
//
// Where s is a pattern, it says whether all that s matches pattern matches: a
// "*" in s is any run of bytes, which only "*" takes. No host has one.
func glob(pattern, s string) bool {
	p, i := 0, 0
	star, mark := -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == s[i] || pattern[p] == '?' && s[i] != '*'):
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
