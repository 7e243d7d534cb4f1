// Package hclbody decodes the body of a block against its schema, and prints a schema
// for people and as HCL. It starts no plugin and knows none of the language's blocks.
package hclbody

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/tunneld/tunneld/internal/schema"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// Problem is something that is wrong with a body. Its texts never hold a value
// of the configuration, only names and types.
type Problem struct {
	// Warning makes it a warning; a problem is an error otherwise.
	Warning bool
	// Machine says that what is written may be right, but that this machine does
	// not have it now.
	Machine bool
	// Summary says what is wrong, Detail what to do next.
	Summary, Detail string
	// Range is the place in the source.
	Range hcl.Range
}

// Decoder decodes bodies. It is not safe for concurrent use.
type Decoder struct {
	// Eval computes an expression. It tells the user itself what is wrong with
	// one, and then returns false.
	Eval func(hclsyntax.Expression) (cty.Value, bool)
	// Later says that a name which the schema does not have is taken for what
	// is to come; nil: none is.
	Later func(path []string, name string) bool
	// Elsewhere says what has a name that the schema does not have: "a listener of kind
	// tcp"; empty, or nil: nothing known.
	Elsewhere func(path []string, name string) string
	// Instead names, by attribute that is required, another that can be written in its
	// place, if the schema has it.
	Instead map[string]string
	// Fill fills in the defaults of single blocks that are absent. Without it
	// such a block is left out.
	Fill bool

	problems []Problem
	// wrong are the attributes that are given and have no value.
	wrong []wrong
}

type wrong struct {
	in   schema.Values
	name string
}

// Decode decodes the body against block, which Check has found sane, and
// returns all that is wrong with it. header is the place of the block's header,
// for what is missing. Attributes without a type are left to the caller. The
// values are whole only if no problem is an error and Eval always returned
// true.
func (d *Decoder) Decode(block *pluginv1.Block, body *hclsyntax.Body, header hcl.Range) (schema.Values, []Problem) {
	d.problems, d.wrong = nil, nil
	v := d.body(scope{block: block, body: body, header: header})
	for _, p := range schema.Validate(block, v) {
		d.problem(Locate(body, header, p.Path...), p.Summary, p.Detail)
	}
	for _, w := range d.wrong {
		delete(w.in, w.name)
	}
	slices.SortStableFunc(d.problems, func(a, b Problem) int { return a.Range.Start.Byte - b.Range.Start.Byte })
	return v, d.problems
}

// scope is a body at work: what it may hold, what it holds, where it is.
type scope struct {
	block  *pluginv1.Block
	body   *hclsyntax.Body
	header hcl.Range
	path   []string
}

func (d *Decoder) problem(at hcl.Range, summary, detail string) {
	d.problems = append(d.problems, Problem{Summary: summary, Detail: detail, Range: at})
}

func (d *Decoder) body(s scope) schema.Values {
	values := schema.Values{}
	for _, spec := range s.block.GetAttributes() {
		d.attribute(s, spec, values)
	}
	for _, spec := range s.block.GetBlocks() {
		d.nested(s, spec, values)
	}
	d.unknown(s)
	return values
}

func (d *Decoder) attribute(s scope, spec *pluginv1.Attribute, values schema.Values) {
	name := spec.GetName()
	if value, ok := schema.Default(spec); ok {
		values[name] = value
	}
	attr, given := s.body.Attributes[name]
	if given && spec.GetDeprecated() != "" {
		d.problems = append(d.problems, Problem{
			Warning: true,
			Summary: fmt.Sprintf("Deprecated attribute %q", name),
			Detail:  spec.GetDeprecated(),
			Range:   attr.NameRange,
		})
	}
	if given && spec.GetType() == nil {
		return
	}
	var v cty.Value
	if given {
		var ok bool
		if v, ok = d.Eval(attr.Expr); !ok {
			d.spoil(values, name)
			return
		}
	}
	if !given || v.IsNull() {
		if spec.GetRequired() && (given || !s.misspelt(name)) {
			d.missing(s, spec)
		}
		return
	}
	value, bad := toGo(spec.GetType(), v)
	if bad == nil {
		values[name] = value
		return
	}
	d.spoil(values, name)
	at, summary := attr.Expr.StartRange(), fmt.Sprintf("Wrong value for %q", name)
	if bad.index >= 0 {
		summary = fmt.Sprintf("Wrong value for element %d of %q", bad.index+1, name)
		if list, ok := attr.Expr.(*hclsyntax.TupleConsExpr); ok && bad.index < len(list.Exprs) {
			at = list.Exprs[bad.index].StartRange()
		}
	}
	d.problem(at, summary, bad.detail)
}

