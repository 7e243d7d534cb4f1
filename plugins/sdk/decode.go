package sdk

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"time"

	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// decodeConfig reads an upstream's values into the struct that d points to and
// fills what is absent with its default. It is strict, and what it returns
// names the path of a mistake and never a value. The struct's type has a valid
// schema.
func decodeConfig(config []byte, d Dialer) []Diagnostic {
	v, err := parseJSON(config)
	if err != nil {
		return []Diagnostic{{Summary: "the configuration is not valid JSON"}}
	}
	var dec decoder
	dec.block(v, reflect.ValueOf(d).Elem(), nil)
	return dec.ds
}

type decoder struct {
	ds []Diagnostic
	// free says that the texts of the attribute at hand may hold anything.
	free bool
}

func (d *decoder) failf(path []string, format string, args ...any) {
	d.ds = append(d.ds, Diagnostic{Summary: fmt.Sprintf(format, args...), Path: slices.Clone(path)})
}

// step returns path with one more step, in memory of its own.
func step(path []string, name string) []string { return append(slices.Clone(path), name) }

func (d *decoder) block(v any, dst reflect.Value, path []string) {
	values, ok := v.(map[string]any)
	if !ok {
		d.failf(path, "must be an object, not %s", jsonKind(v))
		return
	}
	if b, ok := dst.Addr().Interface().(*TLS); ok {
		b.keep()
	}
	known := make(map[string]bool)
	t := dst.Type()
	for i := range t.NumField() {
		f, ok, err := fieldOf(t.Field(i))
		if err != nil || !ok {
			continue
		}
		known[f.name] = true
		value, present := values[f.name]
		at := step(path, f.name)
		switch target := dst.Field(i); {
		case present && value == nil:
			d.failf(at, "must not be null: leave it out instead")
		case f.nesting != pluginv1.Nesting_NESTING_UNSPECIFIED:
			d.nested(f, value, present, target, at)
		case present:
			d.free = f.freeText || f.sensitive
			d.value(value, target, at)
		case f.required:
			d.failf(at, "required attribute is missing")
		case f.hasDefault:
			d.fillDefault(f, target, at)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if !known[name] {
			d.failf(step(path, name), "unknown attribute or block")
		}
	}
}

// fillDefault sets a field's default; the schema's builder has checked it.
func (d *decoder) fillDefault(f field, target reflect.Value, at []string) {
	typ, _, err := typeOf(f.typ, 0)
	if err != nil {
		return
	}
	value, err := defaultValue(typ, f.defaultText)
	if err != nil {
		return
	}
	text, err := json.Marshal(value)
	if err != nil {
		return
	}
	if value, err = parseJSON(text); err == nil {
		d.value(value, target, at)
	}
}

func (d *decoder) nested(f field, value any, present bool, target reflect.Value, at []string) {
	if !present {
		switch {
		case f.required:
			d.failf(at, "required block is missing")
		case f.plainStruct:
			d.block(map[string]any{}, target, at)
		}
		return
	}
	switch f.nesting {
	case pluginv1.Nesting_NESTING_SINGLE:
		if !f.plainStruct {
			target.Set(reflect.New(f.structType))
			target = target.Elem()
		}
		d.block(value, target, at)
	case pluginv1.Nesting_NESTING_REPEATED:
		list, ok := value.([]any)
		if !ok {
			d.failf(at, "must be an array, not %s", jsonKind(value))
			return
		}
		out := reflect.MakeSlice(target.Type(), len(list), len(list))
		for i, e := range list {
			d.block(e, out.Index(i), step(at, strconv.Itoa(i)))
		}
		d.requireSome(f, len(list), at)
		target.Set(out)
	case pluginv1.Nesting_NESTING_LABELLED:
		object, ok := value.(map[string]any)
		if !ok {
			d.failf(at, "must be an object, not %s", jsonKind(value))
			return
		}
		out := reflect.MakeMapWithSize(target.Type(), len(object))
		for _, label := range slices.Sorted(maps.Keys(object)) {
			d.free = false
			d.checkText(label, at)
			e := reflect.New(f.structType).Elem()
			d.block(object[label], e, step(at, label))
			out.SetMapIndex(reflect.ValueOf(label).Convert(target.Type().Key()), e)
		}
		d.requireSome(f, len(object), at)
		target.Set(out)
	}
}

func (d *decoder) requireSome(f field, n int, at []string) {
	if f.required && n == 0 {
		d.failf(at, "required block is missing")
	}
}

func (d *decoder) value(v any, dst reflect.Value, path []string) {
	switch dst.Type() {
	case secretType:
		if s, ok := d.text(v, path); ok {
			dst.Set(reflect.ValueOf(NewSecret(s)))
		}
		return
	case durationType:
		s, ok := d.text(v, path)
		if !ok {
			return
		}
		duration, err := parseDuration(s)
		if err != nil {
			d.failf(path, "%v", err)
			return
		}
		if duration < 0 {
			d.failf(path, "must not be negative")
			return
		}
		dst.SetInt(int64(duration / time.Nanosecond))
		return
	case sizeType:
		if n, ok := d.whole(v, path); ok {
			if n < 0 {
				d.failf(path, "must not be negative")
				return
			}
			dst.SetInt(n)
		}
		return
	}
	switch dst.Kind() {
	case reflect.String:
		if s, ok := d.text(v, path); ok {
			d.checkText(s, path)
			dst.SetString(s)
		}
	case reflect.Bool:
		b, ok := v.(bool)
		if !ok {
			d.failf(path, "must be a boolean, not %s", jsonKind(v))
			return
		}
		dst.SetBool(b)
	case reflect.Int, reflect.Int64:
		if n, ok := d.whole(v, path); ok {
			dst.SetInt(n)
		}
	case reflect.Float64:
		n, ok := v.(json.Number)
		if !ok {
			d.failf(path, "must be a number, not %s", jsonKind(v))
			return
		}
		f, err := n.Float64()
		if err != nil {
			d.failf(path, "is too large a number")
			return
		}
		dst.SetFloat(f)
	case reflect.Slice:
		d.list(v, dst, path)
	case reflect.Map:
		d.mapping(v, dst, path)
	}
}

func (d *decoder) list(v any, dst reflect.Value, path []string) {
	list, ok := v.([]any)
	if !ok {
		d.failf(path, "must be an array, not %s", jsonKind(v))
		return
	}
	out := reflect.MakeSlice(dst.Type(), len(list), len(list))
	for i, e := range list {
		d.element(e, out.Index(i), step(path, strconv.Itoa(i)))
	}
	dst.Set(out)
}

func (d *decoder) mapping(v any, dst reflect.Value, path []string) {
	object, ok := v.(map[string]any)
	if !ok {
		d.failf(path, "must be an object, not %s", jsonKind(v))
		return
	}
	out := reflect.MakeMapWithSize(dst.Type(), len(object))
	for _, k := range slices.Sorted(maps.Keys(object)) {
		d.checkText(k, path)
		e := reflect.New(dst.Type().Elem()).Elem()
		d.element(object[k], e, step(path, k))
		out.SetMapIndex(reflect.ValueOf(k).Convert(dst.Type().Key()), e)
	}
	dst.Set(out)
}

func (d *decoder) element(v any, dst reflect.Value, path []string) {
	if v == nil {
		d.failf(path, "must not be null")
		return
	}
	d.value(v, dst, path)
}

func (d *decoder) checkText(s string, path []string) {
	if !d.free {
		d.ds = append(d.ds, ValidateText(s, path...)...)
	}
}

func (d *decoder) text(v any, path []string) (string, bool) {
	s, ok := v.(string)
	if !ok {
		d.failf(path, "must be a string, not %s", jsonKind(v))
	}
	return s, ok
}

func (d *decoder) whole(v any, path []string) (int64, bool) {
	n, ok := v.(json.Number)
	if !ok {
		d.failf(path, "must be a whole number, not %s", jsonKind(v))
		return 0, false
	}
	i, err := wholeNumber(n)
	if err != nil {
		d.failf(path, "%v", err)
		return 0, false
	}
	return i, true
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
	default:
		return "an object"
	}
}
