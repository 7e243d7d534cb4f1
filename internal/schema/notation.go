package schema

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// MaxInt bounds whole numbers and sizes: JSON carries them as doubles in most
// languages.
const MaxInt = 1 << 53

// What is wrong with a number, as sentences.
const (
	OutsideInt   = "A whole number must lie within ±9007199254740992 (2^53)."
	NotWhole     = "It must be a whole number, without a fraction."
	TooLarge     = "The number is too large."
	NegativeSize = "A size cannot be negative."
	BrokenSize   = "A size in bytes is a whole number."
	LargeSize    = "The size is too large."
)

// ParseText reads a value of a type that is not a list or map as users write it in
// a text, which is all that a file or variable of the environment can hold. ok is
// false where the type takes no texts, or not this one, and there is nothing more to
// say of it; else the problem is empty, or a sentence for the user that does not
// repeat the text.
func ParseText(kind pluginv1.Kind, text string) (value any, problem string, ok bool) {
	switch kind {
	case pluginv1.Kind_KIND_STRING:
		return text, "", true
	case pluginv1.Kind_KIND_BOOL:
		return text == "true", "", text == "true" || text == "false"
	case pluginv1.Kind_KIND_INT:
		n, err := strconv.ParseInt(text, 10, 64)
		switch {
		case errors.Is(err, strconv.ErrRange) || err == nil && (n < -MaxInt || n > MaxInt):
			return nil, OutsideInt, true
		case err != nil:
			return nil, "It must be a whole number, and the text is not one.", true
		}
		return n, "", true
	case pluginv1.Kind_KIND_FLOAT:
		f, err := strconv.ParseFloat(text, 64)
		switch {
		case math.IsInf(f, 0):
			return nil, TooLarge, true
		case err != nil || math.IsNaN(f):
			return nil, "It must be a number, and the text is not one.", true
		}
		return f, "", true
	case pluginv1.Kind_KIND_DURATION:
		d, problem := ParseDuration(text)
		return d, problem, true
	case pluginv1.Kind_KIND_SIZE:
		n, problem := ParseSize(text)
		return n, problem, true
	}
	return nil, "", false
}

// ParseDuration reads a duration as users write it: decimal numbers with the
// units ns, us, ms, s, m and h ("30s", "1h30m"). It cannot be negative. The
// problem is empty, or a sentence for the user that does not repeat the text.
func ParseDuration(text string) (d time.Duration, problem string) {
	d, err := time.ParseDuration(text)
	switch _, numeric := strconv.ParseFloat(text, 64); {
	case numeric == nil && text != "":
		return 0, `A duration needs a unit: "500ms", "30s", "5m", "1h".`
	case strings.HasPrefix(text, "-") && err == nil:
		return 0, `A duration cannot be negative. "0s" stands for none.`
	case err != nil && strings.ContainsAny(text, "dwDW"):
		return 0, `A duration is a number and a unit up to hours: "500ms", "30s", "5m", "1h30m". A day is "24h".`
	case err != nil:
		return 0, `A duration is a number and a unit: "500ms", "30s", "5m", "1h30m".`
	}
	return d, ""
}

var sizeUnits = []struct {
	suffix string
	bytes  int64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"KB", 1e3},
	{"B", 1},
}

// ParseSize reads a size as users write it: a whole number and B, kB (or KB), MB,
// GB, TB (powers of 1000) or KiB, MiB, GiB, TiB (powers of 1024), with a space
// between the two or without; without a unit, bytes. The problem is empty, or a
// sentence for the user that does not repeat the text.
func ParseSize(text string) (size int64, problem string) {
	digits, unit := text, int64(1)
	for _, u := range sizeUnits {
		if d, ok := strings.CutSuffix(text, u.suffix); ok {
			digits, unit = strings.TrimSuffix(d, " "), u.bytes
			break
		}
	}
	if strings.HasPrefix(digits, "-") {
		return 0, NegativeSize
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	switch {
	case errors.Is(err, strconv.ErrRange) || err == nil && n > MaxInt/uint64(unit):
		return 0, LargeSize
	case err != nil:
		return 0, `A size is a whole number and a unit: "512B", "64KiB", "1MiB", "1MB".`
	}
	return int64(n) * unit, ""
}

// FormatDuration returns d as a user would write it: "1m", "1h30m", "1.5s".
func FormatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// FormatSize returns n as a user would write it, with the largest unit of powers of
// 1024 that divides it: "64KiB", "1000B".
func FormatSize(n int64) string {
	for _, u := range sizeUnits {
		if strings.HasSuffix(u.suffix, "iB") && n != 0 && n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.suffix
		}
	}
	return strconv.FormatInt(n, 10) + "B"
}

// durationJSON returns d as protobuf has it in JSON: "1.5s".
func durationJSON(d time.Duration) string {
	sign, abs := "", uint64(d)
	if d < 0 {
		sign, abs = "-", -abs
	}
	s := strconv.FormatUint(abs/1e9, 10)
	if nanos := abs % 1e9; nanos != 0 {
		frac := strconv.FormatUint(1e9+nanos, 10)[1:]
		s += "." + strings.TrimRight(frac, "0")
	}
	return sign + s + "s"
}

// parseDurationJSON reads what durationJSON writes, without a sign. The problem is
// empty, or what the JSON has to be.
func parseDurationJSON(text string) (d time.Duration, problem string) {
	number, ok := strings.CutSuffix(text, "s")
	whole, frac, hasFrac := strings.Cut(number, ".")
	switch {
	case ok && strings.HasPrefix(whole, "-") && isDigits(whole[1:]):
		return 0, `A duration cannot be negative. "0s" stands for none.`
	case !ok || !isDigits(whole) || hasFrac && (!isDigits(frac) || len(frac) > 9):
		return 0, `A duration is seconds in decimal with the suffix "s": "1.5s".`
	}
	// Digits and a unit: it only fails where it is too long.
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, "The duration is too long."
	}
	return d, ""
}

func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}