// missing reports a required attribute, unless what can be written in its place is.
func (d *Decoder) missing(s scope, spec *pluginv1.Attribute) {
	write := fmt.Sprintf("%s = %s", spec.GetName(), example(spec.GetType()))
	if other := schema.Attribute(s.block, d.Instead[spec.GetName()]); other != nil {
		if s.misspelt(other.GetName()) {
			return
		}
		if attr, given := s.body.Attributes[other.GetName()]; given {
			if v, ok := d.Eval(attr.Expr); !ok || !v.IsNull() {
				return
			}
		}
		write += fmt.Sprintf(", or %s = %s", other.GetName(), example(other.GetType()))
	}
	d.problem(s.header, fmt.Sprintf("Missing attribute %q", spec.GetName()), "It is required here. Write: "+write)
}

// spoil remembers that an attribute is given whose value cannot be determined.
func (d *Decoder) spoil(values schema.Values, name string) {
	values[name] = schema.Wrong{}
	d.wrong = append(d.wrong, wrong{values, name})
}

func (d *Decoder) nested(s scope, spec *pluginv1.NestedBlock, values schema.Values) {
	name := spec.GetName()
	var found []*hclsyntax.Block
	for _, b := range s.body.Blocks {
		if b.Type == name {
			found = append(found, b)
		}
	}
	if len(found) == 0 {
		if _, asAttribute := s.body.Attributes[name]; spec.GetRequired() && !asAttribute {
			d.problem(s.header, fmt.Sprintf("Missing block %q", name), fmt.Sprintf("It is required here. Write: %s { … }", header(spec)))
		}
		if d.Fill && spec.GetNesting() == pluginv1.Nesting_NESTING_SINGLE {
			values[name] = schema.Defaults(spec.GetBody())
		}
		return
	}
	if spec.GetDeprecated() != "" {
		for _, b := range found {
			d.problems = append(d.problems, Problem{
				Warning: true, Summary: fmt.Sprintf("Deprecated block %q", name), Detail: spec.GetDeprecated(), Range: b.TypeRange,
			})
		}
	}
	switch spec.GetNesting() {
	case pluginv1.Nesting_NESTING_SINGLE:
		for _, extra := range found[1:] {
			d.problem(extra.TypeRange, fmt.Sprintf("Block %q is defined twice", name), fmt.Sprintf("Only one is allowed; the first is on line %d. Merge the two.", found[0].TypeRange.Start.Line))
		}
		d.labels(found[0], 0)
		values[name] = d.body(s.step(spec, found[0], name))
	case pluginv1.Nesting_NESTING_REPEATED:
		list := make([]any, 0, len(found))
		for i, b := range found {
			d.labels(b, 0)
			list = append(list, d.body(s.step(spec, b, name, strconv.Itoa(i))))
		}
		values[name] = list
	case pluginv1.Nesting_NESTING_LABELLED:
		values[name] = d.labelled(s, spec, found)
	}
}

func (d *Decoder) labelled(s scope, spec *pluginv1.NestedBlock, found []*hclsyntax.Block) map[string]any {
	byLabel := map[string]any{}
	lines := map[string]int{}
	for _, b := range found {
		if !d.labels(b, 1) {
			continue
		}
		label := b.Labels[0]
		if line, twice := lines[label]; twice {
			d.problem(b.TypeRange, fmt.Sprintf("Two blocks %q with one label", b.Type), fmt.Sprintf("The first is on line %d. Give each its own label.", line))
			continue
		}
		lines[label] = b.TypeRange.Start.Line
		byLabel[label] = d.body(s.step(spec, b, spec.GetName(), label))
	}
	return byLabel
}

