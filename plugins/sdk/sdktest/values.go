package sdktest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tunneld/tunneld/plugins/sdk"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// wireUpstream turns values as a user writes them into what Configure takes. It
// does not check: what does not fit the schema is sent unchanged, for the plugin to
// refuse.
func wireUpstream(schema *pluginv1.Block, name string, values map[string]any) (*pluginv1.Upstream, error) {
	if values == nil {
		values = map[string]any{}
	}
	common, values := commonValues(values)
	text, err := json.Marshal(body(schema, values))
	if err != nil {
		return nil, err
	}
	hash := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%s\x00%s", name, text, common.GetVia(), common.GetBind()))
	return &pluginv1.Upstream{Name: name, ConfigJson: text, ConfigHash: hex.EncodeToString(hash[:]), Common: common}, nil
}

// commonValues are those of the common attributes that a daemon passes on apart, and
// the rest.
func commonValues(values map[string]any) (*pluginv1.CommonValues, map[string]any) {
	common, rest := &pluginv1.CommonValues{}, maps.Clone(values)
	for name, to := range map[string]*string{"via": &common.Via, "bind": &common.Bind} {
		if text, ok := value(nil, rest[name]).(string); ok {
			*to = text
			delete(rest, name)
		}
	}
	return common, rest
}

func body(b *pluginv1.Block, values map[string]any) map[string]any {
	types := make(map[string]*pluginv1.Type)
	for _, a := range b.GetAttributes() {
		types[a.GetName()] = a.GetType()
	}
	blocks := make(map[string]*pluginv1.NestedBlock)
	for _, n := range b.GetBlocks() {
		blocks[n.GetName()] = n
	}
	out := make(map[string]any, len(values))
	for name, v := range values {
		if n := blocks[name]; n != nil {
			out[name] = nested(n, v)
		} else {
			out[name] = value(types[name], v)
		}
	}
	return out
}

func nested(n *pluginv1.NestedBlock, v any) any {
	switch n.GetNesting() {
	case pluginv1.Nesting_NESTING_SINGLE:
		if m, ok := v.(map[string]any); ok {
			return body(n.GetBody(), m)
		}
	case pluginv1.Nesting_NESTING_REPEATED, pluginv1.Nesting_NESTING_LABELLED:
		return each(v, func(e any) any {
			if m, ok := e.(map[string]any); ok {
				return body(n.GetBody(), m)
			}
			return e
		})
	}
	return v
}

func value(t *pluginv1.Type, v any) any {
	switch v := v.(type) {
	case sdk.Secret:
		return v.Reveal()
	case time.Duration:
		return duration(v)
	}
	s, isText := v.(string)
	switch t.GetKind() {
	case pluginv1.Kind_KIND_DURATION:
		if d, err := time.ParseDuration(s); isText && err == nil {
			return duration(d)
		}
	case pluginv1.Kind_KIND_SIZE:
		if n, err := sdk.ParseSize(s); isText && err == nil {
			return int64(n)
		}
	case pluginv1.Kind_KIND_LIST, pluginv1.Kind_KIND_MAP:
		return each(v, func(e any) any { return value(t.GetElement(), e) })
	}
	return v
}

// each applies f to the elements of any slice or map with text keys.
func each(v any, f func(any) any) any {
	r := reflect.ValueOf(v)
	switch {
	case r.Kind() == reflect.Slice:
		out := make([]any, r.Len())
		for i := range out {
			out[i] = f(r.Index(i).Interface())
		}
		return out
	case r.Kind() == reflect.Map && r.Type().Key().Kind() == reflect.String:
		out := make(map[string]any, r.Len())
		for _, k := range r.MapKeys() {
			out[k.String()] = f(r.MapIndex(k).Interface())
		}
		return out
	}
	return v
}

// duration is the form of protobuf's own JSON, so that the plugin's reading of
// it is checked against another writer.
func duration(d time.Duration) any {
	text, err := protojson.Marshal(durationpb.New(d))
	if err != nil {
		return fmt.Sprintf("%v", err)
	}
	return json.RawMessage(text)
}
