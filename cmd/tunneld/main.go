// Command tunneld carries TCP connections through networks that let only an odd
// protocol pass. See the README for its use.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/tunneld/tunneld/core"
)

// The exit statuses, as every subcommand has them.
const (
	exitOK = 0
	// exitFailed: it could not be done.
	exitFailed = 1
	// exitUsage: the command line is wrong. Go's runtime ends a program that
	// crashes with the same status.
	exitUsage = 2
	// exitInvalid: the configuration is wrong, and is the next time. It is
	// EX_CONFIG of sysexits(3), which a crash never gives.
	exitInvalid = 78
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// statusError ends the program with a status; what there was to say has been
// said.
type statusError int

func (s statusError) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// usage is a command line that cannot be understood, also one of a plugin's command.
type usage interface {
	error
	Usage()
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	cmd := newRoot(stdin, stdout, stderr)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(ctx)
	var status statusError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &status):
		return int(status)
	}
	fmt.Fprintf(stderr, "tunneld: %v\n", err)
	var wrong usage
	switch {
	case errors.As(err, &wrong):
		return exitUsage
	case errors.Is(err, core.ErrInvalid):
		return exitInvalid
	}
	return exitFailed
}
