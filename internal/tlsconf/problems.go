package tlsconf

import "strconv"

// Problem is what is wrong with one of a user's options, or what is to be warned of.
type Problem struct {
	Warning bool
	// Option is its name in the configuration, and Index which of its elements it is,
	// where it has any.
	Option          string
	Index           int
	Summary, Detail string
}

// Path returns where the problem is within the options.
func (p Problem) Path() []string {
	if p.Option == "cipher_suites" {
		return []string{p.Option, strconv.Itoa(p.Index)}
	}
	return []string{p.Option}
}

// Problems says what is wrong with the options apart from the files that are read.
func (o ClientOptions) Problems() (ps []Problem) {
	if most, known := versions[o.MaxVersion]; known && o.MaxVersion != "" && most < versions[o.MinVersion] {
		ps = append(ps, Problem{Option: "max_version", Summary: "the newest version (max_version) is older than the oldest (min_version)", Detail: "Raise the one, or lower the other."})
	}
	ps = append(ps, suiteProblems(splitSuites(o.CipherSuites))...)
	if o.CipherSuites != "" && o.MinVersion == "1.3" {
		ps = append(ps, Problem{Warning: true, Option: "cipher_suites", Summary: "the choice of cipher_suites has no effect", Detail: `They are those of TLS 1.2, and min_version = "1.3" leaves that out. Remove one of the two.`})
	}
	if o.KeyLogFile != "" {
		ps = append(ps, keyLogProblems(o.KeyLogFile)...)
	}
	return ps
}
