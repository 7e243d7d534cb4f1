package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// StartError is a plugin that could not be started.
type StartError struct {
	Plugin string
	Err    error
	// Handshake says that it was started and that neither Err nor Output tells
	// why its handshake failed: what is due there is in the protocol's page.
	Handshake bool
	// Output is the end of what it printed on stderr, at most 4 KiB, or empty.
	Output string
	cause  string // the line of it that says most
}

// Error returns the cause, with the output in lines of its own behind it.
func (e *StartError) Error() string {
	s := fmt.Sprintf("start plugin %q: %v", e.Plugin, e.Err)
	if e.Output != "" {
		s += "; it printed:\n\t" + strings.ReplaceAll(e.Output, "\n", "\n\t")
	}
	return s
}

// Unwrap returns the cause.
func (e *StartError) Unwrap() error { return e.Err }

// handshakeLine is what go-plugin's server prints: protocol, version, network,
// address.
var handshakeLine = regexp.MustCompile(`^\d+\|\d+\|[a-z]+\|[^|]+`)

// The reasons for which a plugin that serves well is not taken.
var (
	errOtherName = errors.New("it says that its name is")
	errDataPaths = errors.New("its dials answer only with unsupported data paths")
)

// startError says why a start failed, as far as possible, and ends the process so
// that its output is complete.
func (p *Process) startError(ctx context.Context, err error) error {
	e := &StartError{Plugin: p.spec.Name, Err: cleanError{err}}
	if p.child.ID() == "" {
		// There never was a process, and the cause is the system's.
		return e
	}
	// A process that goes away breaks its connection first; one that go-plugin
	// is not content with, it has killed.
	exited := p.child.byItself(noticeWait)
	p.end("was not ready")
	if p.child.wait(killWait) {
		<-p.child.drained
	}
	first := p.child.firstLine()
	e.Output, e.cause = p.child.out.last(), p.child.out.causeLine()
	e.Handshake = !errors.Is(err, errOtherName) && !errors.Is(err, errDataPaths) && (!exited || e.Output == "")
	switch {
	case first != "" && !handshakeLine.MatchString(first):
		e.Handshake = false
		e.Err = fmt.Errorf("it printed %q instead of its handshake: call sdk.Serve first in main, and print nothing before it", clean(first, 200))
	case ctx.Err() != nil && first == "":
		e.Err = fmt.Errorf("no handshake: %w", context.Cause(ctx))
	case ctx.Err() != nil:
		e.Err = context.Cause(ctx)
	case first == "":
		what := "it closed its standard output"
		if exited {
			what = fmt.Sprintf("it ended (%s)", p.child.how())
		}
		e.Err = errors.New(what + " before its handshake")
		if l, script := p.child.program.line(); script && l.crlf() && !strings.HasPrefix(l.argument, "-S") {
			// To env the CR is part of the name that follows, unless env splits it (-S).
			e.Err = fmt.Errorf("%w: %s", e.Err, mendCRLF(p.child.program.file))
		}
	case exited:
		e.Err = fmt.Errorf("it ended (%s): %w", p.child.how(), cleanError{err})
	}
	return e
}
