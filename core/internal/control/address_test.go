package control

import (
	"slices"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/unixsock"
)

func TestAddress(t *testing.T) {
	tests := []struct {
		name, configured, runDir, runtime, xdg string

		want       string
		candidates []string
	}{
		{name: "nothing", candidates: []string{"unix:///run/tunneld/control.sock"}},
		{name: "configured", configured: "unix:///a.sock", runDir: "/r", runtime: "/s", xdg: "/x",
			want: "unix:///a.sock", candidates: []string{"unix:///a.sock"}},
		{name: "the run directory", runDir: "/r", runtime: "/s", xdg: "/x",
			want: "unix:///r/control.sock", candidates: []string{"unix:///r/control.sock"}},
		{name: "that of systemd", runtime: "/s", xdg: "/x", want: "unix:///s/control.sock",
			candidates: []string{"unix:///s/control.sock", "unix:///x/tunneld/control.sock", "unix:///run/tunneld/control.sock"}},
		{name: "several of systemd", runtime: "/s:/t", want: "unix:///s/control.sock",
			candidates: []string{"unix:///s/control.sock", "unix:///run/tunneld/control.sock"}},
		{name: "the user's", xdg: "/x", want: "unix:///x/tunneld/control.sock",
			candidates: []string{"unix:///x/tunneld/control.sock", "unix:///run/tunneld/control.sock"}},
		{name: "relative ones are none", runtime: "s", xdg: "x", candidates: []string{"unix:///run/tunneld/control.sock"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("RUNTIME_DIRECTORY", tt.runtime)
			t.Setenv("XDG_RUNTIME_DIR", tt.xdg)
			if got := Address(tt.configured, tt.runDir); got != tt.want {
				t.Errorf("address %q, want %q", got, tt.want)
			}
			if got := Candidates(tt.configured, tt.runDir); !slices.Equal(got, tt.candidates) {
				t.Errorf("candidates %q, want %q", got, tt.candidates)
			}
		})
	}
}

func TestPath(t *testing.T) {
	longest := "/" + strings.Repeat("x", unixsock.MaxPath-1)
	for address, want := range map[string]string{
		"unix:///run/c.sock": "/run/c.sock",
		"/run/c.sock":        "/run/c.sock",
		"c.sock":             "c.sock",
		longest:              longest,
		"unix://" + longest:  longest,
	} {
		if got, err := Path(address); err != nil || got != want {
			t.Errorf("%q: %q, %v", address, got, err)
		}
	}
	for address, says := range map[string]string{
		"":                         "write unix://",
		"unix://":                  "write unix://",
		"unix://c.sock":            "write unix://",
		"http://localhost:1/":      "write unix://",
		"unix:///a\x00b":           "zero byte",
		"unix://" + longest + "x":  "choose a shorter control.address",
		strings.Repeat("/abc", 99): "the path has 396 bytes",
	} {
		if got, err := Path(address); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %q, %v; want an error with %q", address, got, err, says)
		}
	}
}
