package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// Decode reads the JSON of a body that Check has found sane, as a plugin is
// configured with it, and fills in defaults; of blocks that are absent it does not.
// It returns all that is wrong. Where that is something, the values are not whole.
func Decode(block *pluginv1.Block, text []byte) (Values, []Problem) {
	raw, err := parseJSON(text)
	if err != nil {
		return nil, []Problem{{Summary: "The configuration is not valid JSON", Detail: "It must be one object."}}
	}
	var r reader
	v := r.body(block, raw, place{what: "the configuration"})
	return v, append(r.problems, Validate(block, v)...)
}

// readValue reads the JSON of a value of the type.
func readValue(t *pluginv1.Type, text []byte) (any, error) {
	raw, err := parseJSON(text)
	if err != nil {
		return nil, err
	}
	var r reader
	v := r.value(t, raw, place{})
	if len(r.problems) == 0 {
		return v, nil
	}
	detail := r.problems[0].Detail
	if path := r.problems[0].Path; len(path) > 0 {
		detail = strings.Join(path, ".") + ": " + detail
	}
	return nil, errors.New(strings.TrimSuffix(detail, "."))
}

// parseJSON reads exactly one value; numbers keep their digits.
func parseJSON(text []byte) (any, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, errors.New("not JSON")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one JSON value")
	}
	return v, nil
}

// place is where a value stands.
type place struct {
	path []string
	what string // for a summary: `"hosts"`, `element 2 of "hosts"`
	hint string // comes before the detail
	list bool   // within a list: what names an element already
}

func (p place) step(name string) place {
	return place{path: append(slices.Clip(p.path), name), what: strconv.Quote(name)}
}

func (p place) element(i int) place {
	p.path = append(slices.Clip(p.path), strconv.Itoa(i))
	if !p.list {
		p.list, p.what = true, fmt.Sprintf("element %d of %s", i+1, p.what)
	}
	return p
}

func (p place) key(key string) place {
	p.path = append(slices.Clip(p.path), key)
	if !p.list && p.hint == "" {
		p.hint = "One of its values does not fit. "
	}
	return p
}

// wrong is the problem of a value that is not what it should be.
func (p place) wrong(detail string) Problem {
	return Problem{Path: p.path, Summary: "Wrong value for " + p.what, Detail: p.hint + detail}
}

const isNull = "It must not be null. Leave it out instead."

type reader struct{ problems []Problem }

func (r *reader) wrong(at place, detail string) {
	r.problems = append(r.problems, at.wrong(detail))
}

func (r *reader) mismatch(at place, want string, raw any) {
	r.wrong(at, fmt.Sprintf("Its JSON must be %s, not %s.", want, jsonKind(raw)))
}

func (r *reader) body(b *pluginv1.Block, raw any, at place) Values {
	given, ok := raw.(map[string]any)
	if !ok {
		r.mismatch(at, "an object", raw)
		return nil
	}
	v := Values{}
	for _, a := range b.GetAttributes() {
		r.attribute(a, given, v, at)
	}
	for _, n := range b.GetBlocks() {
		r.nested(n, given, v, at)
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if Attribute(b, name) == nil && Nested(b, name) == nil {
			r.problems = append(r.problems, Problem{
				Path: at.step(name).path, Summary: fmt.Sprintf("Unknown attribute or block %q", name), Detail: "The schema does not have it.",
			})
		}
	}
	return v
}

func (r *reader) attribute(a *pluginv1.Attribute, given map[string]any, v Values, at place) {
	name := a.GetName()
	raw, present := given[name]
	if !present {
		if d, ok := Default(a); ok {
			v[name] = d
		} else if a.GetRequired() {
			r.missing("attribute", name, at)
		}
		return
	}
	if v[name] = r.value(a.GetType(), raw, at.step(name)); v[name] == nil {
		v[name] = Wrong{}
	}
}

func (r *reader) missing(what, name string, at place) {
	r.problems = append(r.problems, Problem{Path: at.step(name).path, Summary: fmt.Sprintf("Missing %s %q", what, name), Detail: "It is required here."})
}

