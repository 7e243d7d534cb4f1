package tlsconf

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"unicode"

	"github.com/tunneld/tunneld/internal/hostname"
)

// form is what a subjectAltName is (RFC 5280, section 4.2.1.6).
type form int

const (
	uriForm form = iota
	dnsForm
	emailForm
)

// maxSAN bounds a name that counts, in bytes: it becomes a user, whom the log names. It is
// what SPIFFE bounds an ID to.
const maxSAN = 2048

// san is a name of a certificate, or a pattern of such names, in one form: what does not
// matter for its meaning is in lower case. The head of an e-mail address is what comes
// before the @, and that of a URI its scheme and host.
type san struct {
	form       form
	head, tail string
}

// String returns the name as users have it.
func (n san) String() string { return n.head + n.tail }

// sansOf returns the names of a certificate that count: URIs first, then DNS names and
// e-mail addresses.
func sansOf(c *x509.Certificate) (names []san) {
	add := func(n san, ok bool) {
		if ok {
			names = append(names, n)
		}
	}
	for _, u := range c.URIs {
		add(uriName(u))
	}
	for _, name := range c.DNSNames {
		add(dnsName(name))
	}
	for _, address := range c.EmailAddresses {
		add(emailName(address))
	}
	return names
}

// shown says whether a name can be shown as it is, and is not too long.
func shown(s string) bool {
	return s != "" && len(s) <= maxSAN && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// dnsName takes no wildcard: a certificate with one is a server's, for names of others.
func dnsName(s string) (san, bool) {
	domain, err := parseDomain(s)
	return san{dnsForm, "", domain}, err == nil && shown(s) && !strings.Contains(s, "*")
}

// emailName leaves the case before the @ alone (RFC 5280, section 7.5).
func emailName(s string) (san, bool) {
	mailbox, domain, found := strings.Cut(s, "@")
	d, ok := dnsName(domain)
	return san{emailForm, mailbox, "@" + d.tail}, found && ok && shown(s) && mailbox != ""
}

// uriName takes no URI that means another one to who decodes it or resolves its dots, and
// none with a user, whose case matters.
func uriName(u *url.URL) (san, bool) {
	s := u.String()
	if u.Scheme == "" || u.User != nil || !shown(s) || !isPlainURI(s) {
		return san{}, false
	}
	n := splitURI(s)
	n.head = strings.ToLower(n.head)
	return n, true
}

// splitURI cuts behind the host, or behind the scheme where there is none (RFC 3986,
// section 3).
func splitURI(s string) san {
	scheme, rest, hasHost := strings.Cut(s, "://")
	if !hasHost {
		i := strings.IndexByte(s, ':') + 1
		return san{uriForm, s[:i], s[i:]}
	}
	head := len(scheme) + len("://")
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		head += end
	} else {
		head = len(s)
	}
	return san{uriForm, s[:head], s[head:]}
}

// isPlainURI says whether a URI has neither ".." nor a segment ".", also not
// percent-encoded, and nothing percent-encoded that would be a delimiter or a control
// character.
func isPlainURI(s string) bool {
	delimiters := func(s string) int {
		return strings.Count(s, "/") + strings.Count(s, "?") + strings.Count(s, "#")
	}
	written := delimiters(s)
	for {
		if strings.Contains(s, "..") || strings.Contains(s+"/", "/./") || delimiters(s) != written ||
			strings.ContainsFunc(s, func(r rune) bool { return r == '\\' || unicode.IsControl(r) }) {
			return false
		}
		decoded, err := url.PathUnescape(s)
		if err != nil {
			return false
		}
		if decoded == s {
			return true
		}
		s = decoded // it is shorter
	}
}

// matches says whether a name is one of those that the pattern stands for.
func (p san) matches(n san) bool {
	if p.form != n.form {
		return false
	}
	switch p.form {
	case dnsForm:
		return glob(p.tail, n.tail, ".")
	case emailForm:
		return glob(p.head, n.head, "") && glob(p.tail, n.tail, ".")
	default:
		return glob(p.head, n.head, "./:") && glob(p.tail, n.tail, "/?#")
	}
}

// glob says whether s is like the pattern, in which * stands for one or more bytes that
// are none of stops.
func glob(pattern, s, stops string) bool {
	stops += "\x00"
	takes := func(i int) bool { return i < len(s) && strings.IndexByte(stops, s[i]) < 0 }
	// The last *, and where what it took ends. An earlier one need not take more: the
	// stops say which part of s each is about.
	star, end := -1, 0
	p, i := 0, 0
	for i < len(s) || p < len(pattern) {
		switch {
		case p < len(pattern) && pattern[p] == '*' && takes(i):
			star, end = p, i+1
			p, i = p+1, i+1
		case p < len(pattern) && i < len(s) && pattern[p] != '*' && pattern[p] == s[i]:
			p, i = p+1, i+1
		case star >= 0 && takes(end):
			end++
			p, i = star+1, end
		default:
			return false
		}
	}
	return true
}

