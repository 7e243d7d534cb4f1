package schema

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"
)

func TestParseSize(t *testing.T) {
	for in, want := range map[string]int64{
		"0": 0, "1": 1, "512B": 512, "1KiB": 1024, "1kB": 1000, "1KB": 1000, "1MiB": 1 << 20, "1MB": 1e6,
		"2GiB": 2 << 30, "2GB": 2e9, "1TiB": 1 << 40, "1TB": 1e12, "64 KiB": 65536, "8192TiB": 1 << 53,
	} {
		if got, problem := ParseSize(in); got != want || problem != "" {
			t.Errorf("%q: %d, %q, want %d", in, got, problem, want)
		}
	}
	for size, want := range map[int64]string{0: "0B", 5: "5B", 1000: "1000B", 1024: "1KiB", 3 << 20: "3MiB", 1 << 30: "1GiB", 8 << 40: "8TiB"} {
		if got := FormatSize(size); got != want {
			t.Errorf("%d is written as %s", size, got)
		}
	}
	for _, in := range []string{"", "B", "KiB", "٣", "1k", "1kib", "1 apple", "1.5MB", "-1", "+1", " 1", "1  KiB", "0x10", "8193TiB", "99999999999999999999", "1_000"} {
		if got, problem := ParseSize(in); problem == "" {
			t.Errorf("%q became %d", in, got)
		}
	}
}

func TestDurations(t *testing.T) {
	for in, want := range map[string]struct {
		d    time.Duration
		json string
		text string
	}{
		"0s":     {0, "0s", "0s"},
		"30s":    {30 * time.Second, "30s", "30s"},
		"1h30m":  {90 * time.Minute, "5400s", "1h30m"},
		"1h":     {time.Hour, "3600s", "1h"},
		"1.5s":   {1500 * time.Millisecond, "1.5s", "1.5s"},
		"1ns":    {1, "0.000000001s", "1ns"},
		"1m0.1s": {time.Minute + 100*time.Millisecond, "60.1s", "1m0.1s"},
	} {
		d, problem := ParseDuration(in)
		if d != want.d || problem != "" || durationJSON(d) != want.json || FormatDuration(d) != want.text {
			t.Errorf("%q: %v, %q, %q, %q", in, d, problem, durationJSON(d), FormatDuration(d))
		}
	}
	for _, in := range []string{"", "0", "5", "-5s", "-0s", "1d", "1w", "s", "1 s", "1e3s", "NaN", "Inf", "999999999h"} {
		if d, problem := ParseDuration(in); problem == "" {
			t.Errorf("%q became %v", in, d)
		}
	}
	for _, in := range []string{"", "s", "1", "1m", "-1s", "1.s", ".5s", "1.0000000001s", "99999999999s", "1e3s"} {
		if d, problem := parseDurationJSON(in); problem == "" {
			t.Errorf("%q became %v", in, d)
		}
	}
}

// TestDurationJSON: protobuf writes and reads the same.
func TestDurationJSON(t *testing.T) {
	for _, d := range []time.Duration{0, 1, time.Second, 90 * time.Second, 1500 * time.Millisecond, math.MaxInt64} {
		var theirs string
		if text, err := protojson.Marshal(durationpb.New(d)); err != nil || json.Unmarshal(text, &theirs) != nil {
			t.Fatal(err)
		}
		if got, problem := parseDurationJSON(theirs); problem != "" || got != d {
			t.Errorf("protobuf's %s: %v, %s", theirs, got, problem)
		}
		var back durationpb.Duration
		if err := protojson.Unmarshal([]byte(`"`+durationJSON(d)+`"`), &back); err != nil || back.AsDuration() != d {
			t.Errorf("%s for protobuf: %v, %v", durationJSON(d), back.AsDuration(), err)
		}
	}
}

func FuzzDuration(f *testing.F) {
	for _, s := range []string{"30s", "1h30m", "-1s", "1.5s", "0", "999999999h", "1d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d, problem := ParseDuration(s); problem == "" {
			again, problem := parseDurationJSON(durationJSON(d))
			if problem != "" || again != d || d < 0 {
				t.Errorf("%q: %v became %q, and then %v (%v)", s, d, durationJSON(d), again, problem)
			}
			if back, problem := ParseDuration(FormatDuration(d)); problem != "" || back != d {
				t.Errorf("%q: %v is written as %q", s, d, FormatDuration(d))
			}
		}
		if d, problem := parseDurationJSON(s); problem == "" && d < 0 {
			t.Errorf("%q became %v", s, d)
		}
	})
}

func FuzzSize(f *testing.F) {
	for _, s := range []string{"64KiB", "1MB", "0", "8192TiB", "-1", "1.5GB"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, problem := ParseSize(s)
		if problem != "" {
			return
		}
		if back, problem := ParseSize(FormatSize(n)); n < 0 || n > MaxInt || problem != "" || back != n {
			t.Errorf("%q became %d, and then %q, %d", s, n, FormatSize(n), back)
		}
	})
}
