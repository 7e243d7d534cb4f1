package auth

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxLength bounds a user and a password, in bytes: RFC 1929, section 2, carries no more.
const MaxLength = 255

// Options say who may log in to a listener. The zero Options are those of a listener that
// asks nobody. They hold secrets, and print none.
type Options struct {
	// users have their passwords, and held what the file held when the Options were made:
	// behind what fmt does not follow, whatever the verb.
	users map[string]*string
	file  string
	held  func() *content
}

// NewOptions reads the htpasswd file, unless its path is empty. Users and passwords have
// been checked by UserProblem and PasswordProblem.
func NewOptions(users map[string]string, htpasswdFile string) Options {
	o := Options{file: htpasswdFile}
	if len(users) > 0 {
		o.users = make(map[string]*string, len(users))
	}
	for user, password := range users {
		o.users[user] = &password
	}
	if htpasswdFile != "" {
		held := readFile(htpasswdFile)
		o.held = func() *content { return held }
	}
	return o
}

// IsZero says whether nobody is asked.
func (o Options) IsZero() bool { return len(o.users) == 0 && o.file == "" }

// Problems are those of the htpasswd file.
func (o Options) Problems() []Problem {
	if o.held == nil {
		return nil
	}
	return o.held().problems
}

// Format prints how many users there are, and the file's path, whatever the verb.
func (o Options) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "auth(%d users, file %q)", len(o.users), o.file)
}

// MarshalJSON gives what Format prints, as a JSON text.
func (o Options) MarshalJSON() ([]byte, error) { return json.Marshal(fmt.Sprint(o)) }

// fields are all that tells Options apart, in a fixed order.
func (o Options) fields() []string {
	all := []string{o.file}
	for _, user := range slices.Sorted(maps.Keys(o.users)) {
		all = append(all, user, *o.users[user])
	}
	return all
}

// UserProblem says why nobody can have this name; empty: somebody can. It does not
// repeat the name.
func UserProblem(user string) string {
	switch {
	case user == "":
		return "a user's name is empty"
	case len(user) > MaxLength:
		return fmt.Sprintf("a user's name has %d bytes, and clients can send %d", len(user), MaxLength)
	case strings.Contains(user, ":"):
		return "a user's name has a colon, behind which HTTP has the password (RFC 7617, section 2)"
	case !utf8.ValidString(user):
		return "a user's name is not UTF-8"
	case strings.ContainsFunc(user, unicode.IsControl):
		return "a user's name has a control character"
	case strings.TrimSpace(user) != user:
		return "a user's name begins or ends with a space"
	}
	return ""
}

// PasswordProblem says why nobody can have this password; empty: somebody can.
func PasswordProblem(password string) string {
	switch {
	case password == "":
		return "a user's password is empty"
	case len(password) > MaxLength:
		return fmt.Sprintf("a user's password has %d bytes, and clients can send %d", len(password), MaxLength)
	case strings.ContainsFunc(password, unicode.IsControl):
		return "a user's password has a control character: trimspace( … ) removes the line break at a file's end"
	}
	return ""
}
