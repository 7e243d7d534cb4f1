package plugincmd

import (
	"fmt"
	"strings"
	"unicode"
)

// Attribute is one of a block; Value is an expression.
type Attribute struct{ Name, Value string }

// Block is a block of the configuration, in the layout of "tunneld fmt".
type Block struct {
	Head       string
	Attributes []Attribute
	Blocks     []Block
}

// Upstream is an upstream's block. Its name is always the same, so that a route that names
// it fits whatever is pasted next.
func Upstream(protocol string, attributes []Attribute, blocks ...Block) Block {
	return Block{fmt.Sprintf("upstream %q \"emulated\"", protocol), attributes, blocks}
}

// Trust is the block of an upstream that trusts the emulator's certificate.
func (c Common) Trust() []Block {
	if !c.TLS {
		return nil
	}
	return []Block{{Head: "tls", Attributes: []Attribute{{"ca_file", Quote(c.CAFile)}}}}
}

// String returns the block's lines.
func (b Block) String() string {
	var out strings.Builder
	b.write(&out, "")
	return out.String()
}

func (b Block) write(out *strings.Builder, indent string) {
	widest := 0
	for _, a := range b.Attributes {
		widest = max(widest, len(a.Name))
	}
	fmt.Fprintf(out, "%s%s {\n", indent, b.Head)
	for _, a := range b.Attributes {
		fmt.Fprintf(out, "%s  %-*s = %s\n", indent, widest, a.Name, a.Value)
	}
	for _, inner := range b.Blocks {
		inner.write(out, indent+"  ")
	}
	fmt.Fprintf(out, "%s}\n", indent)
}

// Quote returns a text as the configuration writes it.
func Quote(text string) string {
	var out strings.Builder
	out.WriteByte('"')
	for _, r := range text {
		switch {
		case r == '"' || r == '\\':
			out.WriteRune('\\')
			out.WriteRune(r)
		case unicode.IsPrint(r):
			out.WriteRune(r)
		default:
			fmt.Fprintf(&out, "\\U%08x", r)
		}
	}
	out.WriteByte('"')
	// A template would begin there.
	return strings.NewReplacer("${", "$${", "%{", "%%{").Replace(out.String())
}

// SecretOf returns the expression for a secret that ReadSecret has read from a file; what
// came from standard input is to be in this variable of the environment.
func SecretOf(file, variable string) string {
	if file == "-" {
		return "env(" + Quote(variable) + ")"
	}
	return "trimspace(file(" + Quote(absolute(file)) + "))"
}

// ShellQuote returns a text as one word of a shell's command line.
func ShellQuote(text string) string {
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
