package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/internal/schema"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// kitLabel is the label of a labelled block that a check makes up.
const kitLabel = "kit"

// ask has the plugin check values.
func (r *run) ask(ctx context.Context, values []byte) ([]*pluginv1.Diagnostic, error) {
	ctx, cancel := context.WithTimeout(ctx, r.opts.Timeout)
	defer cancel()
	got, err := r.main.Service().ValidateConfig(ctx, &pluginv1.ValidateConfigRequest{
		Upstream: r.upstreamWith(r.upstream.Name, values),
	})
	if err != nil {
		return nil, err
	}
	return got.GetDiagnostics(), nil
}

// upstreamWith is the upstream under another name and with other values of its own.
func (r *run) upstreamWith(name string, values []byte) *pluginv1.Upstream {
	u := r.upstream.Wire()
	u.Name, u.ConfigJson = name, values
	u.ConfigHash = config.Hash(u)
	return u
}

// errorsIn returns the diagnostics that are errors.
func errorsIn(ds []*pluginv1.Diagnostic) []string {
	var wrong []string
	for _, d := range ds {
		if d.GetSeverity() != pluginv1.Severity_SEVERITY_WARNING {
			wrong = append(wrong, strings.TrimPrefix(strings.Join(d.GetPath(), ".")+": ", ": ")+d.GetSummary())
		}
	}
	return wrong
}

func (r *run) validate(ctx context.Context) outcome {
	var first []*pluginv1.Diagnostic
	for n := range 3 {
		ds, err := r.ask(ctx, r.upstream.JSON)
		if err != nil {
			return fail("%v", err)
		}
		if wrong := errorsIn(ds); len(wrong) > 0 {
			return fails(wrong, "")
		}
		if n == 0 {
			first = ds
		}
		if !slices.EqualFunc(first, ds, func(a, b *pluginv1.Diagnostic) bool { return proto.Equal(a, b) }) {
			return fail("asked again, it gives other diagnostics")
		}
	}
	if err := r.configure(ctx, r.main, firstGeneration); err != nil {
		return fail("ValidateConfig takes it, and Configure does not: %v", err)
	}
	r.level = levelValid
	if len(first) > 0 {
		return pass("%d warnings, such as: %s", len(first), first[0].GetSummary())
	}
	return pass("")
}

func (r *run) missing(ctx context.Context) outcome {
	var wrong []string
	count := 0
	try := func(path []string, name string) {
		count++
		wrong = append(wrong, r.refuses(ctx, append(path, name), "without it", func(body map[string]any) { delete(body, name) })...)
	}
	walk(r.main.Schema(), nil, func(path []string, b *pluginv1.Block) {
		for _, a := range b.GetAttributes() {
			if a.GetRequired() {
				try(slices.Clone(path), a.GetName())
			}
		}
		for _, n := range b.GetBlocks() {
			if n.GetRequired() {
				try(slices.Clone(path), n.GetName())
			}
		}
	})
	if count == 0 {
		return pass("nothing is required")
	}
	return fails(wrong, "%d left out in turn", count)
}

func (r *run) types(ctx context.Context) outcome {
	var wrong []string
	count := 0
	try := func(path []string, name, what string, value any) {
		count++
		wrong = append(wrong, r.refuses(ctx, append(slices.Clone(path), name), what, func(body map[string]any) { body[name] = value })...)
	}
	try(nil, "kit_unknown_name", "with a name that the schema does not have", 1)
	walk(r.main.Schema(), nil, func(path []string, b *pluginv1.Block) {
		for _, a := range b.GetAttributes() {
			value, what := misfit(a.GetType())
			try(path, a.GetName(), what, value)
			if value, ok := outside(a); ok {
				try(path, a.GetName(), "beyond its limits", value)
			}
			try(path, a.GetName(), "as null", nil)
		}
		for _, n := range b.GetBlocks() {
			try(path, n.GetName(), "as a number", 7)
		}
	})
	return fails(wrong, "%d wrong values tried", count)
}

