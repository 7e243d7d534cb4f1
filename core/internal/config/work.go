package config

import (
	"fmt"
	"maps"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/tunneld/tunneld/core/internal/hclbody"
)

const (
	// maxWork bounds what an expression computes: hcl cannot be broken off, and a
	// line of nested loops, or of jsonencode, takes all time or memory there is.
	maxWork = 8 << 20
	// readWork is what a file or variable counts, most of which are smaller.
	readWork = 64 << 10
	// encodeWork is how many times larger jsonencode makes a text at most, when each
	// of its characters is escaped.
	encodeWork = 6
)

// workProblem says which part of an expression computes too much; nil: none.
func (s *source) workProblem(expr hclsyntax.Expression) *hclbody.Problem {
	m := workMeter{nodes: []metered{{}}, locals: s.locals}
	hclsyntax.Walk(expr, &m) // returns what Enter and Exit do
	if m.over == nil && m.refers && m.nodes[0].work > maxWork {
		at := expr.Range() // what locals hold, over and over
		m.over = &at
	}
	if m.over == nil {
		return nil
	}
	p := tooMuchWork(*m.over)
	return &p
}

func tooMuchWork(at hcl.Range) hclbody.Problem {
	return hclbody.Problem{
		Summary: "The value takes too much to compute",
		Detail:  fmt.Sprintf("Loops, [*], jsonencode and locals may take more than %d million steps here. Nest them less, loop over less, or write the values out.", maxWork>>20),
		Range:   at,
	}
}

// workMeter computes what an expression takes and how large its value is, as one
// number: of nodes and characters. A loop multiplies what it goes over with what it
// does. Of its variables each is one on average, but may be all that it goes over:
// that counts where another loop goes over what is made of it.
type workMeter struct {
	nodes []metered // the innermost last
	over  *hcl.Range
	// locals are those that have been computed; refers says that one is referred to.
	locals map[string]*local
	refers bool
}

// metered is a node that has been entered.
type metered struct {
	work  float64            // of what is in it, so far
	loop  bool               // its first child is what it goes over, the others are done each time
	turns float64            // of a loop, once they are known
	vars  map[string]float64 // the variables at hand, with all that they may be
	gone  bool               // a loop goes over it
}

// Enter implements hclsyntax.Walker.
func (m *workMeter) Enter(n hclsyntax.Node) hcl.Diagnostics {
	outer := m.nodes[len(m.nodes)-1]
	in := metered{work: 1, vars: outer.vars, gone: outer.gone || outer.loop && outer.turns == 0}
	switch n := n.(type) {
	case hclsyntax.ChildScope: // what a loop does
		if in.vars = maps.Clone(outer.vars); in.vars == nil {
			in.vars = map[string]float64{}
		}
		for name := range n.LocalNames {
			in.vars[name] = outer.turns
		}
	case *hclsyntax.ForExpr, *hclsyntax.SplatExpr:
		in.loop = true
	case *hclsyntax.LiteralValueExpr:
		in.work += float64(n.SrcRange.End.Byte - n.SrcRange.Start.Byte)
	case *hclsyntax.ScopeTraversalExpr:
		if _, loops := in.vars[n.Traversal.RootName()]; !loops && n.Traversal.RootName() == localRoot {
			if l := m.locals[localName(n.Traversal)]; l != nil {
				in.work += l.size
				m.refers = true
			}
		}
		if in.gone {
			in.work += in.vars[n.Traversal.RootName()]
		}
	case *hclsyntax.FunctionCallExpr:
		if n.Name == "file" || n.Name == "env" {
			in.work += readWork
		}
	}
	m.nodes = append(m.nodes, in)
	return nil
}

// Exit implements hclsyntax.Walker.
func (m *workMeter) Exit(n hclsyntax.Node) hcl.Diagnostics {
	last := len(m.nodes) - 1
	in, outer := m.nodes[last], &m.nodes[last-1]
	m.nodes = m.nodes[:last]
	call, isCall := n.(*hclsyntax.FunctionCallExpr)
	encodes := isCall && call.Name == "jsonencode"
	switch {
	case in.loop:
		in.work *= in.turns
	case encodes:
		in.work *= encodeWork
	}
	if (in.loop || encodes) && in.work > maxWork && m.over == nil {
		at := n.Range()
		m.over = &at
	}
	if outer.loop && outer.turns == 0 {
		outer.turns = in.work
	} else {
		outer.work += in.work
	}
	return nil
}