func (s scope) step(spec *pluginv1.NestedBlock, b *hclsyntax.Block, steps ...string) scope {
	return scope{block: spec.GetBody(), body: b.Body, header: b.TypeRange, path: append(slices.Clip(s.path), steps...)}
}

// labels checks the number of labels. A label may be a secret whose equals sign
// was forgotten, so none is repeated.
func (d *Decoder) labels(b *hclsyntax.Block, want int) bool {
	if len(b.Labels) == want {
		return true
	}
	detail := fmt.Sprintf("A block of this name has no labels. Write: %s { … }", b.Type)
	if want == 1 {
		detail = fmt.Sprintf("A block of this name has one label. Write: %s \"NAME\" { … }", b.Type)
	}
	d.problem(b.TypeRange, fmt.Sprintf("Wrong number of labels for %q", b.Type), detail)
	return false
}

// unknown reports what the schema does not have.
func (d *Decoder) unknown(s scope) {
	for name, attr := range s.body.Attributes {
		switch {
		case schema.Attribute(s.block, name) != nil:
		case schema.Nested(s.block, name) != nil:
			d.problem(attr.NameRange, fmt.Sprintf("%q is a block", name), fmt.Sprintf("Write it without the equals sign: %s { … }", header(schema.Nested(s.block, name))))
		default:
			d.unknownName(s, attr.NameRange, "attribute", name)
		}
	}
	for _, b := range s.body.Blocks {
		switch {
		case schema.Nested(s.block, b.Type) != nil:
		case schema.Attribute(s.block, b.Type) != nil:
			d.problem(b.TypeRange, fmt.Sprintf("%q is an attribute", b.Type), fmt.Sprintf("Write it with an equals sign: %s = %s", b.Type, example(schema.Attribute(s.block, b.Type).GetType())))
		default:
			d.unknownName(s, b.TypeRange, "block", b.Type)
		}
	}
}

// misspelt says whether an unknown attribute of the body was meant to be name:
// then the one complaint is enough.
func (s scope) misspelt(name string) bool {
	for given := range s.body.Attributes {
		if schema.Attribute(s.block, given) == nil && schema.Suggest(given, s.known()) == name {
			return true
		}
	}
	return false
}

// known are the names that the body may hold.
func (s scope) known() []string {
	var names []string
	for _, a := range s.block.GetAttributes() {
		names = append(names, a.GetName())
	}
	for _, b := range s.block.GetBlocks() {
		names = append(names, b.GetName())
	}
	return names
}

func (d *Decoder) unknownName(s scope, at hcl.Range, what, name string) {
	if d.Later != nil && d.Later(s.path, name) {
		d.problem(at, fmt.Sprintf("%q is not implemented yet", name), "The name is reserved for a later version of tunneld. Remove it.")
		return
	}
	if d.Elsewhere != nil {
		if of := d.Elsewhere(s.path, name); of != "" {
			d.problem(at, fmt.Sprintf("%q does not belong here", name), fmt.Sprintf("It is for %s. Remove it.", of))
			return
		}
	}
	known := s.known()
	detail := "Nothing can be set here. Remove it."
	if similar := schema.Suggest(name, known); similar != "" {
		detail = fmt.Sprintf("Did you mean %q?", similar)
	} else if len(known) > 0 {
		slices.Sort(known)
		detail = "Known here: " + list(known) + "."
	}
	d.problem(at, fmt.Sprintf("Unknown %s %q", what, name), detail)
}

// list joins names for a sentence, and not more than a reader takes in.
func list(names []string) string {
	const most = 24
	s := ""
	for i, n := range names {
		switch {
		case i == most:
			return fmt.Sprintf("%s and %d more", s, len(names)-most)
		case i > 0:
			s += ", "
		}
		s += n
	}
	return s
}

func header(b *pluginv1.NestedBlock) string {
	if b.GetNesting() == pluginv1.Nesting_NESTING_LABELLED {
		return b.GetName() + ` "NAME"`
	}
	return b.GetName()
}
