package config

import (
	"fmt"

	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/tunneld/tunneld/core/internal/hclbody"
	"github.com/tunneld/tunneld/internal/schema"
)

// Bandwidth is a bandwidth block, in bytes a second; 0 means none.
type Bandwidth struct {
	Up, Down           int64 // of each connection
	TotalUp, TotalDown int64 // of all of the block's together
}

// bandwidth reads the block of that name.
func bandwidth(v schema.Values) Bandwidth {
	in := v.Block(schema.Bandwidth)
	return Bandwidth{
		Up:        int64(in.Int("up")),
		Down:      int64(in.Int("down")),
		TotalUp:   int64(in.Int("total_up")),
		TotalDown: int64(in.Int("total_down")),
	}
}

// doubts are warnings of the limits of a block that another one, which is less, leaves
// nothing to do.
func (w Bandwidth) doubts(b *hclsyntax.Block) (problems []hclbody.Problem) {
	for _, c := range []struct {
		name, less  string
		each, total int64
	}{
		{"up", "total_up", w.Up, w.TotalUp},
		{"down", "total_down", w.Down, w.TotalDown},
	} {
		if c.total > 0 && c.each > c.total {
			problems = append(problems, hclbody.Problem{
				Warning: true,
				Range:   locate(b, schema.Bandwidth, c.name),
				Summary: fmt.Sprintf("%q cannot apply", c.name),
				Detail:  fmt.Sprintf("%q is less, and holds for a single connection, too. Raise that, or lower or remove this.", c.less),
			})
		}
	}
	return problems
}
