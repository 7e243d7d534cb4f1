// Package hostname brings the names of hosts into the one form that DNS, certificates and
// protocols have: ASCII, as IDNA looks names up (RFC 5891, section 5; UTS #46). It looks
// nothing up, and does not judge names that are in ASCII.
package hostname

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// IsASCII says whether all of s is ASCII.
func IsASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf })
}

// ASCII returns a name with its labels beyond ASCII in their xn-- form. A name in ASCII, or
// an IP literal, is returned as it is. The error quotes a part of the name.
func ASCII(name string) (string, error) {
	if IsASCII(name) {
		return name, nil
	}
	ascii, err := idna.Lookup.ToASCII(name)
	if strings.ContainsRune(name, utf8.RuneError) {
		err = errors.New("it is not UTF-8") // idna encodes the replacement character
	}
	if err != nil {
		return "", fmt.Errorf("no name of a host: %w", err)
	}
	return ascii, nil
}

// IsName says whether ASCII has no error.
func IsName(name string) bool {
	_, err := ASCII(name)
	return err == nil
}

// ASCIIAddress is ASCII for the host of "host:port". What is not of that form is returned
// as it is.
func ASCIIAddress(address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil || IsASCII(host) {
		return address, nil
	}
	if host, err = ASCII(host); err != nil {
		return "", err
	}
	return net.JoinHostPort(host, port), nil
}

// Unicode returns a name for reading: with its xn-- labels as they are written. Where one
// is of no use, or there is none, it returns the name.
func Unicode(name string) string {
	if !strings.Contains(strings.ToLower(name), "xn--") {
		return name
	}
	text, err := idna.Display.ToUnicode(name)
	if err != nil {
		return name
	}
	return text
}

// WithoutDot returns a name without the dot at its end, which says to a resolver that the
// name is absolute, and which no certificate, header or list of hosts has (RFC 6066,
// section 3).
func WithoutDot(name string) string { return strings.TrimSuffix(name, ".") }

// AddressWithoutDot is WithoutDot for the host of "host:port".
func AddressWithoutDot(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil || !strings.HasSuffix(host, ".") {
		return address
	}
	return net.JoinHostPort(WithoutDot(host), port)
}

// Header returns the Host header for a URL: its host and port, without the dot.
func Header(u *url.URL) string {
	if u.Port() == "" {
		return WithoutDot(u.Host)
	}
	return AddressWithoutDot(u.Host)
}
