package sdk

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/tunneld/tunneld/internal/schema"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// SchemaOf derives what an upstream block may hold from the struct that d points to, as
// Serve and package sdktest do. It is for tests, and returns the message of the plugin
// protocol.
//
// Every exported field needs a tag
//
//	`tunneld:"name[,required][,sensitive][,freetext][,orzero]"`
//
// or `tunneld:"-"`, which leaves it out, as unexported fields are. A name is a lower-case
// letter and up to 63 of a-z, 0-9 and _. The options:
//
//	required    the user has to write the attribute or block
//	sensitive   the value is never shown
//	freetext    the text may hold control characters, such as line breaks; without it
//	            they are refused, but for sensitive values: see ValidateSecret
//	orzero      0 is allowed below min, as in "0s" for none
//
// Further tags:
//
//	`default:"…"`         the value where the user wrote none, in the user's notation:
//	                      "30s", "32KiB", "true"; JSON for lists and maps
//	`doc:"…"`             what it is for; also for a block
//	`deprecated:"…"`      what to use instead; also for a block
//	`one_of:"a,b"`        the texts that are allowed
//	`min:"…"`, `max:"…"`  the least and the greatest value, in the user's notation; for
//	                      a text the number of its bytes, for a list or map of its
//	                      elements; for a block those of its durations that have none
//	`pattern:"…"`         a regular expression (RE2) that the whole text has to match
//	`path:"file"`         the text is the path of a file to read; also "folder", "any"
//	`conflicts_with:"…"`  names of the same struct, separated by commas, that must not be
//	                      given beside it; also for a block
//	`required_with:"…"`   names that must be given beside it; also for a block
//	`dial_time:"answer"`  the duration bounds the wait for what the far end says of a
//	                      dial; "step" another part of the dial
//
// For a list or map one_of, pattern and path hold for each element. For conflicts_with
// and required_with an empty value counts as not given. An attribute with a default
// cannot be named there, since it always has a value. The daemon checks all this, and
// tells the user the file and line; the SDK checks it again for a daemon that is older
// than a tag.
//
// The field's Go type decides the type in HCL:
//
//	string                string
//	Secret                string, sensitive
//	bool                  bool
//	int, int64            number without fraction, within ±2^53
//	float64               number
//	time.Duration         duration: "1m30s"; not negative
//	Size                  size: "64KiB"; not negative
//	[]T, map[string]T     list and map of the above or of one another
//	struct                a block, at most one; its defaults where the user wrote none
//	*struct               a block, at most one; nil where the user wrote none
//	[]struct              a block, any number of them
//	map[string]struct     a block with a label, any number of them
//
// TLS and Timeouts are structs for blocks that many plugins have. The error names every
// field that breaks these rules, not just the first.
func SchemaOf(d Dialer) (*pluginv1.Block, error) {
	v := reflect.ValueOf(d)
	if !v.IsValid() || v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
		return nil, fmt.Errorf("schema of %T: not a pointer to a struct", d)
	}
	t := v.Elem().Type()
	var b schemaBuilder
	block := b.block(t, t.Name(), 1)
	err := errors.Join(b.errs...)
	if err == nil {
		err = schema.Check(block)
	}
	if err != nil {
		return nil, fmt.Errorf("schema of %s: %w", t, err)
	}
	return block, nil
}

var (
	secretType   = reflect.TypeFor[Secret]()
	durationType = reflect.TypeFor[time.Duration]()
	sizeType     = reflect.TypeFor[Size]()
)

type schemaBuilder struct{ errs []error }

func (b *schemaBuilder) failf(where, format string, args ...any) {
	b.errs = append(b.errs, fmt.Errorf("%s: %s", where, fmt.Sprintf(format, args...)))
}

func (b *schemaBuilder) block(t reflect.Type, where string, depth int) *pluginv1.Block {
	block := &pluginv1.Block{}
	if depth > schema.MaxDepth { // a struct that contains itself is an error and not an endless loop
		b.failf(where, "blocks nest deeper than %d: does the struct contain itself?", schema.MaxDepth)
		return block
	}
	seen := make(map[string]string)
	for i := range t.NumField() {
		f, ok, err := fieldOf(t.Field(i))
		at := where + "." + t.Field(i).Name
		if err != nil {
			b.failf(at, "%v", err)
			continue
		}
		if !ok {
			continue
		}
		if other, dup := seen[f.name]; dup {
			b.failf(at, "the name %q already belongs to %s", f.name, other)
			continue
		}
		seen[f.name] = t.Field(i).Name
		if f.nesting != pluginv1.Nesting_NESTING_UNSPECIFIED {
			block.Blocks = append(block.Blocks, b.nested(f, at, depth))
		} else {
			block.Attributes = append(block.Attributes, b.attribute(f, at))
		}
	}
	return block
}

