package hclbody

import (
	"math"
	"math/big"

	"github.com/zclconf/go-cty/cty"

	"github.com/tunneld/tunneld/internal/schema"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

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
	ty := v.Type()
	switch k := t.GetKind(); {
	case ty == cty.String:
		if value, problem, ok := schema.ParseText(k, v.AsString()); problem != "" {
			return nil, mismatchf(problem)
		} else if ok {
			return value, nil
		}
	case ty == cty.Bool:
		if k == pluginv1.Kind_KIND_BOOL {
			return v.True(), nil
		}
	case ty == cty.Number:
		if value, bad, ok := number(k, v.AsBigFloat()); ok {
			return value, bad
		}
	case k == pluginv1.Kind_KIND_LIST && isList(ty):
		return toList(t, v)
	case k == pluginv1.Kind_KIND_MAP && isMap(ty):
		return toMap(t, v)
	}
	return nil, wrongKind(t, v)
}

func isList(ty cty.Type) bool { return ty.IsTupleType() || ty.IsListType() || ty.IsSetType() }

func isMap(ty cty.Type) bool { return ty.IsObjectType() || ty.IsMapType() }

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

// number turns a number that is written without quotes into one of the kind; ok is
// false where that is none of numbers.
func number(k pluginv1.Kind, f *big.Float) (value any, bad *mismatch, ok bool) {
	n, accuracy := f.Int64()
	outside := accuracy != big.Exact || n < -schema.MaxInt || n > schema.MaxInt
	switch k {
	case pluginv1.Kind_KIND_INT:
		switch {
		case !f.IsInt():
			return nil, mismatchf(schema.NotWhole), true
		case outside:
			return nil, mismatchf(schema.OutsideInt), true
		}
		return n, nil, true
	case pluginv1.Kind_KIND_SIZE:
		switch {
		case f.Sign() < 0:
			return nil, mismatchf(schema.NegativeSize), true
		case !f.IsInt():
			return nil, mismatchf(schema.BrokenSize), true
		case outside:
			return nil, mismatchf(schema.LargeSize), true
		}
		return n, nil, true
	case pluginv1.Kind_KIND_FLOAT:
		double, _ := f.Float64()
		if math.IsInf(double, 0) {
			return nil, mismatchf(schema.TooLarge), true
		}
		return double, nil, true
	case pluginv1.Kind_KIND_DURATION:
		_, problem := schema.ParseDuration("1") // of any number the unit is missing
		return nil, mismatchf(problem), true
	}
	return nil, nil, false
}

func toList(t *pluginv1.Type, v cty.Value) (any, *mismatch) {
	list := make([]any, 0, v.LengthInt())
	for it := v.ElementIterator(); it.Next(); {
		_, e := it.Element()
		if e.IsNull() {
			return nil, &mismatch{detail: "A list cannot contain null. Leave the element out.", index: len(list)}
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
	case isList(ty):
		return "a list"
	case isMap(ty):
		return "a map"
	}
	return "this"
}
