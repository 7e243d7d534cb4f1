package schema

import (
	"math"
	"math/big"
	"strconv"

	"github.com/zclconf/go-cty/cty"

	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// maxDepth bounds the nesting of blocks and of a type, and so the recursion
// over both.
const maxDepth = 8

// mismatch says why a value does not fit its type: a sentence, and the step
// into a list that leads to it (-1: none). It never holds the value.
type mismatch struct {
	detail string
	index  int
}

func mismatchf(detail string) *mismatch { return &mismatch{detail: detail, index: -1} }

// toGo turns a value of the configuration into the Go value that t asks for.
// Texts are taken for booleans and numbers, since env and file have nothing
// else to give; numbers are not taken for texts, since 007 would lose its zeros.
func toGo(t *pluginv1.Type, v cty.Value) (any, *mismatch) {
	if v.IsMarked() || !v.IsKnown() {
		return nil, mismatchf("The value cannot be known before tunneld runs.")
	}
	switch t.GetKind() {
	case pluginv1.Kind_KIND_STRING:
		if v.Type() == cty.String {
			return v.AsString(), nil
		}
	case pluginv1.Kind_KIND_BOOL:
		if v.Type() == cty.Bool {
			return v.True(), nil
		}
		if s, ok := text(v); ok && (s == "true" || s == "false") {
			return s == "true", nil
		}
	case pluginv1.Kind_KIND_INT:
		return toInt(v)
	case pluginv1.Kind_KIND_FLOAT:
		return toFloat(v)
	case pluginv1.Kind_KIND_DURATION:
		return toDuration(v)
	case pluginv1.Kind_KIND_SIZE:
		return toSize(v)
	case pluginv1.Kind_KIND_LIST:
		if ty := v.Type(); ty.IsTupleType() || ty.IsListType() || ty.IsSetType() {
			return toList(t, v)
		}
	case pluginv1.Kind_KIND_MAP:
		if ty := v.Type(); ty.IsObjectType() || ty.IsMapType() {
			return toMap(t, v)
		}
	}
	return nil, wrongKind(t, v)
}

func wrongKind(t *pluginv1.Type, v cty.Value) *mismatch {
	d := "It must be " + kindText(t) + ", not " + valueText(v) + "."
	switch k := t.GetKind(); {
	case k == pluginv1.Kind_KIND_STRING && v.Type().IsPrimitiveType():
		d += " Write it in double quotes."
	case k == pluginv1.Kind_KIND_LIST && v.Type().IsPrimitiveType():
		d += " Write [ and ] around it."
	}
	return mismatchf(d)
}

func text(v cty.Value) (string, bool) {
	if v.Type() != cty.String {
		return "", false
	}
	return v.AsString(), true
}

func toInt(v cty.Value) (any, *mismatch) {
	outside := mismatchf("A whole number must lie within ±9007199254740992 (2^53).")
	if s, ok := text(v); ok {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return nil, mismatchf("It must be a whole number, and the text is none.")
		}
		if n < -maxInt || n > maxInt {
			return nil, outside
		}
		return n, nil
	}
	if v.Type() != cty.Number {
		return nil, wrongKind(&pluginv1.Type{Kind: pluginv1.Kind_KIND_INT}, v)
	}
	f := v.AsBigFloat()
	if !f.IsInt() {
		return nil, mismatchf("It must be a whole number, without a fraction.")
	}
	n, accuracy := f.Int64()
	if accuracy != big.Exact || n < -maxInt || n > maxInt {
		return nil, outside
	}
	return n, nil
}

func toFloat(v cty.Value) (any, *mismatch) {
	var f float64
	switch s, ok := text(v); {
	case ok:
		var err error
		if f, err = strconv.ParseFloat(s, 64); err != nil || math.IsNaN(f) {
			return nil, mismatchf("It must be a number, and the text is none.")
		}
	case v.Type() == cty.Number:
		f, _ = v.AsBigFloat().Float64()
	default:
		return nil, wrongKind(&pluginv1.Type{Kind: pluginv1.Kind_KIND_FLOAT}, v)
	}
	if math.IsInf(f, 0) {
		return nil, mismatchf("The number is too large.")
	}
	return f, nil
}

