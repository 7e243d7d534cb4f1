// Package sdk is what a plugin's author imports. A plugin is a struct, which is
// the configuration of one upstream block, with a Dial method:
//
//	type Config struct {
//		Proxy    string     `tunneld:"proxy,required" doc:"host:port of the proxy"`
//		Password sdk.Secret `tunneld:"password" doc:"the proxy's password"`
//	}
//
//	func (c *Config) Dial(ctx context.Context, req *sdk.Request) (*sdk.Tunnel, error) {
//		conn, err := req.Connect(ctx, c.Proxy)
//		…
//		return sdk.Direct(conn, nil), nil
//	}
//
//	func main() {
//		os.Exit(sdk.Serve(sdk.Plugin{Name: "acme", Version: "1.0.0", New: func() sdk.Dialer { return new(Config) }}))
//	}
//
// Everything else is the daemon's: listeners, routes, limits, moving the bytes,
// metrics, reload. The package does not parse configuration files; values
// arrive checked and defaulted.
package sdk

import (
	"context"
	"log/slog"
	"time"
)

// Plugin describes a plugin. Name, Version and New are required.
type Plugin struct {
	// Name is what stands in upstream "NAME" "…": ^[a-z][a-z0-9_]{0,31}$.
	Name    string
	Version string
	// Summary is one line on what the plugin is for.
	Summary string
	// New returns a pointer to a new, zero configuration struct. Its fields are
	// the schema; see SchemaOf for their tags. Besides Dialer it may implement
	// Validator, Defaulter, Starter and io.Closer. Close is called once, on an instance
	// that has started, when no generation of the configuration has it any more
	// and all its dials have returned; tunnels outlive it.
	New func() Dialer
	// Targets says which targets the upstreams take; zero: not told. A listener with
	// a label for its target, and a route whose upstreams all need a port, are an
	// error of the configuration.
	Targets Targets
	// NoHalfClose says that the protocol cannot end one direction alone. A
	// client's end of file then reaches CloseWrite all the same, and the far
	// end's ends the tunnel. So does the upstream's half_close, DefaultHalfClose
	// unless set: that long after CloseWrite has returned, or after the last byte
	// from the far end that came later, the tunnel is closed, as a clean end.
	NoHalfClose bool
	// NoTargetAnswer says that the protocol does not tell whether the target was
	// reached: the dial succeeds, and the tunnel to a target that refuses ends.
	NoTargetAnswer bool
	// NoGreeting says that the far end connects to the target only once the
	// client has sent something: a target that speaks first is not heard.
	NoGreeting bool
	// NoAbort says that the protocol has one end for all: the target cannot tell
	// a tunnel that was broken off from one that ended cleanly.
	NoAbort bool
	// NoReset says the same of the other direction: the plugin cannot tell a
	// tunnel that the far end broke off, or died in, from one that ended cleanly.
	NoReset bool
}

// Targets says whether a target can be a label, without a port.
type Targets int

// The kinds of targets.
const (
	// TargetsWithPort are hosts and ports.
	TargetsWithPort Targets = iota + 1
	// TargetsOrLabels are these, and labels.
	TargetsOrLabels
)

// Dialer makes connections through one configured upstream. An instance lives
// as long as a generation of the configuration has an upstream of that name and
// those values: what it caches is kept over a reload that leaves them alone.
type Dialer interface {
	// Dial connects to req.Target and returns once bytes can flow both ways and
	// not before. It is called by many goroutines at once, and must return soon
	// after ctx is done. On an error it leaves nothing open. An error should be
	// a *DialError; any other is classified by the stage that req.Enter last
	// named and by what it wraps, and its text is sent on: no secret in it.
	// Where the listener's time for the dial is over, context.Cause(ctx) says so.
	Dial(ctx context.Context, req *Request) (*Tunnel, error)
}

// Validator checks what the schema cannot, and runs only where the values fit the
// schema. It has no side effects: it neither
// dials nor keeps anything, and is called on an instance that may never be
// used. No text of a diagnostic may hold a secret.
type Validator interface {
	Validate() []Diagnostic
}

// Noter is asked, once the values are known to be right, for what a new version of
// the plugin does otherwise with them, and how to have it as before. Nothing is
// wrong: users read it in "tunneld validate" and in the log of a start.
type Noter interface {
	Notes() []Diagnostic
}

// Defaulter is asked for the defaults of the common attributes, which are the
// daemon's and which every upstream has, once the values are known to be right.
type Defaulter interface {
	Defaults() Defaults
}

// Defaults are those of common attributes, for one upstream that leaves them
// out. A zero field leaves the daemon's default.
type Defaults struct {
	// MaxConnections is the most connections at a time through the upstream.
	MaxConnections int
	// HalfClose is for how long a tunnel goes on without a byte from the far end
	// once the client has ended its direction; see Plugin.NoHalfClose.
	HalfClose time.Duration
}

// DefaultHalfClose is the half_close of a plugin with NoHalfClose that names no
// other.
const DefaultHalfClose = time.Second

// Starter is told when an instance is about to be used: once, before its first
// Dial. It must not block; background work that it begins ends with Close.
type Starter interface {
	Start(env *Env) error
}

// Env is what an instance is given at its start. All of it may be used by
// several goroutines at once.
type Env struct {
	// Upstream is the name of the upstream block.
	Upstream string
	// Log goes to the daemon's log with the upstream's name.
	Log *slog.Logger
	// Report tells the upstream's state to the daemon. It does not block; the
	// newest report wins.
	Report func(Status)
	// Outbound makes connections that no dial asks for, such as to a token service.
	Outbound Outbound
}

// Status is the state of an upstream.
type Status struct {
	// Health is of the upstream as a whole: the daemon passes a failing one over where
	// the route has another. What concerns one target is not it.
	Health Health
	// Message says why it is failing; no secret in it.
	Message string
	// CredentialExpires and CredentialRenewed are zero where there is none.
	CredentialExpires time.Time
	CredentialRenewed time.Time
	// Unreleased is how many tunnels have ended here that the far end may still
	// hold, since it has not answered to their end.
	Unreleased int
}
