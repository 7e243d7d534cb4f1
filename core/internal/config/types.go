package config

import (
	"log/slog"
	"time"

	"github.com/tunneld/tunneld/core/internal/tunnel"
)

// Config is a validated configuration. It never changes: a reload builds a new
// one. Every duration and size is a Go value, every default filled in.
type Config struct {
	Log       Log
	Daemon    Daemon
	Plugins   []Plugin
	Upstreams []Upstream
	Listeners []Listener
	Routes    []Route
}

// Log is the log block.
type Log struct {
	Level  slog.Level
	Format string // "text" or "json"
	Access bool
}

// Daemon is the daemon block.
type Daemon struct {
	RunDir          string // empty: the default
	PluginDir       string
	ShutdownTimeout time.Duration
	DrainTimeout    time.Duration
	MaxConnections  int // 0: from RLIMIT_NOFILE
}

// Plugin is a plugin block. Env may hold secrets: it is never printed.
type Plugin struct {
	Name    string
	Command []string
	SHA256  string
	Files   map[string]string
	Env     map[string]string
}

// Upstream is an upstream block.
type Upstream struct {
	// Type is the plugin's name, or "direct".
	Type string
	Name string
	// Socket is the tcp block of upstream "direct".
	Socket tunnel.SocketOptions
	// JSON is the body of a plugin's upstream as Configure takes it, and Hash
	// the hash of name and values. Both are empty before DecodeUpstreams.
	JSON []byte
	Hash string
}

// ID returns "type.name".
func (u Upstream) ID() string { return u.Type + "." + u.Name }

// Listener is a listener block.
type Listener struct {
	Kind    string // "tcp"
	Name    string
	Address string // "host:port" as written
	Target  tunnel.Target
	Limits  Limits
	Timeout Timeouts
	Socket  tunnel.SocketOptions
	Backlog int // 0: the system's
	Open    bool
}

// ID returns "kind.name".
func (l Listener) ID() string { return l.Kind + "." + l.Name }

// Limits is the limits block of a listener; 0 means none.
type Limits struct {
	MaxConnections int
	MaxPerSource   int
}

// Timeouts is the timeouts block of a listener; 0 means none.
type Timeouts struct {
	Handshake time.Duration
	Dial      time.Duration
	Idle      time.Duration
	HalfClose time.Duration
	Lifetime  time.Duration
}

// Route is a route block.
type Route struct {
	Name string
	// Match is nil where the block has none: everything matches.
	Match *Match
	// Upstreams are the IDs, in order.
	Upstreams []string
}

// Match is the match block of a route. All that is given must hold; within one,
// any. Hosts are as written and have been checked: a name, a glob or a CIDR.
type Match struct {
	Listeners []string // IDs
	Hosts     []string
	Ports     []PortRange
}

// PortRange is From to To, both included.
type PortRange struct {
	From, To uint16
}
