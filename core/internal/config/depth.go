package config

import (
	"fmt"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/tunneld/tunneld/core/internal/hclbody"
)

// maxDepth bounds how deep blocks and expressions go, brackets within brackets
// and operators behind operators. hcl recurses over them, when it parses and when
// it evaluates, and nothing else bounds its stack: the runtime ends the process
// that uses a gigabyte of it.
const maxDepth = 100

// depthProblem is the place from which on the tokens go too deep, as a problem;
// nil: nowhere.
func depthProblem(tokens hclsyntax.Tokens) *hclbody.Problem {
	at := tooDeep(tokens)
	if at == nil {
		return nil
	}
	return &hclbody.Problem{
		Summary: "Nested too deeply",
		Detail:  fmt.Sprintf("More than %d brackets, operators and blocks are nested or chained here. Simplify it.", maxDepth),
		Range:   *at,
	}
}

// level is what an open bracket, quote or template encloses.
type level struct {
	open hclsyntax.TokenType
	// chain counts what makes the expression at hand deeper without a bracket that
	// stays open: 1+1+1 is ((1+1)+1), and a[0][*] is ((a[0])[*]). In a text it
	// counts the %{ if } and %{ for } that are open.
	chain int
	// flat says that a new line ends no expression here.
	flat bool
}

// text says whether the level is one of characters, which only ${ and %{ leave.
func (l level) text() bool {
	return l.open == hclsyntax.TokenOQuote || l.open == hclsyntax.TokenOHeredoc
}

// depthMeter computes a bound of the depth of the tree that the parser makes of
// tokens. It may be too high, where the source is wrong, and is never too low.
type depthMeter struct {
	levels []level // the innermost last; the first is the file
	depth  int     // of all levels and their chains
}

func newDepthMeter() depthMeter {
	return depthMeter{levels: []level{{open: hclsyntax.TokenNil}}}
}

// tooDeep returns the place where the tokens go deeper than maxDepth, or nil.
func tooDeep(tokens hclsyntax.Tokens) *hcl.Range {
	m := newDepthMeter()
	for i, t := range tokens {
		m.next(t, tokens[i+1:])
		if m.depth > maxDepth {
			return &t.Range
		}
	}
	return nil
}

func (m *depthMeter) next(t hclsyntax.Token, rest hclsyntax.Tokens) {
	switch t.Type {
	case hclsyntax.TokenOBrack:
		m.longer() // an index, perhaps
		m.enter(t.Type, true)
	case hclsyntax.TokenOParen, hclsyntax.TokenTemplateInterp:
		m.enter(t.Type, true)
	case hclsyntax.TokenTemplateControl:
		m.control(rest)
		m.enter(t.Type, true)
	case hclsyntax.TokenOBrace:
		m.enter(t.Type, nextWord(rest) == "for")
	case hclsyntax.TokenOQuote, hclsyntax.TokenOHeredoc:
		m.enter(t.Type, true)
	case hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenCBrace, hclsyntax.TokenCQuote,
		hclsyntax.TokenCHeredoc, hclsyntax.TokenTemplateSeqEnd:
		m.leave(t.Type)
	case hclsyntax.TokenComma:
		m.endChain()
	case hclsyntax.TokenNewline, hclsyntax.TokenComment:
		// A comment holds the end of its line.
		if l := m.inner(); !l.flat && t.Bytes[len(t.Bytes)-1] == '\n' {
			m.endChain()
		}
	case hclsyntax.TokenIdent, hclsyntax.TokenNumberLit, hclsyntax.TokenQuotedLit, hclsyntax.TokenStringLit,
		hclsyntax.TokenEqual, hclsyntax.TokenColon, hclsyntax.TokenEOF:
	case hclsyntax.TokenInvalid, hclsyntax.TokenBadUTF8, hclsyntax.TokenQuotedNewline,
		hclsyntax.TokenApostrophe, hclsyntax.TokenBacktick, hclsyntax.TokenSemicolon:
		// The parser refuses them, in better words.
	default:
		m.longer() // an operator or a dot
	}
}

func (m *depthMeter) inner() *level { return &m.levels[len(m.levels)-1] }

func (m *depthMeter) enter(open hclsyntax.TokenType, flat bool) {
	m.levels = append(m.levels, level{open: open, flat: flat})
	m.depth++
}

// leave closes the innermost level that closer belongs to, and what was left open
// in it: there the parser gives up.
func (m *depthMeter) leave(closer hclsyntax.TokenType) {
	for i := len(m.levels) - 1; i > 0; i-- {
		if !closes(m.levels[i].open, closer) {
			continue
		}
		for _, l := range m.levels[i:] {
			m.depth -= 1 + l.chain
		}
		m.levels = m.levels[:i]
		return
	}
}

func closes(open, closer hclsyntax.TokenType) bool {
	switch open {
	case hclsyntax.TokenOBrack:
		return closer == hclsyntax.TokenCBrack
	case hclsyntax.TokenOParen:
		return closer == hclsyntax.TokenCParen
	case hclsyntax.TokenOBrace:
		return closer == hclsyntax.TokenCBrace
	case hclsyntax.TokenOQuote:
		return closer == hclsyntax.TokenCQuote
	case hclsyntax.TokenOHeredoc:
		return closer == hclsyntax.TokenCHeredoc
	}
	return closer == hclsyntax.TokenTemplateSeqEnd
}

func (m *depthMeter) longer() {
	m.inner().chain++
	m.depth++
}

func (m *depthMeter) endChain() {
	if l := m.inner(); !l.text() {
		m.depth -= l.chain
		l.chain = 0
	}
}

// control counts a %{ that begins or ends what it encloses. Where the word does
// not fit what is open, the parser gives that up, so that it ends in any case.
func (m *depthMeter) control(rest hclsyntax.Tokens) {
	switch l := m.inner(); nextWord(rest) {
	case "else":
	case "endif", "endfor":
		if l.chain > 0 {
			l.chain--
			m.depth--
		}
	default:
		m.longer()
	}
}

// nextWord is the name that the tokens begin with, apart from new lines and
// comments.
func nextWord(tokens hclsyntax.Tokens) string {
	for _, t := range tokens {
		switch t.Type {
		case hclsyntax.TokenNewline, hclsyntax.TokenComment:
		case hclsyntax.TokenIdent:
			return string(t.Bytes)
		default:
			return ""
		}
	}
	return ""
}
