package pluginhost

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"unicode"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// hostile steers a terminal, writes a line of its own, and holds the secrets of a
// URL; harmless is what is to be left of it, but for spaces.
const (
	hostile  = "a\x1b[31m \u009b32m\r\nb \u202eat https://u:s3cret@host/token?key=s3cret: no"
	harmless = "a [31m  32m  b \uFFFDat https://[redacted]@host/token?[redacted]: no"
)

func hostileSchema() *pluginv1.Block {
	return &pluginv1.Block{
		Doc: hostile,
		Attributes: []*pluginv1.Attribute{{
			Name: "a", Type: &pluginv1.Type{Kind: pluginv1.Kind_KIND_STRING},
			Doc: hostile, Deprecated: hostile, DefaultJson: `"\u001b[31m` + "\u009b" + `"`,
		}},
		Blocks: []*pluginv1.NestedBlock{{Name: "b", Nesting: pluginv1.Nesting_NESTING_SINGLE, Body: &pluginv1.Block{Doc: hostile}}},
	}
}

// ValidateConfig warns.
func (r *raw) ValidateConfig(context.Context, *pluginv1.ValidateConfigRequest) (*pluginv1.ValidateConfigResponse, error) {
	return &pluginv1.ValidateConfigResponse{Diagnostics: []*pluginv1.Diagnostic{{
		Severity: pluginv1.Severity_SEVERITY_WARNING, Summary: hostile, Detail: hostile, Path: []string{hostile}, Upstream: hostile,
	}}}, nil
}

// WatchStatus has a hostile plugin report its upstream.
func (r *raw) WatchStatus(_ *pluginv1.WatchStatusRequest, stream grpc.ServerStreamingServer[pluginv1.WatchStatusResponse]) error {
	if r.mode != "hostile" {
		return status.Error(codes.Unimplemented, "no statuses")
	}
	u := &pluginv1.UpstreamStatus{Name: "u", ConfigHash: upstreams(`{}`)[0].GetConfigHash(), Message: hostile}
	if err := stream.Send(&pluginv1.WatchStatusResponse{Upstreams: []*pluginv1.UpstreamStatus{u}}); err != nil {
		return err
	}
	<-stream.Context().Done()
	return nil
}

// unfit returns what is wrong with a text that is shown.
func unfit(text string) string {
	for _, r := range text {
		if !unicode.IsPrint(r) && r != '\n' {
			return fmt.Sprintf("the character %U", r)
		}
	}
	if strings.Contains(text, "s3cret") {
		return "the secret"
	}
	return ""
}

