package sdk

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes. A user writes "64KiB", "1MB" or plain bytes.
type Size int64

// Common sizes.
const (
	KiB Size = 1 << 10
	MiB Size = 1 << 20
	GiB Size = 1 << 30
)

// The suffixes that a user may write. Letter case counts, as in the standard
// that they come from (IEC 80000-13), save for the usual KB.
var sizeUnits = map[string]int64{
	"": 1, "B": 1,
	"kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9,
	"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30,
}

// ParseSize reads a size as a user writes it: a number without fraction and a
// unit, one of B, kB, KB, KiB, MB, MiB, GB and GiB; without one it is bytes.
// Its errors do not repeat s.
func ParseSize(s string) (Size, error) {
	s = strings.TrimSpace(s)
	end := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(s)
	}
	unit, ok := sizeUnits[strings.TrimSpace(s[end:])]
	if end == 0 || !ok {
		return 0, fmt.Errorf(`not a size: write bytes or a unit, as in "64KiB" or "1MB"`)
	}
	n, err := strconv.ParseInt(s[:end], 10, 64)
	if err != nil || n > math.MaxInt64/unit {
		return 0, fmt.Errorf("size is too large")
	}
	return Size(n * unit), nil
}

// String returns the size with the largest binary unit that divides it.
func (s Size) String() string {
	for _, u := range []struct {
		unit Size
		name string
	}{{GiB, "GiB"}, {MiB, "MiB"}, {KiB, "KiB"}} {
		if s != 0 && s%u.unit == 0 {
			return strconv.FormatInt(int64(s/u.unit), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}
