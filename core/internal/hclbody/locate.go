package hclbody

import (
	"slices"
	"strconv"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Locate returns the place of what a path of names leads to within a body: an
// attribute, an element of a list that is written out, an inner block. A path
// that leads nowhere ends at the last block on it, or at header, that of the body
// itself.
func Locate(body *hclsyntax.Body, header hcl.Range, path ...string) hcl.Range {
	for len(path) > 0 {
		if a := body.Attributes[path[0]]; a != nil {
			if list, ok := a.Expr.(*hclsyntax.TupleConsExpr); ok && len(path) > 1 {
				if i, ok := index(path[1], len(list.Exprs)); ok {
					return list.Exprs[i].StartRange()
				}
			}
			return a.NameRange
		}
		var same []*hclsyntax.Block
		for _, inner := range body.Blocks {
			if inner.Type == path[0] {
				same = append(same, inner)
			}
		}
		if len(same) == 0 {
			break
		}
		b := same[0]
		path = path[1:]
		if len(path) > 0 {
			if i := slices.IndexFunc(same, func(b *hclsyntax.Block) bool { return len(b.Labels) == 1 && b.Labels[0] == path[0] }); i >= 0 {
				b, path = same[i], path[1:]
			} else if i, ok := index(path[0], len(same)); ok {
				b, path = same[i], path[1:]
			}
		}
		body, header = b.Body, b.TypeRange
	}
	return header
}

func index(s string, length int) (int, bool) {
	i, err := strconv.Atoi(s)
	return i, err == nil && i >= 0 && i < length
}
