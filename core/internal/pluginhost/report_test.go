package pluginhost

import (
	"errors"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"testing"

	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// TestNothingIsReportedOfALostProcess: whoever is told that a process is lost, or was not
// put to use, is told nothing that it has said any more, also where it says so just then.
func TestNothingIsReportedOfALostProcess(t *testing.T) {
	var mu sync.Mutex
	var told []string
	note := func(what string) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, what)
	}
	var lost sync.WaitGroup
	h := &Host{opts: Options{
		Log:      slog.New(slog.DiscardHandler),
		MaxDials: 1,
		OnReport: func(p *Plugin, _ []*pluginv1.UpstreamStatus) {
			lost.Go(func() { p.failed(errors.New("it does not start")) })
			for range 1000 { // which lets it run, if it can
				runtime.Gosched()
			}
			note("report")
		},
		OnLost: func(*Plugin) { note("lost") },
	}}
	for range 10 {
		told = nil
		p := newPlugin(h, Spec{})
		for range 2 { // the second is of a process that is lost
			p.report(0, []*pluginv1.UpstreamStatus{{Name: "u"}})
			lost.Wait()
		}
		if !slices.Equal(told, []string{"report", "lost"}) || len(p.statuses) > 0 {
			t.Fatalf("told %q, and %d reports are kept", told, len(p.statuses))
		}
	}
}
