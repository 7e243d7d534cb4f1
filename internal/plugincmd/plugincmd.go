// Package plugincmd is what the commands of plugins share: what a wrong command line is,
// how secrets are read, and how an emulated far end is run. No protocol is here.
package plugincmd

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/tunneld/tunneld/internal/userfile"
)

// UsageError is a command line that cannot be understood.
type UsageError struct{ Err error }

// Error returns the text alone.
func (e UsageError) Error() string { return e.Err.Error() }

// Unwrap returns what is wrong.
func (e UsageError) Unwrap() error { return e.Err }

// Usage tells the program which exit status that is.
func (UsageError) Usage() {}

// Usage returns a UsageError with this text.
func Usage(text string) error { return UsageError{errors.New(text)} }

// maxSecret bounds a secret's file, in bytes.
const maxSecret = 64 << 10

// ReadSecret reads a secret from a file, or from standard input for "-": an argument
// could be read in the list of processes. It trims white space. what names the secret in
// errors.
func ReadSecret(stdin io.Reader, file, what string) (string, error) {
	var f userfile.File
	var err error
	if file == "-" {
		f, err = userfile.ReadFrom(stdin, maxSecret)
	} else {
		f, err = userfile.Read(file, maxSecret)
	}
	if err != nil {
		return "", fmt.Errorf("read %s: %w", what, err)
	}
	secret := strings.TrimSpace(string(f.Data))
	if secret == "" {
		return "", UsageError{fmt.Errorf("%s contains no %s", file, what)}
	}
	return secret, nil
}
