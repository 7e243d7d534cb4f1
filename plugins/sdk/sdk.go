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
//		if err != nil {
//			return nil, err
//		}
//		… // the protocol's handshake, which asks for req.Target
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
//
// # The life of an instance
//
// An upstream block is checked first. For that the SDK calls New, sets the fields and calls
// the methods that the struct has of Validator, Noter and Defaulter. That instance is then
// forgotten.
//
// An upstream that is used has another instance. On it the SDK calls Validate again and
// then Start, once; Dial, from many goroutines at once; and Close of io.Closer, once, when
// no configuration has the upstream any more and all its dials have returned. Tunnels
// outlive it. A reload that leaves the block as it is keeps the instance, with all that it
// caches; after a change the old and the new one live side by side for a while.
//
// A panic in a method fails that call. One in a goroutine that the plugin started ends the
// process, as in any program; the daemon starts it again.
//
// # What is sent
//
// Texts of an error, a diagnostic or a status are shown to users and logged: no secret may
// be in them. The SDK cuts each after 4 KiB.
//
// A test runs a plugin with package sdktest; "tunneld plugin test" runs the finished
// program against a kit of checks. docs/writing-a-plugin.md is the tutorial.
package sdk

import (
	"context"
	"log/slog"
	"time"
)

// Plugin describes a plugin. Name, Version and New are required.
type Plugin struct {
	// Name is what stands in upstream "NAME" "…": ^[a-z][a-z0-9_]{0,31}$.
	Name string
	// Version is the plugin's own, in any form: "1.0.0".
	Version string
	// Summary is one line on what the plugin is for; may be empty.
	Summary string
	// New returns a pointer to a new configuration struct. Its fields are the schema;
	// see SchemaOf for their tags, which have the defaults: New sets none. Besides
	// Dialer the pointer may implement Validator, Noter, Defaulter, Starter and
	// io.Closer.
	New func() Dialer
	// Targets says which targets the upstreams take; zero: unknown. If a listener's
	// target is a label and all upstreams of its route need a port, the daemon
	// refuses the configuration.
	Targets Targets
	// NoHalfClose says that the protocol cannot end one direction alone. CloseWrite is
	// still called at the client's end of file, and the far end's end of file ends the
	// tunnel. So does silence: once CloseWrite has returned and the far end has sent
	// nothing for the upstream's half_close (DefaultHalfClose unless set), the SDK
	// closes the tunnel, as a clean end.
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

// Targets says whether a target may be a label, without a port.
type Targets int

// The kinds of targets.
const (
	// TargetsWithPort: a host and a port.
	TargetsWithPort Targets = iota + 1
	// TargetsOrLabels: a host and a port, or a label.
	TargetsOrLabels
)

// Dialer makes connections through one configured upstream.
type Dialer interface {
	// Dial connects to req.Target and returns once bytes can flow both ways, not
	// before. Many goroutines call it at once, up to 1024. It has to return soon after
	// ctx is done: at the end of the time that the listener gives it (the cause is
	// ErrOvertime then) or after five minutes, when the client is gone, and when the
	// plugin stops. ctx ends with the call; what outlives the call needs a context of
	// its own.
	//
	// On an error Dial leaves nothing open. The error should be, or wrap, a *DialError.
	// Any other is classified as by NetworkError, at the stage that req.Enter named
	// last, and its text is sent.
	//
	// The tunnel belongs to the SDK, which also closes it if the client has gone
	// meanwhile.
	Dial(ctx context.Context, req *Request) (*Tunnel, error)
}

// Validator checks what the schema cannot.
type Validator interface {
	// Validate is called where the values fit the schema. It has no side effects: it
	// dials nothing and keeps nothing, since the instance may never be used. It returns
	// nil where nothing is wrong.
	Validate() []Diagnostic
}

// Noter tells what a new version of the plugin does differently with an unchanged
// configuration.
type Noter interface {
	// Notes is called where Validate found no error. Each note names what changed and
	// how to keep the old behaviour; whether it is a warning does not matter. "tunneld
	// validate" prints notes, and a start logs them.
	Notes() []Diagnostic
}

// Defaulter names defaults for attributes that every upstream has and that are the
// daemon's.
type Defaulter interface {
	// Defaults is called where Validate found no error.
	Defaults() Defaults
}

// Defaults are used where the upstream's block leaves the attribute out. A zero field
// leaves the daemon's own default.
type Defaults struct {
	// MaxConnections is the most connections at a time through the upstream
	// (max_connections).
	MaxConnections int
	// HalfClose is how long a tunnel lives on without a byte from the far end after
	// the client has ended its direction (half_close); see Plugin.NoHalfClose.
	HalfClose time.Duration
}

// DefaultHalfClose is the half_close of upstreams of a plugin with NoHalfClose that names
// no other in its Defaults.
const DefaultHalfClose = time.Second

// Starter is for plugins that prepare an instance before it is used.
type Starter interface {
	// Start is called once, before the first Dial. It must not wait for the network: a
	// reload waits for it. Goroutines that it starts end with Close. With an error the
	// configuration is not put in force, and the user reads the error; Close is not
	// called then.
	Start(env *Env) error
}

// Env is what an instance is given at its start. All of it may be kept, and used by
// several goroutines at once.
type Env struct {
	// Upstream is the name of the upstream block.
	Upstream string
	// Log writes to the daemon's log, with the upstream's name, at the daemon's level.
	Log *slog.Logger
	// Report tells the daemon the upstream's state. It does not block, and the newest
	// report wins; after Close it does nothing. Each report is complete: a zero field
	// replaces what was reported before. An upstream that has reported nothing is
	// HealthUnknown, and is used.
	Report func(Status)
	// Outbound makes connections that belong to no dial, such as to a token service.
	Outbound Outbound

	follows *follows // nil: Follow does not follow
}

// Status is the state of an upstream.
type Status struct {
	// Health is of the upstream as a whole: the daemon passes a failing one over where
	// the route has another. What concerns one target alone does not count.
	Health Health
	// Message says why it is failing; empty where it is not.
	Message string
	// CredentialExpires is when the credential in use ends; zero: there is none.
	CredentialExpires time.Time
	// CredentialRenewed is when it was last renewed; zero: it was not.
	CredentialRenewed time.Time
	// Unreleased is how many tunnels have ended here that the far end may still
	// hold, since it has not confirmed their end.
	Unreleased int
}
