package config

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/tunneld/tunneld/internal/schema"
)

// This file decides what of a source line a user is shown. A line is shown in
// full only where the language itself defines every name on it. In the bodies
// of upstreams and plugins, in blocks and attributes that nobody knows, and in
// a file whose syntax is broken, the line is put together anew from the names
// alone, up to the equals sign: no value, no label, no comment is copied.

var nameRE = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,63}$`)

// plainRE is what names of attributes and blocks look like, and what a piece of
// base64 hardly ever does.
var plainRE = regexp.MustCompile(`^[a-z][a-z0-9_]{0,39}$`)

// headerText is a block's header with as many labels as the language asks for.
func headerText(blockType string, labels []string) string {
	s := blockType
	for _, label := range labels[:min(len(labels), len(labelNames[blockType]))] {
		s += fmt.Sprintf(" %q", label)
	}
	return s
}

// snippet returns what may be shown of an unbroken file for a problem at pos,
// and its line.
func (f *file) snippet(pos hcl.Pos) (string, int) {
	b := f.blockAt(pos)
	if b == nil {
		if a := attributeAt(f.body, pos); a != nil {
			return a.Name + " =", a.NameRange.Start.Line
		}
		return "", 0
	}
	header := headerText(b.Type, b.Labels)
	table := tableOf(b)
	open := table != nil && openTypes[b.Type]
	for {
		if a := attributeAt(b.Body, pos); a != nil {
			spec := schema.Attribute(table, a.Name)
			if open && spec != nil && !spec.GetSensitive() {
				return f.lineAt(pos), pos.Line
			}
			return f.composed(b, header, a)
		}
		inner := nestedAt(b.Body, pos)
		if inner == nil {
			return f.indent(b.TypeRange) + header + " {", b.TypeRange.Start.Line
		}
		nested := schema.Nested(table, inner.Type)
		open = open && nested != nil
		table = nested.GetBody()
		b, header = inner, inner.Type
	}
}

// composed is "name =", after the block's header where both are on one line.
func (f *file) composed(b *hclsyntax.Block, header string, a *hclsyntax.Attribute) (string, int) {
	line := a.NameRange.Start.Line
	if b.TypeRange.Start.Line == line {
		return f.indent(b.TypeRange) + header + " { " + a.Name + " =", line
	}
	return f.indent(a.NameRange) + a.Name + " =", line
}

// indent is the white space before the first thing on a line.
func (f *file) indent(r hcl.Range) string {
	n := min(r.Start.Byte, len(f.src))
	start := bytes.LastIndexByte(f.src[:n], '\n') + 1
	before := string(f.src[start:n])
	return before[:len(before)-len(strings.TrimLeft(before, " \t"))]
}

// brokenHeader is the header of the block around pos, as far as the parser saw
// one before the first error.
func (f *file) brokenHeader(pos hcl.Pos) string {
	b := f.blockAt(pos)
	if b == nil || b.TypeRange.Start.Line > f.broken || labelNames[b.Type] == nil {
		return ""
	}
	wrong := func(label string) bool { return !nameRE.MatchString(label) }
	if len(b.Labels) != len(labelNames[b.Type]) || slices.ContainsFunc(b.Labels, wrong) {
		return b.Type
	}
	return headerText(b.Type, b.Labels)
}

// brokenSnippet returns what may be shown of a line of a file whose syntax is
// broken. Past the first error nothing is: what looks like a name there may be
// a line of a value.
func (f *file) brokenSnippet(line int) string {
	if line > f.broken {
		return ""
	}
	i := 0
	for i < len(f.tokens) && f.tokens[i].Range.Start.Line < line {
		i++
	}
	if !f.startsItem(i) {
		return ""
	}
	rest := f.tokens[i:]
	if !plainRE.Match(rest[0].Bytes) {
		return ""
	}
	s := f.indent(rest[0].Range) + string(rest[0].Bytes)
	labels := labelNames[string(rest[0].Bytes)]
	at := func(n int, t hclsyntax.TokenType) bool { return n < len(rest) && rest[n].Type == t }
	switch {
	case at(1, hclsyntax.TokenEqual):
		return s + " ="
	case at(1, hclsyntax.TokenOBrace):
		return s + oneLine(rest[1:])
	case labels == nil && at(1, hclsyntax.TokenOQuote):
		return s
	case labels == nil:
		return ""
	}
	n := 1
	full := s
	for range labels {
		if !at(n, hclsyntax.TokenOQuote) || !at(n+1, hclsyntax.TokenQuotedLit) || !at(n+2, hclsyntax.TokenCQuote) || !nameRE.Match(rest[n+1].Bytes) {
			return s
		}
		full += ` "` + string(rest[n+1].Bytes) + `"`
		n += 3
	}
	if at(n, hclsyntax.TokenOBrace) {
		return full + oneLine(rest[n:])
	}
	return s
}

// oneLine continues a header from its brace: " {", and the name of an attribute
// on the same line.
func oneLine(rest hclsyntax.Tokens) string {
	if len(rest) > 2 && rest[1].Type == hclsyntax.TokenIdent && plainRE.Match(rest[1].Bytes) && rest[2].Type == hclsyntax.TokenEqual {
		return " { " + string(rest[1].Bytes) + " ="
	}
	return " {"
}

// startsItem says whether token i is a name at the start of a line that can
// only begin an attribute or block: not the rest of a value.
func (f *file) startsItem(i int) bool {
	if i >= len(f.tokens) || f.tokens[i].Type != hclsyntax.TokenIdent {
		return false
	}
	j := i - 1
	for j >= 0 && (f.tokens[j].Type == hclsyntax.TokenNewline || f.tokens[j].Type == hclsyntax.TokenComment) {
		j--
	}
	if j < 0 {
		return true
	}
	switch f.tokens[j].Type {
	case hclsyntax.TokenOBrace, hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen,
		hclsyntax.TokenCQuote, hclsyntax.TokenCHeredoc, hclsyntax.TokenNumberLit, hclsyntax.TokenIdent:
		return f.tokens[j].Range.End.Line < f.tokens[i].Range.Start.Line || f.tokens[j].Type == hclsyntax.TokenCHeredoc
	}
	return false
}
