package sdktest_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest/fixture"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// counted counts what happens to the instances of a plugin.
type counted struct {
	Value string `tunneld:"value"`

	c *counts
}

type counts struct {
	made, validated, started, closed, dialing atomic.Int64
	release                                   chan struct{} // dials wait for it
	envs                                      chan *sdk.Env
}

func (c *counted) Validate() []sdk.Diagnostic { c.c.validated.Add(1); return nil }

func (c *counted) Start(env *sdk.Env) error {
	c.c.started.Add(1)
	if c.Value == "refuse" {
		return errors.New("told to refuse")
	}
	env.Report(sdk.Status{Health: sdk.HealthOK})
	c.c.envs <- env
	return nil
}

func (c *counted) Close() error { c.c.closed.Add(1); return nil }

func (c *counted) Dial(context.Context, *sdk.Request) (*sdk.Tunnel, error) {
	c.c.dialing.Add(1)
	<-c.c.release
	return nil, &sdk.DialError{Reason: sdk.ReasonDenied, Message: "released"}
}

func countedPlugin() (sdk.Plugin, *counts) {
	c := &counts{release: make(chan struct{}), envs: make(chan *sdk.Env, 16)}
	return sdk.Plugin{Name: "counted", Version: "1", New: func() sdk.Dialer { c.made.Add(1); return &counted{c: c} }}, c
}

func upstreams(pairs ...string) []*pluginv1.Upstream {
	var ups []*pluginv1.Upstream
	for i := 0; i < len(pairs); i += 2 {
		ups = append(ups, &pluginv1.Upstream{
			Name:       pairs[i],
			ConfigJson: []byte(`{"value":"` + pairs[i+1] + `"}`),
			ConfigHash: pairs[i] + pairs[i+1],
		})
	}
	return ups
}

func configure(t *testing.T, s *sdktest.Plugin, generation uint64, pairs ...string) ([]*pluginv1.Diagnostic, error) {
	t.Helper()
	resp, err := s.Control().Configure(bounded(t), &pluginv1.ConfigureRequest{Generation: generation, Upstreams: upstreams(pairs...)})
	return resp.GetDiagnostics(), err
}

func mustConfigure(t *testing.T, s *sdktest.Plugin, generation uint64, pairs ...string) {
	t.Helper()
	if ds, err := configure(t, s, generation, pairs...); err != nil || len(ds) != 0 {
		t.Fatalf("configure: %v, %v", ds, err)
	}
}

func release(t *testing.T, s *sdktest.Plugin, generation uint64) {
	t.Helper()
	if _, err := s.Control().Release(bounded(t), &pluginv1.ReleaseRequest{Generation: generation}); err != nil {
		t.Fatal(err)
	}
}

// An upstream that a reload leaves alone keeps its instance; it is started
// once, and closed once no generation holds it and no dial is in flight.
func TestInstancesAreShared(t *testing.T) {
	p, c := countedPlugin()
	s := sdktest.Start(t, p)
	mustConfigure(t, s, 1, "a", "1", "b", "1")
	mustConfigure(t, s, 2, "a", "1", "b", "2")
	if n := c.started.Load(); n != 3 {
		t.Errorf("%d instances were started, want 3", n)
	}
	release(t, s, 1)
	eventually(t, "b's first instance is closed", func() bool { return c.closed.Load() == 1 })

	dialed := make(chan error, 1)
	go func() {
		_, err := s.Tunnels().Dial(bounded(t), &pluginv1.DialRequest{Generation: 2, Upstream: "a", Token: 1, Target: &pluginv1.Target{Host: "t"}})
		dialed <- err
	}()
	eventually(t, "the dial is in flight", func() bool { return c.dialing.Load() == 1 })
	release(t, s, 2)
	eventually(t, "b's second instance is closed", func() bool { return c.closed.Load() == 2 })
	close(c.release)
	if err := <-dialed; err != nil {
		t.Error(err)
	}
	eventually(t, "a's instance is closed", func() bool { return c.closed.Load() == 3 })
	s.Stop(t)
	if n := c.closed.Load(); n != 3 {
		t.Errorf("%d closes, want 3", n)
	}
}

