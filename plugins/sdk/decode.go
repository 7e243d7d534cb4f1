package sdk

import (
	"maps"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/tunneld/tunneld/internal/schema"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// decodeConfig reads an upstream's values into the struct that d points to, whose
// schema is block, and fills what is absent with its default. What it returns
// names the path of a mistake and never a value. The daemon has made the same
// checks; one that is older than the SDK has not made all.
func decodeConfig(block *pluginv1.Block, config []byte, d Dialer) []Diagnostic {
	values, problems := schema.Decode(block, config)
	var dec decoder
	for _, p := range problems {
		dec.ds = append(dec.ds, Diagnostic{Summary: p.Summary, Detail: p.Detail, Path: p.Path})
	}
	dec.block(block, values, reflect.ValueOf(d).Elem(), nil)
	return dec.ds
}

// decoder puts checked values into a struct.
type decoder struct {
	ds []Diagnostic
	// free says that the texts of the attribute at hand may hold anything.
	free bool
}

// step returns path with one more step, in memory of its own.
func step(path []string, name string) []string { return append(slices.Clone(path), name) }

func (d *decoder) block(spec *pluginv1.Block, values schema.Values, dst reflect.Value, path []string) {
	t := dst.Type()
	for i := range t.NumField() {
		f, ok, err := fieldOf(t.Field(i))
		if err != nil || !ok {
			continue
		}
		at := step(path, f.name)
		value, present := values[f.name]
		switch inner := schema.Nested(spec, f.name).GetBody(); {
		case f.nesting == pluginv1.Nesting_NESTING_UNSPECIFIED:
			d.free = f.freeText || f.sensitive
			d.value(value, dst.Field(i), at)
		case present:
			d.nested(f, inner, value, dst.Field(i), at)
		case f.plainStruct:
			d.block(inner, schema.Defaults(inner), dst.Field(i), at)
		}
	}
}

func (d *decoder) nested(f field, inner *pluginv1.Block, value any, target reflect.Value, at []string) {
	switch value := value.(type) {
	case schema.Values:
		if !f.plainStruct {
			target.Set(reflect.New(f.structType))
			target = target.Elem()
		}
		d.block(inner, value, target, at)
	case []any:
		out := reflect.MakeSlice(target.Type(), len(value), len(value))
		for i, e := range value {
			e, _ := e.(schema.Values)
			d.block(inner, e, out.Index(i), step(at, strconv.Itoa(i)))
		}
		target.Set(out)
	case map[string]any:
		out := reflect.MakeMapWithSize(target.Type(), len(value))
		for _, label := range slices.Sorted(maps.Keys(value)) {
			d.free = false
			d.checkText(label, at)
			e := reflect.New(f.structType).Elem()
			v, _ := value[label].(schema.Values)
			d.block(inner, v, e, step(at, label))
			out.SetMapIndex(reflect.ValueOf(label).Convert(target.Type().Key()), e)
		}
		target.Set(out)
	}
}

// value sets dst, whose type the schema was made from. What is absent or wrong
// leaves it as it is.
func (d *decoder) value(v any, dst reflect.Value, path []string) {
	switch v := v.(type) {
	case string:
		if dst.Type() == secretType {
			dst.Set(reflect.ValueOf(NewSecret(v)))
			return
		}
		d.checkText(v, path)
		dst.SetString(v)
	case bool:
		dst.SetBool(v)
	case int64:
		dst.SetInt(v)
	case time.Duration:
		dst.SetInt(int64(v))
	case float64:
		dst.SetFloat(v)
	case []any:
		out := reflect.MakeSlice(dst.Type(), len(v), len(v))
		for i, e := range v {
			d.value(e, out.Index(i), step(path, strconv.Itoa(i)))
		}
		dst.Set(out)
	case map[string]any:
		out := reflect.MakeMapWithSize(dst.Type(), len(v))
		for _, k := range slices.Sorted(maps.Keys(v)) {
			d.checkText(k, path)
			e := reflect.New(dst.Type().Elem()).Elem()
			d.value(v[k], e, step(path, k))
			out.SetMapIndex(reflect.ValueOf(k).Convert(dst.Type().Key()), e)
		}
		dst.Set(out)
	}
}

func (d *decoder) checkText(s string, path []string) {
	if !d.free {
		d.ds = append(d.ds, ValidateText(s, path...)...)
	}
}
