package sdk

import (
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// How the types of this package travel. Package sdktest has the way back.

func newRequest(wire *pluginv1.DialRequest) *Request {
	o := wire.GetSocketOptions()
	return &Request{
		Target:     Target{Host: wire.GetTarget().GetHost(), Port: uint16(wire.GetTarget().GetPort())},
		Source:     wire.GetSource(),
		Listener:   wire.GetListener(),
		Route:      wire.GetRoute(),
		Connection: wire.GetConnection(),
		Options: SocketOptions{
			Nodelay:           o.GetNodelay(),
			KeepaliveIdle:     o.GetKeepaliveIdle().AsDuration(),
			KeepaliveInterval: o.GetKeepaliveInterval().AsDuration(),
			KeepaliveCount:    int(o.GetKeepaliveCount()),
			UserTimeout:       o.GetUserTimeout().AsDuration(),
		},
	}
}

func wireTimes(times []StageTime) []*pluginv1.StageTime {
	out := make([]*pluginv1.StageTime, len(times))
	for i, t := range times {
		out[i] = &pluginv1.StageTime{Stage: pluginv1.Stage(t.Stage), Duration: durationpb.New(t.Duration)}
	}
	return out
}

func wireError(d *DialError) *pluginv1.DialError {
	out := &pluginv1.DialError{
		Stage:     pluginv1.Stage(d.Stage),
		Reason:    pluginv1.Reason(d.Reason),
		Retryable: d.Retryable,
		Message:   d.Message,
		Hint:      d.Hint,
	}
	if d.RetryAfter > 0 {
		out.RetryAfter = durationpb.New(d.RetryAfter)
	}
	return out
}

func wireDiagnostics(ds []Diagnostic) []*pluginv1.Diagnostic {
	out := make([]*pluginv1.Diagnostic, len(ds))
	for i, d := range ds {
		severity := pluginv1.Severity_SEVERITY_ERROR
		if d.Warning {
			severity = pluginv1.Severity_SEVERITY_WARNING
		}
		out[i] = &pluginv1.Diagnostic{Severity: severity, Summary: d.Summary, Detail: d.Detail, Path: d.Path, NotYet: d.NotYet}
	}
	return out
}

func wireDefaults(d Defaults) *pluginv1.CommonDefaults {
	out := &pluginv1.CommonDefaults{}
	if d.MaxConnections > 0 {
		out.MaxConnections = proto.Uint32(uint32(d.MaxConnections))
	}
	if d.HalfClose > 0 {
		out.HalfClose = durationpb.New(d.HalfClose)
	}
	return out
}

func wireStatus(st Status) *pluginv1.UpstreamStatus {
	return &pluginv1.UpstreamStatus{
		Health:            pluginv1.Health(st.Health),
		Message:           st.Message,
		CredentialExpires: wireTime(st.CredentialExpires),
		CredentialRenewed: wireTime(st.CredentialRenewed),
		Unreleased:        uint32(max(st.Unreleased, 0)),
	}
}

func wireTime(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

var wireTargets = map[Targets]pluginv1.Targets{
	TargetsWithPort: pluginv1.Targets_TARGETS_PORT, TargetsOrLabels: pluginv1.Targets_TARGETS_LABEL,
}
