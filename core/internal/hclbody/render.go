package hclbody

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/zclconf/go-cty/cty"

	"github.com/hashicorp/hcl/v2/hclwrite"

	"github.com/tunneld/tunneld/internal/schema"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// Formats are the formats that Render knows.
var Formats = []string{"text", "hcl", "json", "markdown"}

// Render prints the schema of the named plugin's upstreams: "text" for a
// terminal, "hcl" as a commented example, "json" for programs, "markdown" for a
// README. Defaults of sensitive attributes are left out.
func Render(w io.Writer, format, plugin string, block *pluginv1.Block) error {
	switch format {
	case "text":
		return renderText(w, plugin, block)
	case "hcl":
		return renderHCL(w, plugin, block)
	case "json":
		return renderJSON(w, plugin, block)
	case "markdown":
		return renderMarkdown(w, block)
	}
	return fmt.Errorf("render schema: unknown format %q (known: %s)", format, strings.Join(Formats, ", "))
}

func renderText(w io.Writer, plugin string, block *pluginv1.Block) error {
	var b strings.Builder
	fmt.Fprintf(&b, "upstream %q \"NAME\" { … }\n", plugin)
	if doc := clean(block.GetDoc()); doc != "" {
		b.WriteString("\n" + doc + "\n")
	}
	if targets := targetsText[block.GetTargets()]; targets != "" {
		b.WriteString("\n" + targets + "\n")
	}
	b.WriteString("\n")
	tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	textBody(tw, block, "  ")
	if err := tw.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(b.String()) {
		if _, err := io.WriteString(w, strings.TrimRight(line, " \n")+"\n"); err != nil {
			return err
		}
	}
	return nil
}

var targetsText = map[pluginv1.Targets]string{
	pluginv1.Targets_TARGETS_PORT:  "Targets have a port.",
	pluginv1.Targets_TARGETS_LABEL: "A target may be a label, without a port.",
}

func textBody(w io.Writer, block *pluginv1.Block, indent string) {
	for _, a := range block.GetAttributes() {
		facts := []string{typeText(a.GetType())}
		if a.GetRequired() {
			facts = append(facts, "required")
		}
		if a.GetSensitive() {
			facts = append(facts, "sensitive")
		}
		if d := defaultText(a); d != "" {
			facts = append(facts, "default "+d)
		}
		fmt.Fprintf(w, "%s%s\t%s\t%s\n", indent, a.GetName(), strings.Join(facts, ", "), docText(a))
	}
	for _, n := range block.GetBlocks() {
		fmt.Fprintf(w, "%s%s { … }\t%s\t%s\n", indent, header(n), nestingText(n), blockText(n))
		textBody(w, n.GetBody(), indent+"  ")
	}
}

func renderMarkdown(w io.Writer, block *pluginv1.Block) error {
	var b strings.Builder
	if doc := clean(block.GetDoc()); doc != "" {
		b.WriteString(doc + "\n\n")
	}
	markdownBody(&b, block, "")
	_, err := io.WriteString(w, b.String())
	return err
}

func markdownBody(b *strings.Builder, block *pluginv1.Block, path string) {
	if len(block.GetAttributes()) > 0 {
		b.WriteString("| attribute | type | default | meaning |\n|---|---|---|---|\n")
		for _, a := range block.GetAttributes() {
			kind := typeText(a.GetType())
			if a.GetSensitive() {
				kind += ", sensitive"
			}
			def := defaultText(a)
			switch {
			case a.GetRequired():
				def = "required"
			case def != "":
				def = "`" + def + "`"
			}
			fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", a.GetName(), kind, cell(def), cell(docText(a)))
		}
		b.WriteString("\n")
	}
	for _, n := range block.GetBlocks() {
		fmt.Fprintf(b, "Block `%s%s { … }`, %s:\n\n", path, header(n), nestingText(n))
		if doc := blockText(n); doc != "" {
			b.WriteString(doc + "\n\n")
		}
		markdownBody(b, n.GetBody(), path+n.GetName()+".")
	}
}

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

func renderHCL(w io.Writer, plugin string, block *pluginv1.Block) error {
	var b strings.Builder
	comment(&b, "", block.GetDoc())
	fmt.Fprintf(&b, "upstream %q \"example\" {\n", plugin)
	hclBody(&b, block, "  ")
	b.WriteString("}\n")
	_, err := w.Write(hclwrite.Format([]byte(b.String())))
	return err
}

func hclBody(b *strings.Builder, block *pluginv1.Block, indent string) {
	for i, a := range block.GetAttributes() {
		if i > 0 {
			b.WriteString("\n")
		}
		comment(b, indent, docText(a))
		facts := typeText(a.GetType())
		if a.GetSensitive() {
			facts += ", sensitive"
		}
		value := example(a.GetType())
		switch d := defaultText(a); {
		case a.GetRequired():
			fmt.Fprintf(b, "%s# %s, required\n%s%s = %s\n", indent, facts, indent, a.GetName(), value)
			continue
		case d != "":
			facts, value = facts+", this is the default", d
		}
		fmt.Fprintf(b, "%s# %s\n%s# %s = %s\n", indent, facts, indent, a.GetName(), value)
	}
	for _, n := range block.GetBlocks() {
		b.WriteString("\n")
		comment(b, indent, blockText(n))
		fmt.Fprintf(b, "%s# block, %s\n", indent, nestingText(n))
		var inner strings.Builder
		fmt.Fprintf(&inner, "%s%s {\n", indent, strings.ReplaceAll(header(n), "NAME", "example"))
		hclBody(&inner, n.GetBody(), indent+"  ")
		fmt.Fprintf(&inner, "%s}\n", indent)
		text := inner.String()
		if !n.GetRequired() {
			text = commentOut(text, indent)
		}
		b.WriteString(text)
	}
}

