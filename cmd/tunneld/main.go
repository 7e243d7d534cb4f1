// Command tunneld carries TCP connections through networks that let only an odd
// protocol pass. See the README for its use.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

// The exit statuses, as every subcommand has them.
const (
	exitOK = iota
	// exitFailed: it could not be done.
	exitFailed
	// exitInvalid: the configuration or the command line is wrong.
	exitInvalid
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// statusError ends the program with a status; what there was to say has been
// said.
type statusError int

func (s statusError) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

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
	var usage usageError
	if errors.As(err, &usage) {
		return exitInvalid
	}
	return exitFailed
}
