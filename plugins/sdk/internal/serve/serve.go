// Package serve is the plugin's side of the plugin protocol: both gRPC
// services, the generations of instances, the descriptor channel and the pump
// of relay tunnels. It knows a plugin only by the interfaces below, which
// package sdk fills in, and runs the same in a plugin's process and, under
// package sdktest, in a test's.
package serve

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"

	"github.com/tunneld/tunneld/internal/pluginwire"
	"github.com/tunneld/tunneld/internal/sockopt"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// Plugin is what is served.
type Plugin struct {
	Info   *pluginv1.GetInfoResponse
	Schema *pluginv1.Block
	// SchemaFor is the schema for a daemon with this table of common names; nil:
	// Schema for each.
	SchemaFor func(table uint32) *pluginv1.Block
	// New makes an instance that has not been given its values.
	New func() Instance
}

// Build makes a Plugin of an sdk.Plugin: package sdk sets it, for package sdktest, which
// has no other way to what an author's plugin is made into. Its error names everything
// that is wrong with the plugin.
var Build func(plugin any) (Plugin, error)

// Instance is one upstream's configuration. Decode comes first and once; then
// Validate, Start, Dial by many goroutines, and Close once.
type Instance interface {
	// Decode takes the values over.
	Decode(u *pluginv1.Upstream) []*pluginv1.Diagnostic
	// Validate checks them, without side effects.
	Validate() []*pluginv1.Diagnostic
	// Defaults are those of the common attributes; asked after Validate.
	Defaults() *pluginv1.CommonDefaults
	Start(env Env) error
	// Dial makes a connection. The error is one of the plugin's code, such as a
	// panic: it says nothing of the far end.
	Dial(ctx context.Context, req *pluginv1.DialRequest) (Dialed, error)
	Close() error
}

// Dialed is what became of a dial: exactly one of Tunnel and Failure is set.
type Dialed struct {
	Tunnel  *Tunnel
	Failure *pluginv1.DialError
	Stages  []*pluginv1.StageTime
}

// Env is what an instance is given at its start.
type Env struct {
	Upstream string
	Log      *slog.Logger
	// Report takes the state; name and hash of the upstream are filled in.
	Report func(*pluginv1.UpstreamStatus)
	// Watch takes each TCP socket that the plugin makes, and where it leads. It is
	// reset once its line is dead.
	Watch func(remote string, c syscall.RawConn)
}

// Tunnel is a connection that an instance made; it is the server's.
type Tunnel struct {
	// Conn is the kernel socket of a direct tunnel, or nil.
	Conn syscallConn
	// Prefetched are bytes that come before Conn's.
	Prefetched []byte
	// Relay is called, once, where the tunnel is relayed: always without a
	// Conn, and with one as the fallback. Then it reads Prefetched first.
	Relay func() Stream
	// Socket is the TCP connection under the stream that Relay returns, or nil
	// where it is not known.
	Socket        syscall.Conn
	Local, Remote string
}

// Stream has the methods of sdk.Stream, and their contract.
type Stream interface {
	io.Reader
	io.Writer
	CloseWrite() error
	Close() error
	Abort(reason string)
}

// Options are the server's surroundings.
type Options struct {
	// Channel is the plugin's end of the descriptor channel; the server's from
	// here on.
	Channel *pluginwire.Channel
	Log     *slog.Logger
	// MaxDials bounds the dials in flight; 0: DefaultMaxDials.
	MaxDials int
	// DeadLine is how long a far end's system may acknowledge nothing; 0:
	// sockopt.DeadLineLimit. It is looked for twelve times in that time.
	DeadLine time.Duration
	// Acks reads a socket's acknowledgements; nil: sockopt.ReadAcks.
	Acks func(fd uintptr) (sockopt.Acks, bool)
	// AnnounceTimeout bounds the wait for the record that explains an end of
	// file; 0: DefaultAnnounceTimeout.
	AnnounceTimeout time.Duration
}

// Bounds on what the daemon may ask for.
const (
	// DefaultMaxDials is how many dials may be in flight.
	DefaultMaxDials = 1024
	// maxDialTime bounds a dial whose call has no deadline.
	maxDialTime = 5 * time.Minute
	// DefaultAnnounceTimeout is long: the record was sent before what it
	// explains, so that only a stalled process is late.
	DefaultAnnounceTimeout = 5 * time.Second
	// takeTime is how long a client may take nothing that has ended its direction,
	// where the far end cannot learn of that.
	takeTime = time.Minute
)

// Server serves one plugin to one daemon.
type Server struct {
	pluginv1.UnimplementedPluginServiceServer
	pluginv1.UnimplementedTunnelServiceServer

	plugin   Plugin
	channel  *pluginwire.Channel
	log      *slog.Logger
	maxDials int
	// commonNames is the daemon's table of common names, as GetInfo told.
	commonNames atomic.Uint32
	announce    time.Duration
	takeTime    time.Duration // see relay.deliver

	// ctx ends when the server stops: dials are cancelled by it.
	ctx  context.Context
	stop context.CancelFunc
	// gone is closed once the channel has ended: no record comes any more.
	gone chan struct{}

	// configuring is held, as a semaphore, by whoever changes generations.
	configuring chan struct{}

	mu          sync.Mutex
	draining    bool
	stopped     bool
	generations map[uint64]map[string]*instance
	instances   map[instanceKey]*instance
	inflight    map[uint64]struct{} // tokens of dials
	relays      map[uint64]*relay
	closing     int           // instances whose Close runs
	changed     chan struct{} // closed and replaced when one of the above shrinks

	status statusBoard
	lines  lines
}

