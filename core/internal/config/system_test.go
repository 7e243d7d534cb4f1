package config

import (
	"strings"
	"testing"

	"github.com/tunneld/tunneld/core/internal/listen"
)

// TestKindOfAnotherSystem: it is an error that names both, and the kinds that there are.
func TestKindOfAnotherSystem(t *testing.T) {
	redirect, ok := listen.FindKind(listen.KindRedirect)
	if !ok {
		t.Fatal("there is no kind redirect")
	}
	summary, detail := wrongSystem(redirect, "darwin")
	if !strings.Contains(summary, `"redirect" need another system`) || !strings.Contains(detail, "for linux, and this is darwin") || !strings.Contains(detail, "The kinds here are tcp, ") || strings.Contains(detail, "redirect") {
		t.Errorf("%s: %s", summary, detail)
	}
	for _, k := range listen.Kinds() {
		if summary, _ := wrongSystem(k, "linux"); summary != "" {
			t.Errorf("%s: %s", k.Name, summary)
		}
	}
}
