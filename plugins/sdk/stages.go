package sdk

import (
	"time"

	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// Stage is how far a dial has come. The zero value is none.
type Stage int

// The stages of a dial, in their usual order. Their numbers are those of
// the plugin protocol.
const (
	// StageResolve is looking up a name.
	StageResolve Stage = iota + 1
	// StageConnect is opening the transport's connection.
	StageConnect
	// StageTLS is the TLS handshake.
	StageTLS
	// StageCredential is obtaining a credential, from wherever it comes.
	StageCredential
	// StageHandshake is the protocol's own handshake, with its authentication.
	StageHandshake
	// StageRequest is asking the far end for the target.
	StageRequest
)

// String returns the name in logs and metrics: "resolve", "connect"; "unknown" of the
// zero value.
func (s Stage) String() string { return pluginv1.Stage(s).Text() }

// StageTime is how long one stage took.
type StageTime struct {
	// Stage was entered by Request.Enter.
	Stage Stage
	// Duration is 0 or more.
	Duration time.Duration
}

// Reason is why a dial failed. The zero value leaves it open.
type Reason int

// The reasons of a failed dial. Their numbers are those of
// the plugin protocol.
const (
	// ReasonTimeout: there was no answer in time.
	ReasonTimeout Reason = iota + 1
	// ReasonRefused: nothing listens there.
	ReasonRefused
	// ReasonUnreachable: no network path leads there, or the protocol cannot carry the
	// target.
	ReasonUnreachable
	// ReasonNotFound: there is no such name or target.
	ReasonNotFound
	// ReasonDenied: a rule forbids it.
	ReasonDenied
	// ReasonUnauthenticated: the far end does not accept the credentials, or wants some.
	ReasonUnauthenticated
	// ReasonProtocol: the far end does not speak the protocol.
	ReasonProtocol
	// ReasonUnavailable: it does not work at the moment, or nothing better is known.
	ReasonUnavailable
	// ReasonCanceled: nobody waits for the dial any more.
	ReasonCanceled
)

// String returns the name in logs and metrics: "timeout", "not_found"; "unknown" of the
// zero value.
func (r Reason) String() string { return pluginv1.Reason(r).Text() }

// Health is the state of an upstream. The zero value counts as HealthUnknown.
type Health int

// The states of an upstream. Their numbers are those of
// the plugin protocol.
const (
	// HealthUnknown: nothing has been tried yet.
	HealthUnknown Health = iota + 1
	// HealthOK: it works, as far as is known.
	HealthOK
	// HealthFailing: it does not work, whatever the target.
	HealthFailing
)

// String returns the name in the status: "ok", "failing"; "unknown" of the zero value.
func (h Health) String() string { return pluginv1.Health(h).Text() }
