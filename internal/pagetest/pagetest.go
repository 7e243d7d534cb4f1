// Package pagetest is for tests that generate parts of the documentation: with the flag
// -update they write them, without it they say which are stale.
package pagetest

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write anew what is generated")

// Generated compares the part of a page between "<!-- begin NAME -->" and "<!-- end NAME
// -->", lines of their own, with text, which ends its last line. With -update it writes the
// part, unless the test has failed.
func Generated(t testing.TB, page, name, text string) {
	t.Helper()
	old, before, after := part(t, page, name)
	switch {
	case old == text:
	case *update && !t.Failed():
		if err := os.WriteFile(page, []byte(before+text+after), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("the part %q of %s is stale: run the test with -update. It should be\n%s", name, page, text)
	}
}

// Part returns what is generated between the same lines.
func Part(t testing.TB, page, name string) string {
	t.Helper()
	text, _, _ := part(t, page, name)
	return text
}

func part(t testing.TB, page, name string) (text, before, after string) {
	t.Helper()
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := "<!-- begin "+name+" -->\n", "<!-- end "+name+" -->\n"
	before, rest, begins := strings.Cut(string(b), begin)
	text, after, ends := strings.Cut(rest, end)
	if !begins || !ends || strings.Contains(after, begin) {
		t.Fatalf("%s has to have one place for the part %q", page, name)
	}
	return text, before + begin, end + after
}
