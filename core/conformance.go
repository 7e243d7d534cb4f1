package core

import (
	"context"
	"fmt"
	"time"

	"github.com/tunneld/tunneld/core/internal/conformance"
)

// ConformanceOptions are what a run of the conformance kit needs besides the
// daemon's Options. Upstream and Target are required.
type ConformanceOptions struct {
	// Upstream is "type.name".
	Upstream string
	// Target and Refused are "host:port", or a label. Refused may be empty.
	Target, Refused string
	// Serve is the address of the echo service where it is not the target's.
	Serve string
	// NoRefused says that the upstream leads to one target whatever is asked.
	NoRefused bool
	// FarEnd is a command to run meanwhile; may be empty.
	FarEnd []string
	// FarEndLacks are what the far end cannot do: "half-close", "reset".
	FarEndLacks []string
	// Timeout bounds each step; 0: 10s.
	Timeout time.Duration
	// Progress is told each check that is through; may be nil.
	Progress func(ConformanceCheck)
}

// ConformanceReport is what a run found, and ConformanceCheck a line of it.
type (
	ConformanceReport = conformance.Report
	ConformanceCheck  = conformance.Check
)

// ConformanceFailed is the result of a check that does not hold.
const ConformanceFailed = conformance.Fail

// ErrUnfit says that the configuration, or what was asked of it, is wrong: the
// error or the diagnostics tell how.
var ErrUnfit = conformance.ErrInvalid

// TestPlugin runs the conformance kit against the plugin of one upstream. What
// does not hold is in the report.
func TestPlugin(ctx context.Context, opts Options, c ConformanceOptions) (*ConformanceReport, Diagnostics, error) {
	o := conformance.Options{
		ConfigPath: opts.ConfigPath,
		Upstream:   c.Upstream,
		Version:    opts.Version,
		Bundled:    opts.Bundled,
		Self:       opts.Self,
		Serve:      c.Serve,
		NoRefused:  c.NoRefused,
		FarEnd:     c.FarEnd,
		Lacks:      c.FarEndLacks,
		Timeout:    c.Timeout,
		Progress:   c.Progress,
	}
	var err error
	if o.Target, err = conformance.ParseTarget(c.Target); err != nil {
		return nil, nil, err
	}
	if c.Refused != "" {
		refused, err := conformance.ParseTarget(c.Refused)
		if err != nil {
			return nil, nil, err
		}
		o.Refused = &refused
	}
	for _, lack := range c.FarEndLacks {
		if lack != conformance.LackHalfClose && lack != conformance.LackReset {
			return nil, nil, fmt.Errorf("a far end cannot lack %q: %s and %s are known: %w", lack, conformance.LackHalfClose, conformance.LackReset, ErrUnfit)
		}
	}
	return conformance.Run(ctx, o)
}
