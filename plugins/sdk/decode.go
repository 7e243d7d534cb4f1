package sdk

import (
	"reflect"
	"time"

	"github.com/tunneld/tunneld/internal/schema"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// decodeConfig reads an upstream's values into the struct that d points to, whose
// schema is block, and fills what is absent with its default. What it returns
// names the path of a mistake and never a value. The daemon has made the same
// checks; one that is older than the SDK has not made all.
func decodeConfig(block *pluginv1.Block, config []byte, d Dialer) (ds []Diagnostic) {
	values, problems := schema.Decode(block, config)
	for _, p := range problems {
		ds = append(ds, Diagnostic{Summary: p.Summary, Detail: p.Detail, Path: p.Path})
	}
	setBlock(block, values, reflect.ValueOf(d).Elem())
	return ds
}

// setBlock puts checked values into a struct.
func setBlock(spec *pluginv1.Block, values schema.Values, dst reflect.Value) {
	t := dst.Type()
	for i := range t.NumField() {
		f, ok, err := fieldOf(t.Field(i))
		if err != nil || !ok {
			continue
		}
		value, present := values[f.name]
		switch inner := schema.Nested(spec, f.name).GetBody(); {
		case f.nesting == pluginv1.Nesting_NESTING_UNSPECIFIED:
			setValue(value, dst.Field(i))
		case present:
			setNested(f, inner, value, dst.Field(i))
		case f.plainStruct:
			setBlock(inner, absent(inner), dst.Field(i))
		}
	}
}

// absent are the values of a body that nobody wrote. Blocks in it were not written
// either: one whose field is a pointer stays nil.
func absent(block *pluginv1.Block) schema.Values {
	values := schema.Defaults(block)
	for _, b := range block.GetBlocks() {
		delete(values, b.GetName())
	}
	return values
}

func setNested(f field, inner *pluginv1.Block, value any, target reflect.Value) {
	switch value := value.(type) {
	case schema.Values:
		if !f.plainStruct {
			target.Set(reflect.New(f.structType))
			target = target.Elem()
		}
		setBlock(inner, value, target)
	case []any:
		out := reflect.MakeSlice(target.Type(), len(value), len(value))
		for i, e := range value {
			e, _ := e.(schema.Values)
			setBlock(inner, e, out.Index(i))
		}
		target.Set(out)
	case map[string]any:
		out := reflect.MakeMapWithSize(target.Type(), len(value))
		for label, v := range value {
			v, _ := v.(schema.Values)
			e := reflect.New(f.structType).Elem()
			setBlock(inner, v, e)
			out.SetMapIndex(reflect.ValueOf(label).Convert(target.Type().Key()), e)
		}
		target.Set(out)
	}
}

// setValue sets dst, whose type the schema was made from. What is absent or wrong
// leaves it as it is.
func setValue(v any, dst reflect.Value) {
	switch v := v.(type) {
	case string:
		if dst.Type() == secretType {
			dst.Set(reflect.ValueOf(NewSecret(v)))
			return
		}
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
			setValue(e, out.Index(i))
		}
		dst.Set(out)
	case map[string]any:
		out := reflect.MakeMapWithSize(dst.Type(), len(v))
		for k, e := range v {
			value := reflect.New(dst.Type().Elem()).Elem()
			setValue(e, value)
			out.SetMapIndex(reflect.ValueOf(k).Convert(dst.Type().Key()), value)
		}
		dst.Set(out)
	}
}
