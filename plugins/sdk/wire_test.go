package sdk

import (
	"testing"

	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// TestNumbersAreTheContracts: the SDK's constants are the contract's values, all of them
// but the stage that is the daemon's own.
func TestNumbersAreTheContracts(t *testing.T) {
	same := func(what string, ours []int, contract map[int32]string, none ...int32) {
		left := map[int32]bool{}
		for n := range contract {
			left[n] = true
		}
		for _, n := range append(none, 0) {
			delete(left, n)
		}
		for _, n := range ours {
			if !left[int32(n)] {
				t.Errorf("%s %d is none of the contract's", what, n)
			}
			delete(left, int32(n))
		}
		for n := range left {
			t.Errorf("the contract has %s, and the SDK no constant for it", contract[n])
		}
	}
	same("stage", numbers(StageResolve, StageConnect, StageTLS, StageCredential, StageHandshake, StageRequest),
		pluginv1.Stage_name, int32(pluginv1.Stage_STAGE_PLUGIN))
	same("reason", numbers(ReasonTimeout, ReasonRefused, ReasonUnreachable, ReasonNotFound, ReasonDenied,
		ReasonUnauthenticated, ReasonProtocol, ReasonUnavailable, ReasonCanceled), pluginv1.Reason_name)
	same("health", numbers(HealthUnknown, HealthOK, HealthFailing), pluginv1.Health_name)

	for got, want := range map[string]string{
		StageResolve.String(): "resolve", StageConnect.String(): "connect", StageTLS.String(): "tls",
		StageCredential.String(): "credential", StageHandshake.String(): "handshake", StageRequest.String(): "request",
		ReasonTimeout.String(): "timeout", ReasonRefused.String(): "refused", ReasonUnreachable.String(): "unreachable",
		ReasonNotFound.String(): "not_found", ReasonDenied.String(): "denied", ReasonUnauthenticated.String(): "unauthenticated",
		ReasonProtocol.String(): "protocol", ReasonUnavailable.String(): "unavailable", ReasonCanceled.String(): "canceled",
		HealthUnknown.String(): "unknown", HealthOK.String(): "ok", HealthFailing.String(): "failing",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func numbers[E ~int](constants ...E) (out []int) {
	for _, c := range constants {
		out = append(out, int(c))
	}
	return out
}
