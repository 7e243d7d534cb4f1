package pluginhost

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/pluginwire"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// imminent is how near a restart has to be for a dial to wait for it.
const imminent = time.Second

// Plugin is one plugin that is kept running: a process, and after its death
// another, which is configured alike. It is safe for concurrent use.
type Plugin struct {
	host *Host
	spec Spec
	log  *slog.Logger
	// dials holds one element for each dial under way.
	dials chan struct{}
	// config is held, by one element, by whoever changes or restores the
	// generations.
	config chan struct{}

	// stopping is done once the plugin is to end, forced once it has to at once.
	stopping, forced context.Context
	stop, force      context.CancelFunc
	finished         chan struct{} // closed at the supervisor's end; err is valid then
	err              error
	past             sync.WaitGroup // processes that have ended and are being cleared up
	notifying        sync.Mutex
	reporting        sync.Mutex // held while a report is taken, or all are forgotten
	failures         int        // processes in a row that did not last; the supervisor's own

	mu          sync.Mutex
	proc        *Process // nil while there is none that takes calls
	identity    string   // of the last process
	epoch       int      // of the process whose reports count
	info        *pluginv1.GetInfoResponse
	schema      *pluginv1.Block
	status      Status
	since, next time.Time
	restarts    int
	lastExit    string
	lastOutput  string
	lastCause   string        // the line of it that says most
	changed     chan struct{} // closed and replaced whenever status changes
	generations map[uint64][]*pluginv1.Upstream
	refused     map[uint64]string // generations that a restarted process did not take, and why
	statuses    map[upstreamKey]*pluginv1.UpstreamStatus
}

func newPlugin(h *Host, s Spec) *Plugin {
	p := &Plugin{
		host:        h,
		spec:        s,
		log:         h.opts.Log.With("plugin", s.Name),
		dials:       make(chan struct{}, h.opts.MaxDials),
		config:      make(chan struct{}, 1),
		finished:    make(chan struct{}),
		changed:     make(chan struct{}),
		status:      StatusStarting,
		since:       time.Now(),
		generations: make(map[uint64][]*pluginv1.Upstream),
		refused:     make(map[uint64]string),
		statuses:    make(map[upstreamKey]*pluginv1.UpstreamStatus),
	}
	p.stopping, p.stop = context.WithCancel(context.Background())
	p.forced, p.force = context.WithCancel(context.Background())
	return p
}

// begin makes the first start, and leaves nothing behind where it fails.
func (p *Plugin) begin(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.stopping, cancel)()
	proc, err := p.launch(ctx)
	if err != nil {
		p.stop()
		p.force()
		close(p.finished)
		return err
	}
	p.publish(proc)
	go p.supervise(proc)
	return nil
}

// Info returns what the plugin says of itself. It is shared and not to be
// changed.
func (p *Plugin) Info() *pluginv1.GetInfoResponse {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.info
}

// Schema returns what an upstream's body may hold. It is shared and not to be
// changed.
func (p *Plugin) Schema() *pluginv1.Block {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.schema
}

// Identity returns what Identity was of the plugin's spec when its process was
// started, the last one where it has died.
func (p *Plugin) Identity() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.identity
}

// EndsHalfClosed says that the plugin itself ends a tunnel whose client has ended
// its direction, by the HalfClose of its dial: its protocol cannot pass that end
// on, and it alone knows what the far end has taken.
func (p *Plugin) EndsHalfClosed() bool {
	info := p.Info()
	return info.GetNoHalfClose() && slices.Contains(info.GetCapabilities(), pluginwire.HalfCloseClock)
}

// Dialer returns an upstream of a generation that was configured.
func (p *Plugin) Dialer(generation uint64, name string) tunnel.Dialer {
	return &upstream{upstreamName: upstreamName{p.spec.Name, name}, p: p, generation: generation, dials: make(chan struct{}, max(cap(p.dials)/2, 1))}
}

// Stop ends the plugin: SIGTERM to its process group, SIGKILL after StopTimeout
// or once ctx is done. Its relays break off; Drain comes first where they are
// to end by themselves. It returns once nothing of it is left, and may be
// called again.
func (p *Plugin) Stop(ctx context.Context) error {
	p.stop()
	defer context.AfterFunc(ctx, p.force)()
	<-p.finished
	return p.err
}
