package soht

import (
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
)

// The tables of the README have every hint that the code has.
func TestREADMEHasTheHints(t *testing.T) {
	b, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	readme := string(b)
	want := func(what, hint string) {
		if hint = strings.ReplaceAll(hint, "%s", "*target*"); !strings.Contains(readme, "| "+hint+" |") {
			t.Errorf("%s: no %q", what, hint)
		}
	}
	for _, r := range refusals {
		want(r.text, r.hint)
		if !strings.Contains(strings.ToLower(readme), r.text) {
			t.Errorf("no %q", r.text)
		}
	}
	for _, action := range []string{"open", "read", "write", "readwrite"} {
		for status := 300; status < 600; status++ {
			if http.StatusText(status) != "" {
				want(action, statusHint(action, status))
			}
		}
	}
	want("no answer", new(client).exchange("open", io.EOF).Hint)
	want("half an answer", cut("open", "", nil).Hint)
	want("a page", new(client).notSOHT("read", new(http.Response), nil).Hint)
}
