package conformance

import (
	"context"
	"log/slog"
	"sync"

	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protopath"
	"google.golang.org/protobuf/reflect/protorange"

	"github.com/tunneld/tunneld/core/conformance/internal/secrets"
	"github.com/tunneld/tunneld/core/internal/pluginhost"
	"github.com/tunneld/tunneld/internal/pluginwire"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// words are what a plugin says.
type words struct {
	secrets.Watch
	mu sync.Mutex
	// info is the last answer of GetInfo, as it came.
	info   *pluginv1.GetInfoResponse
	errors []string // logged since the last call of takeErrors
}

// maxErrors bounds the errors that are shown with one check.
const maxErrors = 3

// printed takes a line that the plugin printed.
func (w *words) printed(l pluginhost.Line) {
	w.Add(string(l.Raw))
	if !l.IsLog || l.Level < slog.LevelError {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.errors = append(w.errors, l.Text())
	w.errors = w.errors[max(0, len(w.errors)-maxErrors):]
}

// heard takes the answers of the plugin's calls as they come.
type heard struct{ words *words }

// TagRPC implements stats.Handler, as the following do.
func (heard) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// TagConn has nothing to add.
func (heard) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn has nothing to do.
func (heard) HandleConn(context.Context, stats.ConnStats) {}

// HandleRPC takes each message, and the error that a call ends with.
func (h heard) HandleRPC(_ context.Context, s stats.RPCStats) {
	switch s := s.(type) {
	case *stats.InPayload:
		h.words.answered(s.Payload)
	case *stats.End:
		if s.Error != nil {
			h.words.Add(status.Convert(s.Error).Message())
		}
	}
}

// answered takes a message. A schema's texts are documentation, whose
// examples may be anything, and go-plugin's own messages are not the plugin's words.
func (w *words) answered(m any) {
	answer, ok := m.(proto.Message)
	if !ok || answer.ProtoReflect().Descriptor().ParentFile() != pluginv1.File_tunneld_plugin_v1_plugin_proto {
		return
	}
	switch answer := answer.(type) {
	case *pluginv1.GetSchemaResponse:
		return
	case *pluginv1.GetInfoResponse:
		w.mu.Lock()
		w.info = proto.Clone(answer).(*pluginv1.GetInfoResponse)
		w.mu.Unlock()
	}
	// It never fails, since the visitor does not.
	_ = protorange.Range(answer.ProtoReflect(), func(at protopath.Values) error {
		if text, ok := at.Index(-1).Value.Interface().(string); ok && text != "" {
			w.Add(text)
		}
		return nil
	})
}

// rawInfo is what the plugin said last of itself, as it came.
func (w *words) rawInfo() *pluginv1.GetInfoResponse {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.info
}

// takeErrors returns the last errors that the plugin logged since the call
// before.
func (w *words) takeErrors() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	errs := w.errors
	w.errors = nil
	return errs
}

// watcher takes what an instance says.
type watcher struct {
	words  *words
	ledger *ledger
}

// Printed takes a line.
func (w watcher) Printed(l pluginhost.Line) { w.words.printed(l) }

// Silent does nothing: nothing is held back.
func (w watcher) Silent() {}

// Sent takes a record.
func (w watcher) Sent(r pluginwire.Record, err error) {
	if r.Text != "" {
		w.words.Add(r.Text)
	}
	w.ledger.take(r, err)
}

// Reported does nothing: a check asks by itself.
func (w watcher) Reported([]*pluginv1.UpstreamStatus) {}