func TestConfigureIsAllOrNothing(t *testing.T) {
	p, c := countedPlugin()
	s := sdktest.Start(t, p)
	mustConfigure(t, s, 1, "a", "1")
	if _, err := configure(t, s, 1, "a", "1"); status.Code(err) != codes.AlreadyExists {
		t.Errorf("a generation twice: %v", err)
	}
	ds, err := configure(t, s, 2, "a", "1", "b", "1", "c", "refuse")
	if err != nil || len(ds) != 1 || ds[0].GetUpstream() != "c" || !strings.Contains(ds[0].GetSummary(), "told to refuse") {
		t.Errorf("a start that fails: %v, %v", ds, err)
	}
	if n := c.closed.Load(); n != 1 {
		t.Errorf("%d closes, want b's alone", n)
	}
	if _, err := s.Tunnels().Dial(bounded(t), &pluginv1.DialRequest{Generation: 2, Upstream: "a", Token: 1, Target: &pluginv1.Target{Host: "t"}}); status.Code(err) != codes.NotFound {
		t.Errorf("a dial in a refused generation: %v", err)
	}
	mustConfigure(t, s, 2, "a", "1", "b", "1")
	for name, req := range map[string]*pluginv1.ConfigureRequest{
		"no generation": {Upstreams: upstreams("a", "1")},
		"twice":         {Generation: 3, Upstreams: upstreams("a", "1", "a", "2")},
		"no hash":       {Generation: 3, Upstreams: []*pluginv1.Upstream{{Name: "a", ConfigJson: []byte("{}")}}},
		"no name":       {Generation: 3, Upstreams: upstreams("", "1")},
	} {
		if _, err := s.Control().Configure(bounded(t), req); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	release(t, s, 77)
	s.Stop(t)
	if n := c.closed.Load(); n != 3 {
		t.Errorf("%d closes, want 3", n)
	}
}

func TestDiagnostics(t *testing.T) {
	s := sdktest.Start(t, fixture.Direct())
	for name, tc := range map[string]struct {
		values map[string]any
		want   sdk.Diagnostic
	}{
		"unknown":  {map[string]any{"adress": "x"}, sdk.Diagnostic{Path: []string{"adress"}, Summary: `Unknown attribute or block "adress"`, Detail: "The schema does not have it."}},
		"type":     {map[string]any{"print": 5}, sdk.Diagnostic{Path: []string{"print"}, Summary: `Wrong value for "print"`, Detail: "Its JSON must be a string, not a number."}},
		"required": {map[string]any{"fail": map[string]any{}}, sdk.Diagnostic{Path: []string{"fail", "reason"}, Summary: `Missing attribute "reason"`, Detail: "It is required here."}},
		"validate": {map[string]any{"invalid": "no"}, sdk.Diagnostic{Path: []string{"invalid"}, Summary: "no", Detail: "Leave it out."}},
		"panic":    {map[string]any{"panic_in": "validate"}, sdk.Diagnostic{Summary: "the plugin failed while it checked the configuration", Detail: "This is a mistake in the plugin; its log has the details."}},
		"warning":  {map[string]any{"warn": "careful"}, sdk.Diagnostic{Warning: true, Path: []string{"warn"}, Summary: "careful"}},
	} {
		for kind, ds := range map[string][]sdk.Diagnostic{
			"validate":  s.Validate(t, "up", tc.values),
			"configure": s.TryConfigure(t, "up", tc.values),
		} {
			if len(ds) != 1 {
				t.Errorf("%s, %s: %v", name, kind, ds)
				continue
			}
			if got := ds[0]; got.Warning != tc.want.Warning || got.Summary != tc.want.Summary || got.Detail != tc.want.Detail || !slices.Equal(got.Path, tc.want.Path) {
				t.Errorf("%s, %s: %+v, want %+v", name, kind, got, tc.want)
			}
		}
	}
	ds := s.TryConfigure(t, "up", map[string]any{"panic_in": "start"})
	if len(ds) != 1 || !strings.Contains(ds[0].Summary, "cannot start") {
		t.Errorf("a panic in Start: %v", ds)
	}
}

func TestValidateKeepsNothing(t *testing.T) {
	p, c := countedPlugin()
	s := sdktest.Start(t, p)
	s.Validate(t, "a", map[string]any{"value": "1"})
	if c.validated.Load() != 1 || c.started.Load() != 0 {
		t.Errorf("%d validated, %d started", c.validated.Load(), c.started.Load())
	}
}

func TestStatus(t *testing.T) {
	p, c := countedPlugin()
	s := sdktest.Start(t, p)
	stream, err := s.Control().WatchStatus(bounded(t), &pluginv1.WatchStatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	next := func() []*pluginv1.UpstreamStatus {
		t.Helper()
		resp, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetUpstreams()
	}
	if ups := next(); len(ups) != 0 {
		t.Errorf("at first: %v", ups)
	}
	u := s.Configure(t, "a", map[string]any{"value": "1"})
	env := <-c.envs
	if ups := next(); len(ups) != 1 || ups[0].GetHealth() != pluginv1.Health_HEALTH_OK || ups[0].GetName() != "a" || ups[0].GetConfigHash() == "" {
		t.Errorf("a new upstream: %v", ups)
	}
	expires := time.Now().Add(time.Hour).Truncate(time.Second).UTC()
	for range 10_000 { // never blocks, whoever watches
		env.Report(sdk.Status{Health: sdk.HealthOK})
		env.Report(sdk.Status{Health: sdk.HealthFailing})
	}
	env.Report(sdk.Status{Health: sdk.HealthFailing, Message: "last", CredentialExpires: expires})
	st := u.AwaitStatus(bounded(t), t, func(st sdk.Status) bool { return st.Message == "last" })
	if st.Health != sdk.HealthFailing || !st.CredentialExpires.Equal(expires) || !st.CredentialRenewed.IsZero() {
		t.Errorf("status is %+v", st)
	}
	var last *pluginv1.UpstreamStatus
	for last.GetMessage() != "last" {
		last = next()[0]
	}
	u.Release(t)
	eventually(t, "the upstream is closed", func() bool { return c.closed.Load() == 1 })
	env.Report(sdk.Status{Health: sdk.HealthOK, Message: "after the end"})
	again, err := s.Control().WatchStatus(bounded(t), &pluginv1.WatchStatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := again.Recv(); err != nil || len(resp.GetUpstreams()) != 0 {
		t.Errorf("after the release: %v, %v", resp, err)
	}
	s.Stop(t)
	if _, err := stream.Recv(); err == nil {
		t.Error("the stream outlives the plugin")
	}
}