func (r *reader) nested(n *pluginv1.NestedBlock, given map[string]any, v Values, at place) {
	name, count := n.GetName(), 1
	raw, present := given[name]
	here := at.step(name)
	switch {
	case !present:
		count = 0
	case raw == nil:
		r.wrong(here, isNull)
		return
	case n.GetNesting() == pluginv1.Nesting_NESTING_REPEATED:
		elements, ok := raw.([]any)
		if !ok {
			r.mismatch(here, "an array", raw)
			return
		}
		list := make([]any, len(elements))
		for i, e := range elements {
			list[i] = r.body(n.GetBody(), e, here.element(i))
		}
		v[name], count = list, len(list)
	case n.GetNesting() == pluginv1.Nesting_NESTING_LABELLED:
		bodies, ok := raw.(map[string]any)
		if !ok {
			r.mismatch(here, "an object", raw)
			return
		}
		labelled := make(map[string]any, len(bodies))
		for _, label := range slices.Sorted(maps.Keys(bodies)) {
			labelled[label] = r.body(n.GetBody(), bodies[label], here.key(label))
		}
		v[name], count = labelled, len(labelled)
	default:
		v[name] = r.body(n.GetBody(), raw, here)
	}
	if n.GetRequired() && count == 0 {
		r.missing("block", name, at)
	}
}

// value reads a value of the type; nil says that it is none.
func (r *reader) value(t *pluginv1.Type, raw any, at place) any {
	if raw == nil {
		r.wrong(at, isNull)
		return nil
	}
	switch t.GetKind() {
	case pluginv1.Kind_KIND_STRING:
		if s, ok := raw.(string); ok {
			return s
		}
	case pluginv1.Kind_KIND_BOOL:
		if b, ok := raw.(bool); ok {
			return b
		}
	case pluginv1.Kind_KIND_DURATION:
		if s, ok := raw.(string); ok {
			d, problem := parseDurationJSON(s)
			if problem != "" {
				r.wrong(at, problem)
				return nil
			}
			return d
		}
	case pluginv1.Kind_KIND_INT, pluginv1.Kind_KIND_SIZE, pluginv1.Kind_KIND_FLOAT:
		if n, ok := raw.(json.Number); ok {
			return r.number(t.GetKind(), n, at)
		}
	case pluginv1.Kind_KIND_LIST:
		if elements, ok := raw.([]any); ok {
			list := make([]any, len(elements))
			for i, e := range elements {
				list[i] = r.value(t.GetElement(), e, at.element(i))
			}
			return list
		}
	case pluginv1.Kind_KIND_MAP:
		if entries, ok := raw.(map[string]any); ok {
			m := make(map[string]any, len(entries))
			for _, k := range slices.Sorted(maps.Keys(entries)) {
				m[k] = r.value(t.GetElement(), entries[k], at.key(k))
			}
			return m
		}
	}
	r.mismatch(at, jsonOf(t.GetKind()), raw)
	return nil
}

// number reads a number. A fraction or an exponent that leaves a whole number
// ("1e3", "5.0") is one.
func (r *reader) number(kind pluginv1.Kind, n json.Number, at place) any {
	f, err := n.Float64()
	if kind == pluginv1.Kind_KIND_FLOAT {
		if err != nil {
			r.wrong(at, TooLarge)
			return nil
		}
		return f
	}
	i, exact := n.Int64()
	if exact != nil {
		i = int64(max(-MaxInt-1, min(MaxInt+1, f)))
	}
	notWhole, tooLarge := NotWhole, OutsideInt
	if kind == pluginv1.Kind_KIND_SIZE {
		notWhole, tooLarge = BrokenSize, LargeSize
	}
	switch {
	case kind == pluginv1.Kind_KIND_SIZE && f < 0:
		r.wrong(at, NegativeSize)
	case exact != nil && f != math.Trunc(f):
		r.wrong(at, notWhole)
	case i > MaxInt || i < -MaxInt || err != nil:
		r.wrong(at, tooLarge)
	default:
		return i
	}
	return nil
}

// jsonOf is the JSON that carries a kind.
func jsonOf(kind pluginv1.Kind) string {
	switch kind {
	case pluginv1.Kind_KIND_STRING:
		return "a string"
	case pluginv1.Kind_KIND_BOOL:
		return "a boolean"
	case pluginv1.Kind_KIND_DURATION:
		return `a string such as "1.5s"`
	case pluginv1.Kind_KIND_INT, pluginv1.Kind_KIND_SIZE:
		return "a whole number"
	case pluginv1.Kind_KIND_FLOAT:
		return "a number"
	case pluginv1.Kind_KIND_LIST:
		return "an array"
	}
	return "an object"
}

// jsonKind names the type of a JSON value, never the value.
func jsonKind(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case string:
		return "a string"
	case bool:
		return "a boolean"
	case json.Number:
		return "a number"
	case []any:
		return "an array"
	}
	return "an object"
}
