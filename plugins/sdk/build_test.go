package sdk

import (
	"context"
	"slices"
	"testing"
)

type nothing struct{}

func (*nothing) Dial(context.Context, *Request) (*Tunnel, error) { return nil, nil }

// TestWhatAProtocolCannotDo: the daemon is told under the names of the plugin
// protocol, docs/plugin-protocol.md.
func TestWhatAProtocolCannotDo(t *testing.T) {
	p := Plugin{Name: "acme", Version: "1", New: func() Dialer { return new(nothing) }}
	built, err := p.Build()
	if err != nil {
		t.Fatal(err)
	}
	if built.Info.GetNoHalfClose() || len(built.Info.GetCapabilities()) != 0 {
		t.Errorf("%v", built.Info)
	}
	p.NoHalfClose, p.NoTargetAnswer, p.NoGreeting, p.NoAbort, p.NoReset = true, true, true, true, true
	if built, err = p.Build(); err != nil {
		t.Fatal(err)
	}
	want := []string{"no_target_answer", "no_greeting", "no_abort", "no_reset", "half_close_clock"}
	if !built.Info.GetNoHalfClose() || !slices.Equal(built.Info.GetCapabilities(), want) {
		t.Errorf("%v", built.Info)
	}
}
