package sdk

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
)

type nothing struct{}

func (*nothing) Dial(context.Context, *Request) (*Tunnel, error) { return nil, nil }

// TestWhatAProtocolCannotDo: the daemon is told under the names of the plugin
// protocol, docs/plugin-protocol.md.
func TestWhatAProtocolCannotDo(t *testing.T) {
	p := Plugin{Name: "acme", Version: "1", New: func() Dialer { return new(nothing) }}
	built, err := p.build()
	if err != nil {
		t.Fatal(err)
	}
	if built.Info.GetNoHalfClose() || len(built.Info.GetCapabilities()) != 0 {
		t.Errorf("%v", built.Info)
	}
	p.NoHalfClose, p.NoTargetAnswer, p.NoGreeting, p.NoAbort, p.NoReset = true, true, true, true, true
	if built, err = p.build(); err != nil {
		t.Fatal(err)
	}
	want := []string{"no_target_answer", "no_greeting", "no_abort", "no_reset", "half_close_clock"}
	if !built.Info.GetNoHalfClose() || !slices.Equal(built.Info.GetCapabilities(), want) {
		t.Errorf("%v", built.Info)
	}
}

type commonName struct {
	nothing
	HalfClose string `tunneld:"half_close" doc:"of its own"`
}

// TestCommonNamesAreTheDaemons: a schema with one of them is not built.
func TestCommonNamesAreTheDaemons(t *testing.T) {
	p := Plugin{Name: "acme", Version: "1", New: func() Dialer { return new(commonName) }}
	if _, err := p.build(); err == nil || !strings.Contains(err.Error(), `"half_close": this attribute of every upstream`) {
		t.Errorf("built: %v", err)
	}
}

type withDefaults struct {
	nothing
	d Defaults
}

func (w *withDefaults) Defaults() Defaults { return w.d }

// TestDefaults: what a type does not say is a second where its protocol cannot
// end one direction alone, and else the daemon's.
func TestDefaults(t *testing.T) {
	for _, c := range []struct {
		noHalfClose bool
		own         Defaults
		connections *uint32
		halfClose   time.Duration // 0: the daemon's
	}{
		{false, Defaults{}, nil, 0},
		{true, Defaults{}, nil, time.Second},
		{true, Defaults{MaxConnections: 7}, proto.Uint32(7), time.Second},
		{true, Defaults{HalfClose: time.Minute}, nil, time.Minute},
		{false, Defaults{MaxConnections: 7, HalfClose: time.Minute}, proto.Uint32(7), time.Minute},
	} {
		built, err := Plugin{Name: "acme", Version: "1", NoHalfClose: c.noHalfClose, New: func() Dialer { return &withDefaults{d: c.own} }}.build()
		if err != nil {
			t.Fatal(err)
		}
		if built.Info.GetCommonNames() == 0 {
			t.Error("the daemon is not told which names the SDK knows")
		}
		got := built.New().Defaults()
		same := got.MaxConnections == nil && c.connections == nil || got.MaxConnections != nil && c.connections != nil && *got.MaxConnections == *c.connections
		if !same || got.GetHalfClose().AsDuration() != c.halfClose {
			t.Errorf("%+v: %v", c, got)
		}
	}
}