// New starts a server: from here on it reads the channel. Stop ends it.
func New(p Plugin, o Options) *Server {
	if o.MaxDials == 0 {
		o.MaxDials = DefaultMaxDials
	}
	if o.AnnounceTimeout == 0 {
		o.AnnounceTimeout = DefaultAnnounceTimeout
	}
	if o.DeadLine == 0 {
		o.DeadLine = sockopt.DeadLineLimit
	}
	if o.Acks == nil {
		o.Acks = sockopt.ReadAcks
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &Server{
		plugin:      p,
		channel:     o.Channel,
		log:         o.Log,
		maxDials:    o.MaxDials,
		announce:    o.AnnounceTimeout,
		takeTime:    takeTime,
		lines:       lines{limit: o.DeadLine, every: o.DeadLine / 12, acks: o.Acks, start: time.Now()},
		ctx:         ctx,
		stop:        stop,
		gone:        make(chan struct{}),
		configuring: make(chan struct{}, 1),
		generations: make(map[uint64]map[string]*instance),
		instances:   make(map[instanceKey]*instance),
		inflight:    make(map[uint64]struct{}),
		relays:      make(map[uint64]*relay),
		changed:     make(chan struct{}),
	}
	go s.receive()
	return s
}

// Register puts the services on a gRPC server.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	pluginv1.RegisterPluginServiceServer(r, s)
	pluginv1.RegisterTunnelServiceServer(r, s)
}

// ServerOptions are the limits that a gRPC server of this protocol has, and
// the net under handlers that panic.
func ServerOptions(log *slog.Logger) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(pluginwire.MaxMessage),
		grpc.MaxSendMsgSize(pluginwire.MaxMessage),
		// Dials find a goroutine whose stack has grown; one more than these gets
		// its own.
		grpc.NumStreamWorkers(8),
		grpc.ChainUnaryInterceptor(recoverUnary(log)),
		grpc.ChainStreamInterceptor(recoverStream(log)),
	}
}

// Gone is closed when the daemon has closed its end of the channel or has
// died.
func (s *Server) Gone() <-chan struct{} { return s.gone }

// Stop refuses what is new, cancels the dials, aborts the relays, closes the
// instances and the channel, and waits for all of it until ctx is done. What
// then still runs is code of the plugin that ignores its cancellation. It may
// be called again.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	s.draining, s.stopped = true, true
	relays := s.openRelays()
	s.mu.Unlock()
	s.stop()
	s.lines.stop()
	for _, r := range relays {
		go r.end(errors.New("the plugin stops"), tellDaemon)
	}
	err := s.wait(ctx, func() bool { return len(s.inflight) == 0 && len(s.relays) == 0 })
	s.releaseAll()
	err = errors.Join(err, s.wait(ctx, func() bool { return s.closing == 0 && len(s.instances) == 0 }))
	if closeErr := s.channel.Close(); !errors.Is(closeErr, net.ErrClosed) {
		err = errors.Join(err, closeErr)
	}
	<-s.gone
	return err
}

// openRelays is called with mu held.
func (s *Server) openRelays() []*relay {
	relays := make([]*relay, 0, len(s.relays))
	for _, r := range s.relays {
		relays = append(relays, r)
	}
	return relays
}

// wait returns nil once the condition, which is called with mu held, is true.
func (s *Server) wait(ctx context.Context, condition func() bool) error {
	for {
		s.mu.Lock()
		done, changed := condition(), s.changed
		s.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// shrunk wakes those who wait. It is called with mu held.
func (s *Server) shrunk() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// receive reads the daemon's records until the channel ends.
func (s *Server) receive() {
	defer s.orphan()
	for {
		got, err := s.channel.Receive()
		var bad *pluginwire.BadRecordError
		switch {
		case errors.As(err, &bad):
			s.log.Warn("the daemon sent a record that cannot be used", "err", err)
			continue
		case err != nil:
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				s.log.Error("cannot read the descriptor channel", "err", err)
			}
			return
		}
		if got.Descriptor != nil {
			got.Descriptor.Close()
		}
		s.mu.Lock()
		r := s.relays[got.Token]
		s.mu.Unlock()
		if r == nil {
			continue // a record that crossed our END
		}
		switch got.Kind {
		case pluginwire.EOF:
			r.announced()
		case pluginwire.Abort:
			// Not here: Stream.Abort is the plugin's code and may take its time.
			go r.end(abortError(got.Text), keepQuiet)
		}
	}
}

// orphan ends what depends on a daemon that is gone.
func (s *Server) orphan() {
	close(s.gone)
	s.mu.Lock()
	s.draining = true
	relays := s.openRelays()
	s.mu.Unlock()
	for _, r := range relays {
		go r.end(errors.New("the daemon is gone"), keepQuiet)
	}
}
