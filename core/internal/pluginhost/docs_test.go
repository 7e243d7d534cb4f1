package pluginhost

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/nettest"
)

func protocolPage(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile("../../../docs/plugin-protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}

// The page for authors in other languages has the times that a plugin is killed
// for.
func TestDocumentedTimes(t *testing.T) {
	h, err := New(Options{Log: slog.New(slog.DiscardHandler), RunDir: nettest.SocketDir(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := h.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	page := protocolPage(t)
	for _, row := range []string{
		fmt.Sprintf("`GetSchema` | %s in all |", h.opts.StartTimeout),
		fmt.Sprintf("| `GetInfo`, every %s while the process lives | %s |", h.opts.PingInterval, h.opts.CallTimeout),
		fmt.Sprintf("`Release` | %s each |", h.opts.CallTimeout),
		fmt.Sprintf("from the descriptor channel | %s |", h.waits.send),
		fmt.Sprintf("the record after the answer | %s |", h.waits.handoff),
		fmt.Sprintf("(#7-how-a-relay-ends)) | %s |", h.waits.confirm),
		fmt.Sprintf("after SIGTERM | %s |", h.opts.StopTimeout),
		fmt.Sprintf("| `Dial` | at most %d of one plugin, and %d of one upstream in one generation;", h.opts.MaxDials, h.opts.MaxDials/2),
	} {
		if !strings.Contains(page, row) {
			t.Errorf("the page does not have %q", row)
		}
	}
}
