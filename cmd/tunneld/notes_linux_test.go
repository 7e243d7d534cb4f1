package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// noted is a configuration with the three plugins that have new defaults; written
// are their attributes.
func noted(soht, websocks, azrelay string) string {
	return fmt.Sprintf(`
upstream "soht" "s" {
  url = "http://127.0.0.1:1/"
  %s
}
upstream "websocks" "w" {
  url = "wss://127.0.0.1:1/"
  %s
}
upstream "azrelay" "a" {
  namespace         = "127.0.0.1"
  hybrid_connection = "demo"
  endpoint          = "ws://127.0.0.1:1"
  %s
}
`, soht, websocks, azrelay) + listener("db", "127.0.0.1:0", "db.corp:1", "") + route("all", "", "upstream.soht.s", "upstream.websocks.w", "upstream.azrelay.a")
}

// TestNewDefaultsAreNoted: by validate and once by the start, where they change what
// the configuration does, and only there; a reload has them no more.
func TestNewDefaultsAreNoted(t *testing.T) {
	notes := map[string]string{ // by the block
		`upstream "soht" "s"`:     "max_connections is 100 by default|half_close is 1s by default",
		`upstream "websocks" "w"`: "by default a direction over wss:// ends by TCP alone (require_close_notify = false)",
		`upstream "azrelay" "a"`:  "ping_timeout is 1m0s by default",
	}
	validate := func(config string) string {
		t.Helper()
		path := filepath.Join(t.TempDir(), "tunneld.hcl")
		if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		if status := run(t.Context(), []string{"validate", path}, strings.NewReader(""), &out, &out); status != exitOK {
			t.Fatalf("exit status %d: %s", status, out.String())
		}
		return out.String()
	}
	told := validate(noted("", "", ""))
	for _, texts := range notes {
		for text := range strings.SplitSeq(texts, "|") {
			if strings.Count(told, "Note: "+text+"\n") != 1 {
				t.Errorf("%q is missing in:\n%s", text, told)
			}
		}
	}
	if told := validate(noted("max_connections = 7\n half_close = \"5s\"", "require_close_notify = true", `ping_timeout = "24h"`)); strings.Contains(told, "Note: ") {
		t.Errorf("what is written is noted:\n%s", told)
	}

	p := runProgram(t, 1, noted("", "", ""))
	logged := func() {
		t.Helper()
		for block, texts := range notes {
			for text := range strings.SplitSeq(texts, "|") {
				p.log.Await(t, 1, "msg", "configuration note", "level", "INFO", "block", block, "summary", text)
			}
		}
		if n := len(p.log.Matching("msg", "configuration note")); n != 4 {
			t.Errorf("%d notes", n)
		}
	}
	logged()
	p.signal(t, syscall.SIGHUP)
	p.log.Await(t, 1, "msg", "reloaded")
	logged()
	if n := len(p.log.Matching("level", "WARN", "msg", "configuration problem")); n > 0 {
		t.Errorf("%d warnings", n)
	}
}