// parseSAN reads a pattern of allow_san. What it is about is seen from its form. The error
// says what is wrong, in a sentence without its end.
func parseSAN(s string) (san, error) {
	switch {
	case strings.Trim(s, "*") == "":
		return san{}, errors.New("it would stand for DNS names of one label; to let in every certificate of client_ca_file, leave allow_san out")
	case len(s) > maxSAN:
		return san{}, fmt.Errorf("it is longer than %d bytes", maxSAN)
	case strings.Contains(s, "**"):
		return san{}, errors.New("two * in a row mean nothing: a * stays within a label of a DNS name, or a segment of a URI")
	case strings.ContainsAny(s, "?[]\\\"#"):
		return san{}, errors.New("the only sign with a meaning of its own is *")
	case strings.Contains(s, "://"), strings.HasPrefix(strings.ToLower(s), "urn:"):
		return parseURI(s)
	case strings.Contains(s, ":"):
		return san{}, errors.New("a DNS name has no port, a URI begins with scheme:// or urn:, and IP addresses are not compared")
	case strings.Contains(s, "@"):
		return parseEmail(s)
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return san{}, errors.New("IP addresses are not compared: name a DNS name, an e-mail address or a URI of the certificate")
	}
	domain, err := parseDomain(s)
	return san{dnsForm, "", domain}, err
}

// parseDomain reads labels, of which those beyond ASCII have no *.
func parseDomain(s string) (string, error) {
	labels := strings.Split(hostname.WithoutDot(s), ".")
	for i, label := range labels {
		if !hostname.IsASCII(label) {
			if strings.Contains(label, "*") {
				return "", errors.New("a label beyond ASCII has no *")
			}
			ascii, err := hostname.ASCII(label)
			if err != nil {
				return "", fmt.Errorf("it is %w", err)
			}
			label = ascii
		}
		labels[i] = strings.ToLower(label)
		if label == "" {
			return "", errors.New("a label between two dots is empty")
		}
		if strings.ContainsFunc(labels[i], func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < '0' || r > '9') && !strings.ContainsRune("-_*", r)
		}) {
			return "", errors.New("it is neither a DNS name nor an e-mail address nor a URI")
		}
	}
	return strings.Join(labels, "."), nil
}

func parseEmail(s string) (san, error) {
	i := strings.LastIndexByte(s, '@')
	if i == 0 || strings.Contains(s[:i], "@") || !shown(s[:i]) {
		return san{}, errors.New("what comes before the @ is no mailbox; *@example.com stands for all of a domain")
	}
	domain, err := parseDomain(s[i+1:])
	return san{emailForm, s[:i], "@" + domain}, err
}

func parseURI(s string) (san, error) {
	u, err := url.Parse(strings.ReplaceAll(s, "*", "x"))
	switch {
	case !shown(s):
		return san{}, errors.New("a URI has neither spaces nor signs beyond ASCII: write them percent-encoded")
	case err != nil || u.Host == "" && u.Opaque == "":
		return san{}, errors.New("it is no URI: spiffe://example.org/ns/*/sa/web is one")
	case u.User != nil:
		return san{}, errors.New("a URI with a user before its host matches nothing")
	case !isPlainURI(s):
		return san{}, errors.New("a URI with .. or a percent-encoded / matches nothing")
	}
	n := splitURI(s)
	if strings.Contains(n.head[:strings.IndexByte(n.head, ':')], "*") {
		return san{}, errors.New("the scheme of a URI has no *")
	}
	n.head = strings.ToLower(n.head)
	return n, nil
}

// allowed are the names of client certificates that are let in; none: all certificates are.
type allowed []san

// parseAllowed reads the patterns; the error is of the first that is none.
func parseAllowed(patterns []string) (a allowed, err error) {
	for i, text := range patterns {
		p, err := parseSAN(text)
		if err != nil {
			return nil, fmt.Errorf("allow_san: pattern %d: %w", i+1, err)
		}
		a = append(a, p)
	}
	return a, nil
}

// user returns the name by which a client with the certificate is let in: its first one
// where all are, which may be none.
func (a allowed) user(c *x509.Certificate) (string, error) {
	names := sansOf(c)
	if len(a) == 0 {
		if len(names) == 0 {
			return "", nil
		}
		return names[0].String(), nil
	}
	for _, n := range names {
		for _, p := range a {
			if p.matches(n) {
				return n.String(), nil
			}
		}
	}
	return "", newSANError(c, names)
}

// SANError refuses a client's certificate of which no name is in allow_san.
type SANError struct {
	// Offered are the first of its names; Others counts those beyond.
	Offered []string
	Others  int
}

// The most of a refused certificate's names that are shown, and the most of each, in bytes.
const (
	maxOffered      = 4
	maxOfferedBytes = 200
)

func newSANError(c *x509.Certificate, names []san) *SANError {
	e := &SANError{Others: len(c.URIs) + len(c.DNSNames) + len(c.EmailAddresses)}
	for _, n := range names[:min(len(names), maxOffered)] {
		text := n.String()
		if len(text) > maxOfferedBytes {
			text = text[:maxOfferedBytes] + "…"
		}
		e.Offered = append(e.Offered, text)
	}
	e.Others -= len(e.Offered)
	return e
}

// Error names what the certificate has to offer.
func (e *SANError) Error() string {
	const refused = "no name of the client's certificate is in allow_san: "
	switch {
	case len(e.Offered) == 0 && e.Others == 0:
		return refused + "it has neither a DNS name nor an e-mail address nor a URI"
	case len(e.Offered) == 0:
		return fmt.Sprintf("%sof its %d names none can be compared", refused, e.Others)
	case e.Others == 0:
		return refused + "it has " + strings.Join(e.Offered, ", ")
	}
	return fmt.Sprintf("%sit has %s and %d more", refused, strings.Join(e.Offered, ", "), e.Others)
}
