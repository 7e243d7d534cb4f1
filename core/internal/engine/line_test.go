package engine

import (
	"io"
	"strings"
	"testing"
)

// TestLineListener: a kind of listener is a file.
func TestLineListener(t *testing.T) {
	r := start(t, nil, func(string) string {
		return "upstream \"direct\" \"d\" {}\nroute \"r\" {\n  match { listeners = [listener.line.l] }\n  upstreams = [upstream.direct.d]\n}\n" +
			"listener \"line\" \"l\" {\n  address = \"127.0.0.1:0\"\n  greeting = \"where to?\\n\"\n}\n"
	})
	addresses, _ := r.at(t, "line.l")
	talk := func(said, want string) {
		t.Helper()
		c := dialFrom(t, "127.0.0.1", addresses[0])
		if _, err := io.WriteString(c, said); err != nil {
			t.Fatal(err)
		}
		heard := make([]byte, len(want))
		if _, err := io.ReadFull(c, heard); err != nil || string(heard) != want {
			t.Errorf("said %q, heard %q, %v; want %q", said, heard, err, want)
		}
	}
	talk(r.echo+"\nhello", "where to?\nok\nhello")
	talk("127.0.0.1:1\n", "where to?\nrefused: ")
	talk("0x7f.1:80\n", "where to?\ndenied: ")
	talk(strings.Repeat("x", 600), "where to?\nno line\n")
}
