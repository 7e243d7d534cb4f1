package schema

import (
	"time"

	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// DialTime is an attribute that bounds a part of a dial.
type DialTime struct {
	Path  []string // names from the body's root
	Part  pluginv1.DialTime
	Value time.Duration
}

// DialTimes are those of a body and its single blocks, in the schema's order. A block
// that is not there counts with its defaults.
func DialTimes(block *pluginv1.Block, v Values) []DialTime { return dialTimes(block, v, nil) }

func dialTimes(block *pluginv1.Block, v Values, path []string) (times []DialTime) {
	for _, a := range block.GetAttributes() {
		if a.GetDialTime() != pluginv1.DialTime_DIAL_TIME_UNSPECIFIED {
			times = append(times, DialTime{append(path[:len(path):len(path)], a.GetName()), a.GetDialTime(), v.Duration(a.GetName())})
		}
	}
	for _, n := range block.GetBlocks() {
		if n.GetNesting() != pluginv1.Nesting_NESTING_SINGLE {
			continue
		}
		inner := v.Block(n.GetName())
		if inner == nil {
			inner = Defaults(n.GetBody())
		}
		times = append(times, dialTimes(n.GetBody(), inner, append(path[:len(path):len(path)], n.GetName()))...)
	}
	return times
}
