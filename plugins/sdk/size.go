package sdk

import (
	"errors"

	"github.com/tunneld/tunneld/internal/schema"
)

// Size is a number of bytes. A user writes "64KiB", "1MB" or plain bytes.
type Size int64

// Common sizes.
const (
	KiB Size = 1 << 10
	MiB Size = 1 << 20
	GiB Size = 1 << 30
)

// ParseSize reads a size as a user writes it in the configuration: a whole number
// and a unit, one of B, kB, KB, KiB, MB, MiB, GB, GiB, TB and TiB, with a space
// between the two or without; without a unit it is bytes. Its errors are sentences
// for the user, and do not repeat s.
func ParseSize(s string) (Size, error) {
	n, problem := schema.ParseSize(s)
	if problem != "" {
		return 0, errors.New(problem)
	}
	return Size(n), nil
}

// String returns the size with the largest unit of powers of 1024 that divides it,
// as a user may write it.
func (s Size) String() string { return schema.FormatSize(int64(s)) }
