package tlsconf

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"time"
)

// Problem is what is wrong with one of a user's options, or what is to be warned of.
type Problem struct {
	Warning bool
	// Machine says that it is not the option that is wrong, but what the machine lacks.
	Machine bool
	// Option is its name in the configuration, and Index which of its elements it is,
	// where it has any; of "cert_file" it is which pair's.
	Option          string
	Index           int
	Summary, Detail string
}

// lists are the options that have elements.
var lists = []string{"cipher_suites", "allow_san", "alpn"}

// Path returns where the problem is within the options.
func (p Problem) Path() []string {
	if slices.Contains(lists, p.Option) {
		return []string{p.Option, strconv.Itoa(p.Index)}
	}
	return []string{p.Option}
}

// Problems says what is wrong with the options apart from the files that are read.
func (o ClientOptions) Problems() (ps []Problem) {
	ps = versionProblems(o.MinVersion, o.MaxVersion, splitSuites(o.CipherSuites))
	if o.KeyLogFile != "" {
		ps = append(ps, keyLogProblems(o.KeyLogFile)...)
	}
	return ps
}

func versionProblems(minVersion, maxVersion string, suites []string) (ps []Problem) {
	if most, known := versions[maxVersion]; known && maxVersion != "" && most < versions[minVersion] {
		ps = append(ps, Problem{Option: "max_version", Summary: "the newest version (max_version) is older than the oldest (min_version)", Detail: "Raise the one, or lower the other."})
	}
	ps = append(ps, suiteProblems(suites)...)
	if len(suites) > 0 && minVersion == "1.3" {
		ps = append(ps, Problem{Warning: true, Option: "cipher_suites", Summary: "the choice of cipher_suites has no effect", Detail: `They are those of TLS 1.2, and min_version = "1.3" leaves that out. Remove one of the two.`})
	}
	return ps
}

// FileProblems says what is wrong with the files of the options as they are now.
func (o ClientOptions) FileProblems(now time.Time) (ps []Problem) {
	if o.CAFile != "" {
		if _, err := LoadPool(o.CAFile); err != nil {
			ps = append(ps, unusable("ca_file", 0, "cannot use the authorities", err))
		}
	}
	if o.CertFile != "" && o.KeyFile != "" {
		pair, err := LoadKeyPair(o.CertFile, o.KeyFile)
		if err != nil {
			return append(ps, unusable("cert_file", 0, "cannot use the client's certificate", err))
		}
		ps = append(ps, dateProblems(pair, 0, now)...)
	}
	return ps
}

// maxALPN bounds the name of a protocol, in bytes (RFC 7301, section 3.1).
const maxALPN = 255

// Problems says what is wrong with the options apart from the files that are read.
func (o ServerOptions) Problems() (ps []Problem) {
	if len(o.Pairs) == 0 {
		ps = append(ps, Problem{Option: "cert_file", Summary: "there is no certificate", Detail: "Set cert_file and key_file, or write certificate { … } blocks with both."})
	}
	ps = append(ps, versionProblems(o.MinVersion, o.MaxVersion, o.CipherSuites)...)
	for i, text := range o.AllowSAN {
		if _, err := parseSAN(text); err != nil {
			ps = append(ps, Problem{Option: "allow_san", Index: i, Summary: "wrong pattern of a name", Detail: fmt.Sprintf("%q: %v.", text, err)})
		}
	}
	if len(o.AllowSAN) > 0 && o.ClientCAFile == "" {
		ps = append(ps, Problem{Option: "allow_san", Summary: "patterns for client certificates (allow_san) without client_ca_file", Detail: "Clients show a certificate only where client_ca_file says whose certificates are taken. Set it, or remove allow_san."})
	}
	for i, protocol := range o.ALPN {
		if protocol == "" || len(protocol) > maxALPN {
			ps = append(ps, Problem{Option: "alpn", Index: i, Summary: "wrong name of a protocol", Detail: fmt.Sprintf("It has 1 to %d bytes: \"http/1.1\".", maxALPN)})
		}
	}
	return ps
}

// FileProblems says what is wrong with the files of the options as they are now.
func (o ServerOptions) FileProblems(now time.Time) (ps []Problem) {
	var loaded []tls.Certificate
	for i, p := range o.Pairs {
		pair, err := LoadKeyPair(p.CertFile, p.KeyFile)
		if err != nil {
			ps = append(ps, unusable("cert_file", i, "cannot use the certificate", err))
			continue
		}
		loaded = append(loaded, pair)
		if first := slices.IndexFunc(loaded[:len(loaded)-1], func(other tls.Certificate) bool { return sharedName(other.Leaf, pair.Leaf) != "" }); first >= 0 {
			ps = append(ps, Problem{Warning: true, Option: "cert_file", Index: i, Summary: "two certificates for one name: " + sharedName(loaded[first].Leaf, pair.Leaf),
				Detail: "They have keys of one kind, so that the first serves all clients that ask for the name. Remove one of the two."})
		}
		ps = append(ps, dateProblems(pair, i, now)...)
	}
	if o.ClientCAFile != "" {
		if _, err := LoadPool(o.ClientCAFile); err != nil {
			ps = append(ps, unusable("client_ca_file", 0, "cannot use the authorities", err))
		}
	}
	return ps
}

func unusable(option string, i int, summary string, err error) Problem {
	return Problem{Machine: errors.Is(err, fs.ErrNotExist), Option: option, Index: i, Summary: summary + ": " + err.Error(), Detail: "Name readable PEM files."}
}

// dateProblems are about the times of a chain's certificates.
func dateProblems(chain tls.Certificate, i int, now time.Time) (ps []Problem) {
	for _, der := range chain.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			continue // it is the other side's to judge
		}
		p := Problem{Warning: true, Option: "cert_file", Index: i, Detail: "The other side refuses it. Replace the file: it is followed, and needs no reload. Check the clock of this machine, too."}
		switch {
		case now.After(c.NotAfter):
			p.Summary = "the certificate has expired on " + c.NotAfter.UTC().Format(time.RFC3339)
		case now.Before(c.NotBefore):
			p.Summary = "the certificate is not valid before " + c.NotBefore.UTC().Format(time.RFC3339)
		default:
			continue
		}
		return []Problem{p}
	}
	return nil
}

// sharedName is a name that two certificates are for with keys of one kind; empty: there
// is none.
func sharedName(a, b *x509.Certificate) string {
	if a.PublicKeyAlgorithm != b.PublicKeyAlgorithm {
		return "" // a client may take only one of the kinds
	}
	for _, name := range namesOf(a) {
		if slices.Contains(namesOf(b), name) {
			return name
		}
	}
	return ""
}

// namesOf are those by which a client may ask for the certificate's server.
func namesOf(c *x509.Certificate) (names []string) {
	for _, name := range c.DNSNames {
		if n, ok := dnsName(name); ok {
			names = append(names, n.String())
		}
	}
	return names
}
