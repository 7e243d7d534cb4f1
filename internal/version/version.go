// Package version says which version of tunneld a program was built from. The daemon,
// its commands and the bundled plugins all report the same one.
package version

import (
	"regexp"
	"runtime/debug"
	"strings"
)

// Next is the version that is being worked on: semantic, without a "v". A release sets
// it to the one that follows.
const Next = "0.2.0"

// release is set by the linker for a release: see scripts/release.sh.
var release = ""

// Text returns the version: "0.2.0" of a release, and "0.2.0-dev+COMMIT" of anything
// else, with ".modified" where the files were not those of the commit. A build that
// knows of no commit is "0.2.0-dev".
func Text() string {
	if release != "" {
		return release
	}
	info, _ := debug.ReadBuildInfo()
	return of(info)
}

// tagged is a module's version that is a release's, and commit the end of one that is
// made of a time and a commit: see https://go.dev/ref/mod#pseudo-versions.
var (
	tagged = regexp.MustCompile(`^v(\d+\.\d+\.\d+)$`)
	commit = regexp.MustCompile(`[.-]\d{14}-([0-9a-f]{12})$`)
)

// of returns the version that a build tells; info may be nil.
func of(info *debug.BuildInfo) string {
	if info == nil {
		info = &debug.BuildInfo{}
	}
	module := info.Main.Version
	if m := tagged.FindStringSubmatch(module); m != nil {
		return m[1]
	}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	revision := settings["vcs.revision"]
	if m := commit.FindStringSubmatch(strings.TrimSuffix(module, "+dirty")); m != nil && revision == "" {
		revision = m[1]
	}
	text := Next + "-dev"
	if revision == "" {
		return text
	}
	text += "+" + revision[:min(12, len(revision))]
	if settings["vcs.modified"] == "true" {
		text += ".modified"
	}
	return text
}
