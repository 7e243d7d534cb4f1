package pluginwire

import (
	"encoding/hex"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// The page for authors in other languages shows the bytes that this package
// writes, in this order.
func TestDocumentedRecords(t *testing.T) {
	page, err := os.ReadFile("../../docs/plugin-protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	want := []Record{
		{Kind: Handoff, Token: 1, Path: PathDirect},
		{Kind: Handoff, Token: 258, Path: PathRelay},
		{Kind: EOF, Token: 258},
		{Kind: End, Token: 258},
		{Kind: End, Token: 258, Status: StatusError, Text: "reset"},
		{Kind: Abort, Token: 258, Text: "idle"},
	}
	shown := regexp.MustCompile("(?s)```record\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	if len(shown) != len(want) {
		t.Fatalf("%d records are shown, want %d", len(shown), len(want))
	}
	for i, s := range shown {
		head, err := hex.DecodeString(strings.Join(strings.Fields(s[1]), ""))
		if err != nil {
			t.Errorf("record %d: %v", i, err)
			continue
		}
		var b [RecordSize]byte
		copy(b[:], head)
		if got, err := Decode(b[:]); err != nil || got != want[i] {
			t.Errorf("record %d reads as %+v, %v; want %+v", i, got, err, want[i])
		}
		if b != want[i].Encode() {
			t.Errorf("record %d is % x", i, want[i].Encode())
		}
	}
	for _, text := range []string{
		MagicCookieKey, MagicCookieValue, EnvChannel, EnvLogLevel,
		fmt.Sprintf("1|%d|unix|", ProtocolVersion),
		fmt.Sprintf("(%d bytes)", MaxMessage), fmt.Sprintf("(%d bytes)", MaxPrefetched),
		fmt.Sprintf("exactly %d bytes", RecordSize), fmt.Sprintf("at most %d", MaxText),
	} {
		if !strings.Contains(string(page), text) {
			t.Errorf("the page does not have %q", text)
		}
	}
}
