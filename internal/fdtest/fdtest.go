// Package fdtest lists the open descriptors of a test's process, as Linux's /proc
// names them (proc(5)).
package fdtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const folder = "/proc/self/fd"

// Open returns what each descriptor leads to, by its number.
func Open(t testing.TB) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	open := map[string]string{}
	for _, e := range entries {
		// The folder's own descriptor is gone by now.
		if to, err := os.Readlink(filepath.Join(folder, e.Name())); err == nil {
			open[e.Name()] = to
		}
	}
	return open
}

// Pipes returns the numbers of those that are ends of pipes.
func Pipes(t testing.TB) []string {
	t.Helper()
	var pipes []string
	for fd, to := range Open(t) {
		if strings.HasPrefix(to, "pipe:") {
			pipes = append(pipes, fd)
		}
	}
	return pipes
}