// TestTextsAreCleaned has a plugin say something hostile wherever it can.
func TestTextsAreCleaned(t *testing.T) {
	h := newHost(t, nil)
	p := h.start(t, rawSpec("hostile"))
	configure(t, p, 1, `{}`)
	check := func(where, text string) {
		t.Helper()
		if bad := unfit(text); bad != "" || text == "" {
			t.Errorf("%s has %s: %q", where, bad, text)
		}
	}
	info := p.Info()
	for where, text := range map[string]string{"version": info.GetVersion(), "summary": info.GetSummary(), "capability": info.GetCapabilities()[0], "state": p.State().Version} {
		check(where, text)
		if want := harmless[:len("a [31m  32m  b \uFFFDat")]; !strings.HasPrefix(text, want) {
			t.Errorf("%s is %q", where, text)
		}
	}
	s := p.Schema()
	for where, text := range map[string]string{
		"doc":         s.GetDoc(),
		"attribute":   s.GetAttributes()[0].GetDoc(),
		"deprecation": s.GetAttributes()[0].GetDeprecated(),
		"block":       s.GetBlocks()[0].GetBody().GetDoc(),
	} {
		check(where, strings.ReplaceAll(text, "s3cret", "example")) // documentation
	}
	check("default", s.GetAttributes()[0].GetDefaultJson())
	var value string
	if err := json.Unmarshal([]byte(s.GetAttributes()[0].GetDefaultJson()), &value); err != nil || value != "\x1b[31m\u009b" {
		t.Errorf("the default has become %q, %v", value, err)
	}
	r, err := p.Validate(t.Context(), upstreams(`{}`)[0])
	ds := r.GetDiagnostics()
	if err != nil || len(ds) != 1 {
		t.Fatalf("%v, %v", ds, err)
	}
	for where, text := range map[string]string{"summary": ds[0].GetSummary(), "detail": ds[0].GetDetail(), "path": ds[0].GetPath()[0], "upstream": ds[0].GetUpstream()} {
		if text != harmless {
			t.Errorf("%s of the diagnostic: %q", where, text)
		}
	}
	for _, host := range []string{"hostile", "hostile failure"} {
		_, err := dialTo(t, p, 1, tunnel.Target{Host: host})
		e := dialError(t, err)
		check(host, e.Message)
		check(host, e.Hint)
		if !strings.Contains(e.Message, harmless) {
			t.Errorf("%s: %q", host, e.Message)
		}
	}
	c, err := dialTo(t, p, 1, tunnel.Target{Host: "hostile end"})
	if err != nil {
		t.Fatal(err)
	}
	var end *EndError
	if err := c.Relay.ConfirmEnd(t.Context()); !errors.As(err, &end) || end.Reason != harmless {
		t.Errorf("end: %v", err)
	}
	_ = c.Stream.Close()
	c.Relay.Ended()
	u := h.await(t, "a status", func(s State) bool { return len(s.Upstreams) == 1 }).Upstreams[0]
	check("status", u.GetMessage())

	// In the log, and what is told of its end.
	h.log.await(t, "printed in its log", "harmless")
	h.log.await(t, "plugin printed", "plainly")
	if err := syscall.Kill(p.State().PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	check("output", h.await(t, "an end", func(s State) bool { return s.LastOutput != "" }).LastOutput)
	check("log", h.log.String())
}

// sayHostile prints to standard error, as the log and as it comes.
func sayHostile() {
	text, _ := json.Marshal(hostile)
	fmt.Fprintf(os.Stderr, `{"level":"ERROR","msg":%[1]s,"err":%[1]s,%[1]s:{"g":%[1]s},"l":[%[1]s]}`+"\n", text)
	fmt.Fprintln(os.Stderr, `{"level":"INFO","msg":"printed in its log: harmless"}`)
	fmt.Fprintln(os.Stderr, strings.ReplaceAll(hostile, "\n", "")+"\nplainly")
}

// TestEveryTextIsCleaned sets each text that a message of the protocol can have: one
// that is added is no gap.
func TestEveryTextIsCleaned(t *testing.T) {
	messages := pluginv1.File_tunneld_plugin_v1_plugin_proto.Messages()
	seen := 0
	for i := range messages.Len() {
		typ, err := protoregistry.GlobalTypes.FindMessageByName(messages.Get(i).FullName())
		if err != nil {
			t.Fatal(err)
		}
		fields := messages.Get(i).Fields()
		for j := range fields.Len() {
			f := fields.Get(j)
			m := typ.New()
			if f.Kind() != protoreflect.StringKind {
				continue
			}
			seen++
			if text := protoreflect.ValueOfString(hostile); f.IsList() {
				m.Mutable(f).List().Append(text)
			} else {
				m.Set(f, text)
			}
			cleanAnswer(m.Interface())
			got := m.Get(f).String()
			if f.IsList() {
				got = m.Get(f).List().Get(0).String()
			}
			switch messages.Get(i).Name() {
			case "Block", "Attribute", "NestedBlock": // documentation: its URLs are examples
				got = strings.ReplaceAll(got, "s3cret", "example")
			}
			if bad := unfit(got); bad != "" || got == "" {
				t.Errorf("%s has %s: %q", f.FullName(), bad, got)
			}
		}
	}
	if seen < 20 {
		t.Errorf("only %d texts were seen", seen)
	}
}
