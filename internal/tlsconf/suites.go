package tlsconf

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
)

// suitesSeparator ends each name of ClientOptions.CipherSuites, also an empty one.
const suitesSeparator = ","

// JoinSuites makes what ClientOptions.CipherSuites is of names.
func JoinSuites(names []string) (joined string) {
	for _, name := range names {
		joined += name + suitesSeparator
	}
	return joined
}

// splitSuites is the reverse of JoinSuites.
func splitSuites(joined string) []string {
	if joined == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(joined, suitesSeparator), suitesSeparator)
}

// suitesOf are those of Go's that a version of TLS has.
func suitesOf(version uint16, all []*tls.CipherSuite) (of []*tls.CipherSuite) {
	for _, s := range all {
		if slices.Contains(s.SupportedVersions, version) {
			of = append(of, s)
		}
	}
	return of
}

// suite finds one by the name that IANA gives it. weak says that Go uses it only where it
// is asked for.
func suite(name string, version uint16) (id uint16, weak, ok bool) {
	for i, all := range [][]*tls.CipherSuite{tls.CipherSuites(), tls.InsecureCipherSuites()} {
		for _, s := range suitesOf(version, all) {
			if s.Name == name {
				return s.ID, i == 1, true
			}
		}
	}
	return 0, false, false
}

// suiteIDs are those of the names that were chosen; the error is of the first that is none.
func suiteIDs(chosen []string) ([]uint16, error) {
	var ids []uint16
	for i, name := range chosen {
		id, _, ok := suite(name, tls.VersionTLS12)
		if !ok {
			return nil, fmt.Errorf("cipher_suites: name %d is none of TLS 1.2", i+1)
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// names are those of the suites of TLS 1.2.
func names(all []*tls.CipherSuite) (list []string) {
	for _, s := range suitesOf(tls.VersionTLS12, all) {
		list = append(list, s.Name)
	}
	return list
}

// suiteHelp says what to write in place of a name that is none. OpenSSL names the same
// suites in its own way: ECDHE-RSA-AES128-GCM-SHA256.
func suiteHelp(wrong string) string {
	key := func(name string) string {
		return strings.NewReplacer("TLS_", "", "_WITH", "", "_", "", "-", "").Replace(strings.ToUpper(name))
	}
	strong := names(tls.CipherSuites())
	for _, name := range slices.Concat(strong, names(tls.InsecureCipherSuites())) {
		if key(name) == key(wrong) || key(name) == "RSA"+key(wrong) {
			return fmt.Sprintf("Did you mean %q?", name)
		}
	}
	best := slices.DeleteFunc(strong, func(name string) bool { return strings.Contains(name, "_CBC_") })
	return "The best are " + strings.Join(best, ", ") + ". Go's others, such as TLS_RSA_WITH_AES_128_GCM_SHA256, are taken too, weak ones with a warning."
}

func suiteProblems(chosen []string) (ps []Problem) {
	for i, name := range chosen {
		p := Problem{Option: "cipher_suites", Index: i}
		_, weak, ok := suite(name, tls.VersionTLS12)
		switch _, _, newer := suite(name, tls.VersionTLS13); {
		case ok && weak:
			p.Warning, p.Summary, p.Detail = true, "a weak cipher suite", "Go does not offer it by itself: it has no forward secrecy, or a known weakness. Use it only where the other side can do no better."
		case ok:
			continue
		case newer:
			p.Summary, p.Detail = "a cipher suite of TLS 1.3, of which Go takes what is best by itself", `Remove it: cipher_suites are those of TLS 1.2. With max_version = "1.2" no other is used.`
		default:
			p.Summary, p.Detail = "not the name of a cipher suite of TLS 1.2", suiteHelp(name)
		}
		ps = append(ps, p)
	}
	return ps
}
