package conformance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/tunneld/tunneld/core/conformance/internal/poll"
	"github.com/tunneld/tunneld/core/conformance/internal/proc"
	"github.com/tunneld/tunneld/core/internal/pluginhost"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// firstGeneration is the one that every instance is configured with.
const firstGeneration = 1

// stopTime is what a plugin has to end, and the grace for a busy machine.
const (
	stopTime  = 2 * time.Second
	stopGrace = 2 * time.Second
)

// instance is a process of the plugin, with a host of its own.
type instance struct {
	*pluginhost.Process
	host   *pluginhost.Host
	ledger *ledger
	dialed atomic.Uint64 // see dialRaw
}

// launch starts the plugin. It is given its configuration by configure.
func (r *run) launch(ctx context.Context) (*instance, error) {
	i := &instance{ledger: newLedger()}
	// What the host says of the plugin is in the errors.
	log := slog.New(slog.DiscardHandler)
	var err error
	i.host, err = pluginhost.New(pluginhost.Options{Log: log, CoreVersion: r.opts.Version, Self: r.opts.Self})
	if err != nil {
		return nil, err
	}
	i.Process, err = i.host.Launch(ctx, pluginhost.Launch{
		Spec:    r.spec,
		Log:     log,
		Watcher: watcher{&r.said, i.ledger},
		Calls:   append(pluginhost.Cleaned(), grpc.WithStatsHandler(heard{&r.said})),
	})
	if err != nil {
		return nil, errors.Join(err, i.host.Close(context.WithoutCancel(ctx)))
	}
	return i, nil
}

// another starts a further instance with the configuration, for checks that
// end it.
func (r *run) another(ctx context.Context) (*instance, error) {
	i, err := r.launch(ctx)
	if err != nil || r.level < levelValid {
		return i, err
	}
	if err := r.configure(ctx, i, firstGeneration); err != nil {
		r.retire(i)
		return nil, err
	}
	return i, nil
}

// configure adds a generation of the one upstream.
func (r *run) configure(ctx context.Context, i *instance, generation uint64) error {
	return configureWith(ctx, i, generation, r.up)
}

func configureWith(ctx context.Context, i *instance, generation uint64, up *pluginv1.Upstream) error {
	got, err := i.Service().Configure(ctx, &pluginv1.ConfigureRequest{Generation: generation, Upstreams: []*pluginv1.Upstream{up}})
	if err != nil {
		return err
	}
	if wrong := errorsIn(got.GetDiagnostics()); len(wrong) > 0 {
		return fmt.Errorf("configure generation %d: %s", generation, wrong[0])
	}
	return nil
}

// dialRaw sends a request as it is, but for its token, and takes nothing that is
// handed over for it, which the process closes: it is for dials that have to fail.
func (i *instance) dialRaw(ctx context.Context, req *pluginv1.DialRequest) (*pluginv1.DialResponse, error) {
	req.Token = 1<<62 + i.dialed.Add(1) // which the process does not give out
	return i.Tunnels().Dial(ctx, req)
}

// release drops a generation.
func (i *instance) release(ctx context.Context, generation uint64) error {
	_, err := i.Service().Release(ctx, &pluginv1.ReleaseRequest{Generation: generation})
	return err
}

// retire stops an instance and keeps what is to be said of it in the end.
func (r *run) retire(i *instance) {
	if i.host == nil {
		return
	}
	family := proc.Family(i.PID())
	begun := time.Now()
	err := i.Terminate(context.Background(), r.opts.stop)
	err = errors.Join(err, i.host.Close(context.Background()))
	if took := time.Since(begun); took >= r.opts.stop {
		r.stops = append(r.stops, fmt.Sprintf("it was still running %s after SIGTERM, and was killed", r.opts.stop))
	}
	if err != nil {
		r.stops = append(r.stops, err.Error())
	}
	r.leave(family)
	r.records = append(r.records, i.ledger.findings()...)
	i.host = nil
}

// leave keeps those of a family that are still alive, and ends them.
func (r *run) leave(family []proc.Process) {
	var left []proc.Process
	poll.Until(context.Background(), 2*time.Second, func() bool {
		left = slices.DeleteFunc(slices.Clone(family), func(p proc.Process) bool { return !p.Alive() })
		return len(left) == 0
	})
	for _, p := range left {
		p.Kill()
	}
	r.left = append(r.left, left...)
}
