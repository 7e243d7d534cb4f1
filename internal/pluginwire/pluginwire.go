// Package pluginwire is the part of the plugin protocol that is not gRPC: the
// constants of the process handshake and the descriptor channel, both ends of
// it. It knows nothing of dials and tunnels.
//
// The channel is a socketpair that the plugin inherits. Each record on it has
// the same length and at most one descriptor; docs/plugin-protocol.md has the
// layout.
package pluginwire

// The handshake that go-plugin does before anything else.
const (
	// MagicCookieKey and MagicCookieValue are in a plugin's environment so that
	// a plugin which is run by hand can say so. They are no secret.
	MagicCookieKey   = "TUNNELD_PLUGIN"
	MagicCookieValue = "6e3c2b6f0c2d4a5c9f1f4b1a7d8e9023"
	// ProtocolVersion is the major version of package tunneld.plugin.v1.
	ProtocolVersion = 1
	// ServiceName is the name under which go-plugin's map holds the services.
	ServiceName = "tunneld"
)

// The environment that the daemon sets for a plugin besides go-plugin's own.
const (
	// EnvChannel holds the number of the inherited channel descriptor.
	EnvChannel = "TUNNELD_PLUGIN_CHANNEL"
	// EnvLogLevel holds debug, info, warn or error.
	EnvLogLevel = "TUNNELD_PLUGIN_LOG_LEVEL"
)

// The names in a plugin's capabilities of what its protocol cannot do, besides
// no_half_close, which is a field of GetInfoResponse. The daemon treats such a
// plugin like any other; the conformance kit asks no more of it than it can.
const (
	// NoTargetAnswer: a dial succeeds before it is known whether the target can
	// be reached.
	NoTargetAnswer = "no_target_answer"
	// NoGreeting: the target is connected to once the client has sent a byte.
	NoGreeting = "no_greeting"
	// NoAbort: the target sees the same end whether or not it was clean.
	NoAbort = "no_abort"
	// NoReset: the client sees the same end whether or not it was clean.
	NoReset = "no_reset"
)

// HalfCloseClock is the capability of a plugin that ends a tunnel by itself once
// CommonSettings.half_close is over.
const HalfCloseClock = "half_close_clock"

// MaxMessage bounds a gRPC message of either side, in bytes.
const MaxMessage = 4 << 20

// MaxPrefetched bounds the bytes that a handoff may bring along.
const MaxPrefetched = 64 << 10

// MaxChunk bounds the bytes of one message on the stream path.
const MaxChunk = 64 << 10
