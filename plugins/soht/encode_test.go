package soht

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"
)

// slowData is the encoding as the specification's needsEncoding has it, with
// the semicolon added.
func slowData(data []byte) string {
	var b strings.Builder
	for _, c := range data {
		if c >= 33 && c <= 126 && !strings.ContainsRune("%?@&=+:#;", rune(c)) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "#%02X", c)
		}
	}
	return b.String()
}

func TestDataOfEveryBytePair(t *testing.T) {
	for a := range 256 {
		for b := range 256 {
			in := []byte{byte(a), byte(b)}
			if got := string(appendData(nil, in)); got != slowData(in) {
				t.Fatalf("% x became %q, want %q", in, got, slowData(in))
			}
		}
	}
}

func TestDataOfEveryLength(t *testing.T) {
	in := make([]byte, 0, 64)
	for i := range cap(in) {
		for _, fill := range []byte{0, 'a', byte(i * 37)} {
			in := append(in, fill)
			prefix := []byte("data=")
			got := appendData(prefix, in)
			if want := "data=" + slowData(in); string(got) != want {
				t.Fatalf("%q became %q, want %q", in, got, want)
			}
		}
		in = append(in, byte(i*29))
	}
}

func TestFormsOfTheNotes(t *testing.T) {
	for _, tt := range []struct{ name, got, want string }{
		{"open", string(appendOpen(nil, "127.0.0.1", 27001, "", "")), "action=open&host=127.0.0.1&port=27001"},
		{"open with login", string(appendOpen(nil, "db", 1, "a b", "p&=+%")), "action=open&host=db&port=1&username=a+b&password=p%26%3D%2B%25"},
		{"open IPv6", string(appendOpen(nil, "::1", 1, "", "")), "action=open&host=%3A%3A1&port=1"},
		{"read", string(appendAction(nil, "read", "1")), "action=read&id=1"},
		{"write", string(appendWrite(nil, "write", "1", []byte("hi"))), "action=write&id=1&datalength=2&data=hi"},
		{"write an odd byte", string(appendWrite(nil, "write", "1", []byte{0})), "action=write&id=1&datalength=1&data=#00"},
		{"poll", string(appendWrite(nil, "readwrite", "0", nil)), "action=readwrite&id=0&datalength=0&data="},
		{"close", string(appendAction(nil, "close", "1")), "action=close&id=1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.got != tt.want {
				t.Errorf("got %q, want %q", tt.got, tt.want)
			}
		})
	}
}

func TestLargestFormIsUnderTheLimit(t *testing.T) {
	form := appendWrite(nil, "readwrite", strings.Repeat("9", maxIDLength), make([]byte, maxWriteSize))
	if len(form) >= maxForm {
		t.Errorf("a write of %d bytes makes a form of %d; the server takes %d", maxWriteSize, len(form), maxForm)
	}
}

func TestEncodingAllocatesNothing(t *testing.T) {
	data, dst := make([]byte, 32<<10), make([]byte, 0, 100<<10)
	// The whole process is counted: what an earlier test left to be collected or
	// closed allocates now and then, an allocation of the code's own each time.
	least := math.Inf(1)
	for range 10 {
		least = min(least, testing.AllocsPerRun(10, func() { dst = appendWrite(dst[:0], "write", "17", data) }))
	}
	if least != 0 {
		t.Errorf("%v allocations a write", least)
	}
}

func FuzzData(f *testing.F) {
	f.Add([]byte("SELECT 1;\x00"))
	f.Add(bytes.Repeat([]byte{0}, 17))
	f.Fuzz(func(t *testing.T, in []byte) {
		if got := string(appendData(nil, in)); got != slowData(in) {
			t.Errorf("%q became %q, want %q", in, got, slowData(in))
		}
	})
}
