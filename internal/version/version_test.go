package version

import (
	"runtime/debug"
	"testing"
)

// TestOf: what a build tells, however it was made.
func TestOf(t *testing.T) {
	const revision = "c4437e3405c71cf9e7a305066c5e3783c926b930"
	vcs := func(modified string) []debug.BuildSetting {
		return []debug.BuildSetting{{Key: "vcs", Value: "git"}, {Key: "vcs.revision", Value: revision}, {Key: "vcs.modified", Value: modified}}
	}
	for name, tc := range map[string]struct {
		module   string
		settings []debug.BuildSetting
		want     string
	}{
		"nothing":                    {"", nil, Next + "-dev"},
		"without a repository":       {"(devel)", nil, Next + "-dev"},
		"a commit":                   {"v0.0.0-20261129162007-c4437e3405c7", vcs("false"), Next + "-dev+c4437e3405c7"},
		"a commit after a release":   {"v0.2.1-0.20261129162007-c4437e3405c7", vcs("false"), Next + "-dev+c4437e3405c7"},
		"changed files":              {"v0.0.0-20261129162007-c4437e3405c7+dirty", vcs("true"), Next + "-dev+c4437e3405c7.modified"},
		"a tag with changed files":   {"v0.3.0+dirty", vcs("true"), Next + "-dev+c4437e3405c7.modified"},
		"a tag":                      {"v0.3.0", vcs("false"), "0.3.0"},
		"installed, a tag":           {"v0.3.0", nil, "0.3.0"},
		"installed, a commit":        {"v0.0.0-20261129162007-c4437e3405c7", nil, Next + "-dev+c4437e3405c7"},
		"installed, before a tag":    {"v0.3.0-rc.1.0.20261129162007-c4437e3405c7", nil, Next + "-dev+c4437e3405c7"},
		"an old Go, changed files":   {"(devel)", vcs("true"), Next + "-dev+c4437e3405c7.modified"},
		"an abbreviated revision":    {"(devel)", []debug.BuildSetting{{Key: "vcs.revision", Value: "17"}}, Next + "-dev+17"},
		"a version that is no tag's": {"v1.2", nil, Next + "-dev"},
	} {
		t.Run(name, func(t *testing.T) {
			info := &debug.BuildInfo{Main: debug.Module{Version: tc.module}, Settings: tc.settings}
			if got := of(info); got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
	if got := of(nil); got != Next+"-dev" {
		t.Errorf("without information: %q", got)
	}
}
