package config

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"strconv"
	"time"

	"github.com/tunneld/tunneld/core/internal/auth"
	"github.com/tunneld/tunneld/core/internal/listen"
	"github.com/tunneld/tunneld/core/internal/route"
	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/cidr"
	"github.com/tunneld/tunneld/internal/outbound"
	"github.com/tunneld/tunneld/internal/schema"
	"github.com/tunneld/tunneld/internal/tlsconf"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// Config is a validated configuration. It never changes: a reload builds a new
// one. Every duration and size is a Go value, every default filled in. It holds
// secrets, and prints none of them.
type Config struct {
	Log       Log
	Metrics   Metrics
	Control   Control
	Daemon    Daemon
	Plugins   []Plugin
	Upstreams []Upstream
	Listeners []Listener
	Routes    []Route

	src *source
}

// Format prints the counts of what is configured, whatever the verb.
func (c Config) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "config(%d plugins, %d upstreams, %d listeners, %d routes)",
		len(c.Plugins), len(c.Upstreams), len(c.Listeners), len(c.Routes))
}

// MarshalJSON gives what Format prints, as a JSON text.
func (c Config) MarshalJSON() ([]byte, error) { return json.Marshal(fmt.Sprint(c)) }

// Log is the log block.
type Log struct {
	Level  slog.Level
	Format string // "text" or "json"
	Access bool
}

// Metrics is the metrics block.
type Metrics struct {
	Addresses []string // each "host:port" as written; none: no metrics server
}

// Control is the control block.
type Control struct {
	Address string // "unix:///path" as written; empty: the default
}

// Daemon is the daemon block.
type Daemon struct {
	RunDir          string // empty: the default
	PluginDir       string
	ShutdownDelay   time.Duration
	ShutdownTimeout time.Duration
	DrainTimeout    time.Duration
	MaxConnections  int // 0: from RLIMIT_NOFILE
	// Watch has the daemon reload when a file of the configuration changes.
	Watch bool
}

// Plugin is a plugin block. Env may hold secrets: it is never printed.
type Plugin struct {
	Name    string
	Command []string // Command[0] is an absolute path
	SHA256  string   // in lower case; empty: not pinned
	Files   map[string]string
	Env     map[string]string
	// Wrong says that an error of the block was reported: what follows from it need
	// not be.
	Wrong bool
}

// Format prints the name alone, whatever the verb.
func (p Plugin) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "plugin %q", p.Name) }

// MarshalJSON gives what Format prints, as a JSON text.
func (p Plugin) MarshalJSON() ([]byte, error) { return json.Marshal(fmt.Sprint(p)) }

// DirectType is the type of the built-in upstream, which has no plugin.
const DirectType = "direct"

// Upstream is an upstream block. JSON may hold secrets: it is never printed.
type Upstream struct {
	// Type is the plugin's name, or "direct".
	Type string
	Name string
	// Socket is the tcp block of upstream "direct", and that block's defaults
	// for any other type.
	Socket tunnel.SocketOptions
	// TLS is the tls block of upstream "direct"; nil: there is none.
	TLS *TLS
	// Common is what its common attributes say.
	Common Common
	// JSON is the body of a plugin's upstream as Configure takes it, without the
	// common attributes, and Hash the hash of name and values. Both are empty before
	// DecodeUpstreams. "direct" has no JSON, and its Hash from the beginning.
	JSON []byte
	Hash string
	// Answer is the longest that a dial waits for what the far end says; 0: that is
	// not known.
	Answer time.Duration

	dialTimes []schema.DialTime
}

// TLS is how upstream "direct" speaks TLS to its targets.
type TLS struct {
	Client tlsconf.ClientOptions
	// ServerName is the name to ask for and to check; empty: the target's.
	ServerName string
}

// Common holds the common attributes of an upstream; nil is one that neither the
// block nor the plugin's defaults set.
type Common struct {
	MaxConnections *int // 0: no limit
	// HalfClose stands for the listener's; 0: none.
	HalfClose *time.Duration
	// Via is the proxy that connections go through, and Bind the address that they
	// are made from; zero: none, and any.
	Via  outbound.Via
	Bind netip.Addr
}

