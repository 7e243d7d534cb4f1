package schema

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

// maxInt bounds whole numbers: JSON carries them as doubles in most languages.
const maxInt = 1 << 53

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
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"KB", 1e3}, {"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12},
	{"B", 1},
}

// ParseSize reads a size as users write it: a whole number and B, KB, MB, GB,
// TB (powers of 1000) or KiB, MiB, GiB, TiB (powers of 1024); without a unit,
// bytes. problem is empty, or a sentence for the user that does not repeat the
// text.
func ParseSize(text string) (size int64, problem string) {
	digits, unit := text, int64(1)
	for _, u := range sizeUnits {
		if d, ok := strings.CutSuffix(text, u.suffix); ok {
			digits, unit = strings.TrimSuffix(d, " "), u.bytes
			break
		}
	}
	if strings.HasPrefix(digits, "-") {
		return 0, "A size cannot be negative."
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	switch {
	case errors.Is(err, strconv.ErrRange) || err == nil && n > maxInt/uint64(unit):
		return 0, "The size is too large."
	case err != nil || digits[0] == '+':
		return 0, `A size is a whole number and a unit: "512B", "64KiB", "1MiB", "1MB".`
	}
	return int64(n) * unit, ""
}

// DurationJSON returns d as protobuf has it in JSON: "1.5s".
func DurationJSON(d time.Duration) string {
	neg := d < 0
	abs := uint64(d)
	if neg {
		abs = -abs
	}
	s := strconv.FormatUint(abs/1e9, 10)
	if nanos := abs % 1e9; nanos != 0 {
		frac := strconv.FormatUint(1e9+nanos, 10)[1:]
		s += "." + strings.TrimRight(frac, "0")
	}
	if neg {
		s = "-" + s
	}
	return s + "s"
}

// parseDurationJSON reads what DurationJSON writes, without a sign.
func parseDurationJSON(text string) (time.Duration, error) {
	bad := errors.New(`not a duration such as "1.5s"`)
	number, ok := strings.CutSuffix(text, "s")
	whole, frac, hasFrac := strings.Cut(number, ".")
	if !ok || !isDigits(whole) || hasFrac && (!isDigits(frac) || len(frac) > 9) {
		return 0, bad
	}
	secs, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || secs > math.MaxInt64/int64(time.Second)-1 {
		return 0, bad
	}
	nanos, _ := strconv.ParseInt((frac + "000000000")[:9], 10, 64)
	return time.Duration(secs)*time.Second + time.Duration(nanos), nil
}

func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// durationText returns d as a user would write it: "1m", "1h30m", "1.5s".
func durationText(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// sizeText returns n as a user would write it: "64KiB", or plain bytes.
func sizeText(n int64) string {
	for i := 3; i >= 0; i-- {
		if u := sizeUnits[i]; n >= u.bytes && n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.suffix
		}
	}
	return strconv.FormatInt(n, 10)
}
