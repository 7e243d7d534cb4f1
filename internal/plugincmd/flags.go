package plugincmd

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

// File defines a flag that names a file. In its usage the name is in backquotes.
func File(cmd *cobra.Command, to *string, name, usage string) {
	cmd.Flags().StringVar(to, name, "", usage)
	must(cmd.MarkFlagFilename(name))
}

// Address defines a flag that takes where to listen. In its usage the form is in
// backquotes.
func Address(cmd *cobra.Command, to *string, name, address, usage string) {
	*to = address
	cmd.Flags().Var((*listenAddress)(to), name, usage)
}

type listenAddress string

func (a *listenAddress) String() string { return string(*a) }
func (a *listenAddress) Type() string   { return "string" }
func (a *listenAddress) Set(text string) error {
	_, port, err := net.SplitHostPort(text)
	if _, portErr := strconv.ParseUint(port, 10, 16); err != nil || portErr != nil {
		return errors.New("it is not HOST:PORT with a port from 0 to 65535")
	}
	*a = listenAddress(text)
	return nil
}

// Choose defines a flag that takes one of a few words; the words are added to usage. The
// word of the value that is there is the default.
func Choose[T comparable](cmd *cobra.Command, to *T, name, usage string, words map[string]T) {
	all := slices.Sorted(maps.Keys(words))
	c := &choice[T]{to: to, words: words, all: all}
	for _, word := range all {
		if words[word] == *to {
			c.word = word
		}
	}
	cmd.Flags().Var(c, name, usage+": "+strings.Join(all, ", "))
	must(cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(all, cobra.ShellCompDirectiveNoFileComp)))
}

type choice[T comparable] struct {
	to    *T
	words map[string]T
	all   []string
	word  string
}

func (c *choice[T]) String() string { return c.word }
func (c *choice[T]) Type() string   { return "WORD" }
func (c *choice[T]) Set(word string) error {
	value, ok := c.words[word]
	if !ok {
		return fmt.Errorf("it is not one of %s", strings.Join(c.all, ", "))
	}
	*c.to, c.word = value, word
	return nil
}

// Words are words that stand for themselves.
func Words[T ~string](words ...T) map[string]T {
	m := map[string]T{}
	for _, w := range words {
		m[string(w)] = w
	}
	return m
}

// Named are values by the names that they have themselves.
func Named[T fmt.Stringer](values ...T) map[string]T {
	m := map[string]T{}
	for _, v := range values {
		m[v.String()] = v
	}
	return m
}

// Number defines a flag that takes a decimal number between two others; the value that is
// there, the default, may be another. In its usage the number's name is in backquotes.
func Number(cmd *cobra.Command, to *int, name, usage string, least, most int) {
	cmd.Flags().Var(&number{to, least, most}, name, usage)
}

type number struct {
	to          *int
	least, most int
}

func (n *number) Type() string { return "int" }
func (n *number) String() string {
	if n.to == nil {
		return ""
	}
	return strconv.Itoa(*n.to)
}

func (n *number) Set(text string) (err error) {
	*n.to, err = ParseNumber(text, n.least, n.most)
	return err
}

// ParseNumber reads a decimal number between two others.
func ParseNumber(text string, least, most int) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("it is not a number from %d to %d", least, most)
	}
	return n, nil
}

// Hex defines a flag that takes a byte as the protocols' descriptions write it: two hex
// digits.
func Hex[T ~byte](cmd *cobra.Command, to *T, name, usage string) {
	cmd.Flags().Var(hexByte[T]{to}, name, usage)
}

type hexByte[T ~byte] struct{ to *T }

func (h hexByte[T]) Type() string { return "HEX" }
func (h hexByte[T]) String() string {
	if h.to == nil || *h.to == 0 {
		return ""
	}
	return fmt.Sprintf("%02x", byte(*h.to))
}

func (h hexByte[T]) Set(text string) error {
	n, err := strconv.ParseUint(text, 16, 8)
	if err != nil {
		return errors.New("it is not a byte in hex, 00 to ff")
	}
	*h.to = T(n)
	return nil
}

// Pairs defines a flag that takes a key and a value, and may be repeated for other keys.
// form is what both are, "KEY=VALUE".
func Pairs(cmd *cobra.Command, to *map[string]string, name, form, usage string) {
	cmd.Flags().Var(pairs{to, form}, name, usage+"; may be repeated")
}

type pairs struct {
	to   *map[string]string
	form string
}

func (p pairs) String() string { return "" }
func (p pairs) Type() string   { return p.form }
func (p pairs) Set(text string) error {
	key, value, ok := strings.Cut(text, "=")
	if !ok || key == "" || value == "" {
		return fmt.Errorf("it is not %s", p.form)
	}
	if _, twice := (*p.to)[key]; twice {
		return fmt.Errorf("%s is given twice", key)
	}
	if *p.to == nil {
		*p.to = map[string]string{}
	}
	(*p.to)[key] = value
	return nil
}

// Logins defines the flag --user, whose value is a user's name and the file with the
// password.
func Logins(cmd *cobra.Command) *UserFiles {
	u := &UserFiles{}
	Pairs(cmd, &u.files, "user", "NAME=FILE", "ask for a login, and let this user in with the password in the file")
	// The name comes first, and completion begins behind it.
	must(cmd.RegisterFlagCompletionFunc("user", func(_ *cobra.Command, _ []string, text string) ([]string, cobra.ShellCompDirective) {
		if !strings.Contains(text, "=") {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return nil, cobra.ShellCompDirectiveDefault
	}))
	return u
}

// UserFiles are the files with users' passwords.
type UserFiles struct{ files map[string]string }

// Read returns the passwords by user name; nil where there are no users.
func (u *UserFiles) Read(stdin io.Reader) (map[string]string, error) {
	var passwords map[string]string
	for _, name := range slices.Sorted(maps.Keys(u.files)) {
		password, err := ReadSecret(stdin, u.files[name], "password")
		if err != nil {
			return nil, fmt.Errorf("user %q: %w", name, err)
		}
		if passwords == nil {
			passwords = map[string]string{}
		}
		passwords[name] = password
	}
	return passwords, nil
}

// Attributes are those of an upstream that logs in as the first of the users.
func (u *UserFiles) Attributes() []Attribute {
	for _, name := range slices.Sorted(maps.Keys(u.files)) {
		return []Attribute{{"username", Quote(name)}, {"password", SecretOf(u.files[name], "PASSWORD")}}
	}
	return nil
}

// absolute returns a file's path for use from elsewhere, and the file as it is in a
// working folder that is gone.
func absolute(file string) string {
	if path, err := filepath.Abs(file); err == nil {
		return path
	}
	return file
}

// must is for what fails only where a flag is not defined.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
