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
	for _, action := range []string{"open", "read", "write", "readwrite", connect} {
		for status := 300; status < 600; status++ {
			if http.StatusText(status) != "" {
				_, hint := statusMeaning(action, status)
				want(action, hint)
			}
		}
	}
	want("a silent proxy", unanswered("", 0, os.ErrDeadlineExceeded).Hint)
	want("a proxy that hangs up", unanswered("", 0, io.EOF).Hint)
	want("no answer", new(client).exchange("open", io.EOF).Hint)
	want("half an answer", cut("open", "", nil).Hint)
	want("a page", new(client).notSOHT("read", new(http.Response), nil).Hint)
}
