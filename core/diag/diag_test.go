package diag

import (
	"log/slog"
	"strings"
	"testing"
)

// TestDiagnosticsInALog: a record each, with nothing that steers a terminal, and
// without the keys that have no value.
func TestDiagnosticsInALog(t *testing.T) {
	var b strings.Builder
	log := slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	Diagnostics{
		{Summary: "none", Source: "hidden"},
		{Warning: true, Summary: "odd\x1b[2J", Detail: strings.Repeat("x", 2*maxPrinted), File: "a\nb.hcl", Line: 3, Block: "log", Source: "hidden", SourceLine: 3},
	}.Log(log)
	want := "level=ERROR msg=\"configuration problem\" summary=none\n" +
		"level=WARN msg=\"configuration problem\" file=\"a b.hcl\" line=3 block=log summary=\"odd\ufffd[2J\" detail=" + strings.Repeat("x", maxPrinted) + "…\n"
	if b.String() != want {
		t.Errorf("%s\nwant\n%s", b.String(), want)
	}
}