// commentOut puts a whole optional block behind comment signs.
func commentOut(text, indent string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		line = strings.TrimRight("# "+strings.TrimPrefix(line, indent), " \n")
		b.WriteString(indent + line + "\n")
	}
	return b.String()
}

func comment(b *strings.Builder, indent, doc string) {
	if doc = clean(doc); doc != "" {
		b.WriteString(indent + "# " + doc + "\n")
	}
}

// docText is what is said of an attribute besides its type and default.
func docText(a *pluginv1.Attribute) string {
	return factsText(a.GetDoc(), schema.Facts(a.GetType()), a)
}

// blockText is docText for a nested block.
func blockText(n *pluginv1.NestedBlock) string { return factsText(n.GetBody().GetDoc(), nil, n) }

// factsText adds to a doc what is asked of an attribute or block.
func factsText(doc string, facts []string, of interface {
	GetConflictsWith() []string
	GetRequiredWith() []string
	GetDeprecated() string
}) string {
	if names := of.GetConflictsWith(); len(names) > 0 {
		facts = append(facts, "not with "+list(names))
	}
	if names := of.GetRequiredWith(); len(names) > 0 {
		facts = append(facts, "needs "+list(names))
	}
	doc = clean(doc)
	if len(facts) > 0 {
		doc = strings.TrimSpace(doc + " [" + clean(strings.Join(facts, "; ")) + "]")
	}
	if d := clean(of.GetDeprecated()); d != "" {
		doc = strings.TrimSpace(doc + " Deprecated: " + d)
	}
	return doc
}

// clean makes one printable line of a text that a plugin wrote.
func clean(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool {
		return unicode.IsSpace(r) || !unicode.IsPrint(r)
	}), " ")
}

func nestingText(n *pluginv1.NestedBlock) string {
	s := map[pluginv1.Nesting]string{
		pluginv1.Nesting_NESTING_SINGLE:   "at most one",
		pluginv1.Nesting_NESTING_REPEATED: "any number",
		pluginv1.Nesting_NESTING_LABELLED: "any number, each with a name",
	}[n.GetNesting()]
	if n.GetRequired() {
		s = strings.NewReplacer("at most one", "exactly one", "any number", "at least one").Replace(s)
	}
	return s
}

func typeText(t *pluginv1.Type) string {
	if t.GetElement() != nil {
		return t.GetKind().Text() + " of " + typeText(t.GetElement())
	}
	return t.GetKind().Text()
}

// defaultText is the default in the user's notation; empty where there is none
// to show.
func defaultText(a *pluginv1.Attribute) string {
	v, ok := schema.Default(a)
	if !ok || a.GetSensitive() {
		return ""
	}
	if n, isInt := v.(int64); isInt && a.GetType().GetKind() == pluginv1.Kind_KIND_SIZE {
		v = schema.FormatSize(n)
	}
	return string(hclwrite.TokensForValue(toCty(v)).Bytes())
}

// toCty turns a Go value back into what a user would have written. A size
// without a unit stays the text of a number.
func toCty(v any) cty.Value {
	switch v := v.(type) {
	case string:
		return cty.StringVal(v)
	case bool:
		return cty.BoolVal(v)
	case int64:
		return cty.NumberIntVal(v)
	case float64:
		return cty.NumberFloatVal(v)
	case time.Duration:
		return cty.StringVal(schema.FormatDuration(v))
	case []any:
		list := make([]cty.Value, len(v))
		for i, e := range v {
			list[i] = toCty(e)
		}
		return cty.TupleVal(list)
	case map[string]any:
		m := make(map[string]cty.Value, len(v))
		for k, e := range v {
			m[k] = toCty(e)
		}
		return cty.ObjectVal(m)
	}
	return cty.NullVal(cty.DynamicPseudoType)
}

// example is a value of the type as a user would write it.
func example(t *pluginv1.Type) string {
	switch t.GetKind() {
	case pluginv1.Kind_KIND_BOOL:
		return "true"
	case pluginv1.Kind_KIND_INT:
		return "1"
	case pluginv1.Kind_KIND_FLOAT:
		return "1.5"
	case pluginv1.Kind_KIND_DURATION:
		return `"30s"`
	case pluginv1.Kind_KIND_SIZE:
		return `"64KiB"`
	case pluginv1.Kind_KIND_LIST:
		return "[" + example(t.GetElement()) + "]"
	case pluginv1.Kind_KIND_MAP:
		return "{ name = " + example(t.GetElement()) + " }"
	case pluginv1.Kind_KIND_UNSPECIFIED:
		return "[ … ]" // references and mixed lists of the language itself
	}
	return `"…"`
}