// misfit returns a value that does not fit a type, and what it is.
func misfit(t *pluginv1.Type) (any, string) {
	switch t.GetKind() {
	case pluginv1.Kind_KIND_STRING, pluginv1.Kind_KIND_DURATION:
		return 7, "as a number"
	case pluginv1.Kind_KIND_BOOL, pluginv1.Kind_KIND_FLOAT:
		return "x", "as a text"
	case pluginv1.Kind_KIND_INT, pluginv1.Kind_KIND_SIZE:
		return 1.5, "as a number with a fraction"
	case pluginv1.Kind_KIND_LIST:
		return map[string]any{}, "as an object"
	}
	return []any{}, "as an array"
}

// outside returns a value of an attribute's type that its limits do not allow; false
// where none is found.
func outside(a *pluginv1.Attribute) (any, bool) {
	alone := &pluginv1.Block{Attributes: []*pluginv1.Attribute{{Name: a.GetName(), Type: a.GetType()}}}
	for _, value := range []any{
		"", "kit: no such text\n", strings.Repeat("kit", 64<<10), "0s", "0.000000001s", "9000000000s",
		0, -schema.MaxInt, schema.MaxInt, -1e300, 1e300, []any{}, map[string]any{},
	} {
		text, err := json.Marshal(map[string]any{a.GetName(): value})
		if err != nil {
			continue
		}
		values, problems := schema.Decode(alone, text)
		_, misfit := values[a.GetName()].(schema.Wrong)
		if len(problems) > 0 && !misfit {
			return value, true
		}
	}
	return nil, false
}

// refuses changes the values at path's last step and says what is wrong with the
// plugin's answer: there has to be an error with that path.
func (r *run) refuses(ctx context.Context, path []string, what string, change func(body map[string]any)) []string {
	at := strings.Join(path, ".")
	root := r.values()
	body := descend(r.main.Schema(), root, path[:len(path)-1])
	change(body)
	values, err := json.Marshal(root)
	if err != nil {
		return []string{fmt.Sprintf("%s: %v", at, err)}
	}
	ds, err := r.ask(ctx, values)
	if err != nil {
		return []string{fmt.Sprintf("%s, %s: the call fails: %v", at, what, err)}
	}
	var elsewhere []string
	for _, d := range ds {
		if d.GetSeverity() == pluginv1.Severity_SEVERITY_WARNING {
			continue
		}
		if p := d.GetPath(); len(p) >= len(path) && slices.Equal(p[:len(path)], path) {
			return nil
		}
		elsewhere = append(elsewhere, "["+strings.Join(d.GetPath(), ".")+"]")
	}
	if len(elsewhere) > 0 {
		return []string{fmt.Sprintf("%s, %s: it is refused with the path %s", at, what, strings.Join(elsewhere, ", "))}
	}
	return []string{fmt.Sprintf("%s, %s: it is taken", at, what)}
}

// walk visits a schema's bodies, with the path of one of each.
func walk(b *pluginv1.Block, path []string, visit func(path []string, b *pluginv1.Block)) {
	visit(path, b)
	for _, n := range b.GetBlocks() {
		at := append(slices.Clone(path), n.GetName())
		switch n.GetNesting() {
		case pluginv1.Nesting_NESTING_REPEATED:
			at = append(at, "0")
		case pluginv1.Nesting_NESTING_LABELLED:
			at = append(at, kitLabel)
		}
		walk(n.GetBody(), at, visit)
	}
}

// descend returns the body that a path of walk leads to, which is made where it
// is not there.
func descend(b *pluginv1.Block, body map[string]any, path []string) map[string]any {
	if len(path) == 0 {
		return body
	}
	name, rest := path[0], path[1:]
	n := schema.Nested(b, name)
	var inner map[string]any
	switch n.GetNesting() {
	case pluginv1.Nesting_NESTING_REPEATED:
		list, _ := body[name].([]any)
		if len(list) == 0 {
			list = []any{map[string]any{}}
		}
		body[name] = list
		inner, rest = list[0].(map[string]any), rest[1:]
	case pluginv1.Nesting_NESTING_LABELLED:
		labelled, _ := body[name].(map[string]any)
		if labelled == nil {
			labelled = map[string]any{}
		}
		if labelled[kitLabel] == nil {
			labelled[kitLabel] = map[string]any{}
		}
		body[name] = labelled
		inner, rest = labelled[kitLabel].(map[string]any), rest[1:]
	default:
		inner, _ = body[name].(map[string]any)
		if inner == nil {
			inner = map[string]any{}
		}
		body[name] = inner
	}
	return descend(n.GetBody(), inner, rest)
}