func (b *schemaBuilder) nested(f field, at string, depth int) *pluginv1.NestedBlock {
	if f.sensitive || f.hasDefault || f.orZero || f.limited() {
		b.failf(at, "a block is not sensitive, and has no default, no dial_time and no limit but min and max: its attributes may")
	}
	body := b.block(f.structType, at, depth+1)
	body.Doc = f.doc
	for _, a := range body.Attributes {
		if t := a.GetType(); t.GetKind() == pluginv1.Kind_KIND_DURATION && t.MinimumJson+t.MaximumJson == "" {
			b.between(t, f, at)
		}
	}
	if f.plainStruct && !f.required {
		for _, a := range body.Attributes {
			if a.Required {
				b.failf(at, "the block is optional and %q in it is required: make the field a pointer, or the block required", a.Name)
			}
		}
	}
	return &pluginv1.NestedBlock{
		Name: f.name, Nesting: f.nesting, Body: body, Required: f.required,
		Deprecated: f.deprecated, ConflictsWith: f.names("conflicts_with"), RequiredWith: f.names("required_with"),
	}
}

// between sets a type's minimum and maximum.
func (b *schemaBuilder) between(t *pluginv1.Type, f field, at string) {
	for _, limit := range []struct {
		tag string
		to  *string
	}{{"min", &t.MinimumJson}, {"max", &t.MaximumJson}} {
		if text, ok := f.tag.Lookup(limit.tag); ok {
			var err error
			if *limit.to, err = schema.LimitJSON(t, text); err != nil {
				b.failf(at, "%s %q: %v", limit.tag, text, err)
			}
		}
	}
}

// limit sets what the field's tags ask of the values of its type.
func (b *schemaBuilder) limit(t *pluginv1.Type, f field, secret bool, at string) {
	b.between(t, f, at)
	t.OrZero = f.orZero
	element := t
	for element.GetElement() != nil {
		element = element.GetElement()
	}
	element.OneOf, element.Pattern = f.names("one_of"), f.tag.Get("pattern")
	element.OneLine = element.GetKind() == pluginv1.Kind_KIND_STRING && !secret && !f.freeText
	if use, ok := f.tag.Lookup("path"); ok {
		if element.Path = pathUses[use]; element.Path == pluginv1.PathUse_PATH_USE_UNSPECIFIED {
			b.failf(at, `path %q: it is "file", "folder" or "any"`, use)
		}
	}
}

var pathUses = map[string]pluginv1.PathUse{
	"file": pluginv1.PathUse_PATH_USE_FILE, "folder": pluginv1.PathUse_PATH_USE_FOLDER, "any": pluginv1.PathUse_PATH_USE_ANY,
}

var dialTimes = map[string]pluginv1.DialTime{
	"step": pluginv1.DialTime_DIAL_TIME_STEP, "answer": pluginv1.DialTime_DIAL_TIME_ANSWER,
}

func (b *schemaBuilder) attribute(f field, at string) *pluginv1.Attribute {
	a := &pluginv1.Attribute{
		Name:       f.name,
		Required:   f.required,
		Sensitive:  f.sensitive,
		Doc:        f.doc,
		Deprecated: f.deprecated,

		ConflictsWith: f.names("conflicts_with"),
		RequiredWith:  f.names("required_with"),
	}
	if part, ok := f.tag.Lookup("dial_time"); ok {
		if a.DialTime = dialTimes[part]; a.DialTime == pluginv1.DialTime_DIAL_TIME_UNSPECIFIED {
			b.failf(at, `dial_time %q: it is "step" or "answer"`, part)
		}
	}
	typ, secret, err := typeOf(f.typ, 1)
	if err != nil {
		b.failf(at, "%v", err)
		return a
	}
	a.Type = typ
	a.Sensitive = a.Sensitive || secret
	b.limit(typ, f, a.Sensitive, at)
	if !f.hasDefault {
		return a
	}
	if f.required {
		b.failf(at, "a required attribute has no default")
	}
	if a.Sensitive && f.defaultText != "" {
		b.failf(at, "a sensitive attribute has no default")
		return a
	}
	if a.DefaultJson, err = schema.TextJSON(typ, f.defaultText); err != nil {
		b.failf(at, "default %q: %v", f.defaultText, err)
	}
	return a
}

// field is one tagged field of a configuration struct.
type field struct {
	index       int
	name        string
	typ         reflect.Type
	required    bool
	sensitive   bool
	freeText    bool
	orZero      bool
	hasDefault  bool
	defaultText string
	doc         string
	deprecated  string
	tag         reflect.StructTag // for the rest

	// Of a block: how it nests, its struct, and whether the field is the
	// struct itself and not a pointer to it.
	nesting     pluginv1.Nesting
	structType  reflect.Type
	plainStruct bool
}