func toDuration(v cty.Value) (any, *mismatch) {
	s, ok := text(v)
	if v.Type() == cty.Number {
		s, ok = "1", true // any number: the complaint is about the unit
	}
	if !ok {
		return nil, wrongKind(&pluginv1.Type{Kind: pluginv1.Kind_KIND_DURATION}, v)
	}
	d, problem := ParseDuration(s)
	if problem != "" {
		return nil, mismatchf(problem)
	}
	return d, nil
}

func toSize(v cty.Value) (any, *mismatch) {
	if s, ok := text(v); ok {
		n, problem := ParseSize(s)
		if problem != "" {
			return nil, mismatchf(problem)
		}
		return n, nil
	}
	if v.Type() != cty.Number {
		return nil, wrongKind(&pluginv1.Type{Kind: pluginv1.Kind_KIND_SIZE}, v)
	}
	f := v.AsBigFloat()
	n, accuracy := f.Int64()
	switch {
	case f.Sign() < 0:
		return nil, mismatchf("A size cannot be negative.")
	case !f.IsInt():
		return nil, mismatchf("A size in bytes is a whole number.")
	case accuracy != big.Exact || n > maxInt:
		return nil, mismatchf("The size is too large.")
	}
	return n, nil
}

func toList(t *pluginv1.Type, v cty.Value) (any, *mismatch) {
	list := make([]any, 0, v.LengthInt())
	for it := v.ElementIterator(); it.Next(); {
		_, e := it.Element()
		if e.IsNull() {
			return nil, &mismatch{detail: "A list cannot hold null. Leave the element out.", index: len(list)}
		}
		g, bad := toGo(t.GetElement(), e)
		if bad != nil {
			return nil, &mismatch{detail: bad.detail, index: len(list)}
		}
		list = append(list, g)
	}
	return list, nil
}

func toMap(t *pluginv1.Type, v cty.Value) (any, *mismatch) {
	m := make(map[string]any, v.LengthInt())
	for it := v.ElementIterator(); it.Next(); {
		k, e := it.Element()
		if e.IsNull() {
			continue
		}
		g, bad := toGo(t.GetElement(), e)
		if bad != nil {
			return nil, mismatchf("One of its values does not fit. " + bad.detail)
		}
		m[k.AsString()] = g
	}
	return m, nil
}

// kindText is what a user has to write for a value of the type.
func kindText(t *pluginv1.Type) string {
	switch t.GetKind() {
	case pluginv1.Kind_KIND_STRING:
		return "text in quotes"
	case pluginv1.Kind_KIND_BOOL:
		return "true or false"
	case pluginv1.Kind_KIND_INT:
		return "a whole number"
	case pluginv1.Kind_KIND_FLOAT:
		return "a number"
	case pluginv1.Kind_KIND_DURATION:
		return `a duration such as "30s"`
	case pluginv1.Kind_KIND_SIZE:
		return `a size such as "64KiB"`
	case pluginv1.Kind_KIND_LIST:
		return "a list in [ ]"
	case pluginv1.Kind_KIND_MAP:
		return "a map in { }"
	}
	return "of another type"
}

// valueText names what was given, without giving it away.
func valueText(v cty.Value) string {
	switch ty := v.Type(); {
	case v.IsNull():
		return "null"
	case ty == cty.String:
		return "text"
	case ty == cty.Number:
		return "a number"
	case ty == cty.Bool:
		return "true or false"
	case ty.IsTupleType() || ty.IsListType() || ty.IsSetType():
		return "a list"
	case ty.IsObjectType() || ty.IsMapType():
		return "a map"
	}
	return "this"
}