// Or returns c with what is not set taken from a plugin's defaults.
func (c Common) Or(d *pluginv1.CommonDefaults) Common {
	if c.MaxConnections == nil && d != nil && d.MaxConnections != nil {
		n := int(d.GetMaxConnections())
		c.MaxConnections = &n
	}
	if c.HalfClose == nil && d.GetHalfClose().IsValid() && d.GetHalfClose().AsDuration() >= 0 {
		t := d.GetHalfClose().AsDuration()
		c.HalfClose = &t
	}
	return c
}

// Wire returns the upstream as it is sent to its plugin. It may hold secrets.
func (u Upstream) Wire() *pluginv1.Upstream {
	w := &pluginv1.Upstream{Name: u.Name, ConfigJson: u.JSON, ConfigHash: u.Hash}
	if via := u.Common.Via.Text(); via != "" || u.Common.Bind.IsValid() {
		w.Common = &pluginv1.CommonValues{Via: via}
		if u.Common.Bind.IsValid() {
			w.Common.Bind = u.Common.Bind.String()
		}
	}
	return w
}

// ID returns "type.name".
func (u Upstream) ID() string { return u.Type + "." + u.Name }

// Format prints the ID alone, whatever the verb.
func (u Upstream) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "upstream %q", u.ID()) }

// MarshalJSON gives what Format prints, as a JSON text.
func (u Upstream) MarshalJSON() ([]byte, error) { return json.Marshal(fmt.Sprint(u)) }

// Listener is a listener block.
type Listener struct {
	Kind string // of listen.Kinds
	Name string
	// Addresses are as written: "host:port", of which a name may stand for several, or
	// "fd://NAME".
	Addresses []string
	listed    bool          // as addresses, and not as address
	Target    tunnel.Target // of kind "tcp" only
	Protocol  listen.Protocol
	TLS       *ListenerTLS // nil: there is no tls block
	Limits    Limits
	Timeout   Timeouts
	Socket    tunnel.SocketOptions
	Backlog   int // 0: the system's
	// Allow are the addresses that clients may come from; empty: any. Deny are those that
	// they may not come from, whatever Allow says.
	Allow, Deny cidr.Set
	// Open says that everybody may use the listener who reaches it.
	Open bool
	Auth auth.Options // zero: clients are not asked who they are
	// DenyTargets and AllowTargets say, where clients name the target, which addresses a
	// direct upstream may then dial: what the first leaves of the second; see targets.Policy.
	DenyTargets, AllowTargets []netip.Prefix
}

// ID returns "kind.name".
func (l Listener) ID() string { return l.Kind + "." + l.Name }

// NamesTarget says whether the clients name the target; of the others the configuration does.
func (l Listener) NamesTarget() bool { return l.kind().NamesTarget }

// TakesRequests says whether clients may send HTTP requests, and want no tunnel.
func (l Listener) TakesRequests() bool { return l.kind().Plain }

// kind is the zero value where the header, which was reported, names none.
func (l Listener) kind() listen.Kind {
	kind, _ := listen.FindKind(l.Kind)
	return kind
}

// AddressPath is where element i of Addresses is written in the block, for
// BlockDiagnostic.
func (l Listener) AddressPath(i int) string {
	if !l.listed {
		return "address"
	}
	return "addresses." + strconv.Itoa(i)
}

// ListenerTLS is the tls block of a listener.
type ListenerTLS struct {
	Server tlsconf.ServerOptions
	// FIN: a direction ends by TCP's end of file, and without close_notify.
	FIN bool
}

// Ends is how the directions of a tunnel end.
func (t ListenerTLS) Ends() tlsconf.Ends { return tlsconf.Ends{FIN: t.FIN, Strict: !t.FIN} }

// Limits is the limits block of a listener; 0 means none.
type Limits struct {
	MaxConnections int
	MaxPerSource   int
	MaxPerUser     int
	MaxRate        int // new connections a second from one source
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
	// Match is the match block, of which the hosts are as written and have been
	// checked. Where there is none, everything matches.
	Match route.Rule
	// Upstreams are the IDs, in order.
	Upstreams []string
}