// fieldOf reads a field's tags; false means that the field is left out.
func fieldOf(sf reflect.StructField) (field, bool, error) {
	tag, tagged := sf.Tag.Lookup("tunneld")
	switch {
	case tag == "-":
		return field{}, false, nil
	case !sf.IsExported() && tagged:
		return field{}, false, errors.New("an unexported field cannot be set: export it or drop the tag")
	case !sf.IsExported():
		return field{}, false, nil
	case !tagged:
		return field{}, false, errors.New(`no tunneld tag: give it a name, or "-" to leave the field out`)
	}
	name, options, _ := strings.Cut(tag, ",")
	f := field{index: sf.Index[0], name: name, typ: sf.Type, doc: sf.Tag.Get("doc"), deprecated: sf.Tag.Get("deprecated"), tag: sf.Tag}
	f.defaultText, f.hasDefault = sf.Tag.Lookup("default")
	if !schema.IsName(name) {
		return field{}, false, fmt.Errorf("name %q: "+schema.NameRule, name)
	}
	for o := range strings.SplitSeq(options, ",") {
		switch o {
		case "":
		case "required":
			f.required = true
		case "sensitive":
			f.sensitive = true
		case "freetext":
			f.freeText = true
		case "orzero":
			f.orZero = true
		default:
			return field{}, false, fmt.Errorf("unknown option %q: the options are required, sensitive, freetext and orzero", o)
		}
	}
	f.asBlock()
	return f, true, nil
}

// names returns the names that a tag lists.
func (f field) names(tag string) []string {
	if f.tag.Get(tag) == "" {
		return nil
	}
	return strings.Split(f.tag.Get(tag), ",")
}

// limited says whether there is a tag that only attributes have.
func (f field) limited() bool {
	for _, tag := range []string{"one_of", "pattern", "path", "dial_time"} {
		if _, ok := f.tag.Lookup(tag); ok {
			return true
		}
	}
	return false
}

// asBlock finds out whether the field is a block.
func (f *field) asBlock() {
	t := f.typ
	switch {
	case isStruct(t):
		f.nesting, f.structType, f.plainStruct = pluginv1.Nesting_NESTING_SINGLE, t, true
	case t.Kind() == reflect.Pointer && isStruct(t.Elem()):
		f.nesting, f.structType = pluginv1.Nesting_NESTING_SINGLE, t.Elem()
	case t.Kind() == reflect.Slice && isStruct(t.Elem()):
		f.nesting, f.structType = pluginv1.Nesting_NESTING_REPEATED, t.Elem()
	case t.Kind() == reflect.Map && t.Key().Kind() == reflect.String && isStruct(t.Elem()):
		f.nesting, f.structType = pluginv1.Nesting_NESTING_LABELLED, t.Elem()
	}
}

func isStruct(t reflect.Type) bool { return t.Kind() == reflect.Struct && t != secretType }

// typeOf returns the schema's type of a Go type, and whether secrets are in it.
func typeOf(t reflect.Type, depth int) (typ *pluginv1.Type, secret bool, err error) {
	if depth > schema.MaxDepth {
		return nil, false, fmt.Errorf("lists and maps nest deeper than %d", schema.MaxDepth)
	}
	switch t {
	case secretType:
		return &pluginv1.Type{Kind: pluginv1.Kind_KIND_STRING}, true, nil
	case durationType:
		return &pluginv1.Type{Kind: pluginv1.Kind_KIND_DURATION}, false, nil
	case sizeType:
		return &pluginv1.Type{Kind: pluginv1.Kind_KIND_SIZE}, false, nil
	}
	var kind pluginv1.Kind
	switch t.Kind() {
	case reflect.String:
		kind = pluginv1.Kind_KIND_STRING
	case reflect.Bool:
		kind = pluginv1.Kind_KIND_BOOL
	case reflect.Int, reflect.Int64:
		kind = pluginv1.Kind_KIND_INT
	case reflect.Float64:
		kind = pluginv1.Kind_KIND_FLOAT
	case reflect.Slice:
		kind = pluginv1.Kind_KIND_LIST
	case reflect.Map:
		if t.Key().Kind() != reflect.String {
			return nil, false, fmt.Errorf("type %s: a map's keys are strings", t)
		}
		kind = pluginv1.Kind_KIND_MAP
	case reflect.Pointer:
		return nil, false, fmt.Errorf("type %s: only a block may be a pointer; give the attribute a default instead", t)
	default:
		return nil, false, fmt.Errorf("type %s is not one of the schema's: see SchemaOf", t)
	}
	typ = &pluginv1.Type{Kind: kind}
	if kind == pluginv1.Kind_KIND_LIST || kind == pluginv1.Kind_KIND_MAP {
		if typ.Element, secret, err = typeOf(t.Elem(), depth+1); err != nil {
			return nil, false, err
		}
	}
	return typ, secret, nil
}
