package sdktest

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tunneld/tunneld/plugins/sdk"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// What the daemon sends and gets, in the types of package sdk, which has the other way.

// request is what the daemon asks with.
func (o DialOptions) request(target *pluginv1.Target) *pluginv1.DialRequest {
	if len(o.Accept) == 0 {
		o.Accept = []Path{PathDirect, PathRelay}
	}
	req := &pluginv1.DialRequest{
		Target:     target,
		Source:     o.Source,
		Listener:   o.Listener,
		Route:      o.Route,
		Connection: o.Connection,
		SocketOptions: &pluginv1.SocketOptions{
			Nodelay:           o.Socket.Nodelay,
			KeepaliveIdle:     wireDuration(o.Socket.KeepaliveIdle),
			KeepaliveInterval: wireDuration(o.Socket.KeepaliveInterval),
			KeepaliveCount:    uint32(o.Socket.KeepaliveCount),
			UserTimeout:       wireDuration(o.Socket.UserTimeout),
		},
		Common: &pluginv1.CommonSettings{HalfClose: wireDuration(o.HalfClose)},
	}
	for _, p := range o.Accept {
		req.AcceptedPaths = append(req.AcceptedPaths, p.wire())
	}
	return req
}

// wire is the path in the contract; of a name that it does not have, unspecified.
func (p Path) wire() pluginv1.DataPath {
	return pluginv1.DataPath(pluginv1.DataPath_value["DATA_PATH_"+strings.ToUpper(string(p))])
}

func wireTarget(target string) (*pluginv1.Target, error) {
	host, port, err := net.SplitHostPort(target)
	if err != nil {
		return &pluginv1.Target{Host: target}, nil
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("dial %s: the port is not a number", target)
	}
	return &pluginv1.Target{Host: host, Port: uint32(n)}, nil
}

func wireDuration(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

func dialError(e *pluginv1.DialError) *sdk.DialError {
	return &sdk.DialError{
		Stage:      sdk.Stage(e.GetStage()),
		Reason:     sdk.Reason(e.GetReason()),
		Retryable:  e.GetRetryable(),
		Message:    e.GetMessage(),
		Hint:       e.GetHint(),
		RetryAfter: e.GetRetryAfter().AsDuration(),
	}
}

func stageTimes(wire []*pluginv1.StageTime) []sdk.StageTime {
	out := make([]sdk.StageTime, len(wire))
	for i, s := range wire {
		out[i] = sdk.StageTime{Stage: sdk.Stage(s.GetStage()), Duration: s.GetDuration().AsDuration()}
	}
	return out
}

func statusOf(wire *pluginv1.UpstreamStatus) sdk.Status {
	st := sdk.Status{Health: sdk.Health(wire.GetHealth()), Message: wire.GetMessage(), Unreleased: int(wire.GetUnreleased())}
	if e := wire.GetCredentialExpires(); e != nil {
		st.CredentialExpires = e.AsTime()
	}
	if r := wire.GetCredentialRenewed(); r != nil {
		st.CredentialRenewed = r.AsTime()
	}
	return st
}

func diagnostics(wire []*pluginv1.Diagnostic) (ds []sdk.Diagnostic, failed bool) {
	for _, d := range wire {
		if d.GetNote() {
			continue // nothing is wrong
		}
		warning := d.GetSeverity() == pluginv1.Severity_SEVERITY_WARNING
		failed = failed || !warning
		ds = append(ds, sdk.Diagnostic{Warning: warning, NotYet: d.GetNotYet(), Summary: d.GetSummary(), Detail: d.GetDetail(), Path: d.GetPath()})
	}
	return ds, failed
}
