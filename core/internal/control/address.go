// Package control is the daemon's control socket, client and server: HTTP over a unix
// socket that only the daemon's user can open, for status and reload. It knows the
// daemon only through package status.
package control

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/tunneld/tunneld/internal/unixsock"
)

// scheme begins a socket's address in the configuration.
const scheme = "unix://"

// socketName is the default socket's name in the run directory.
const socketName = "control.sock"

// systemSocket is where the unit in examples/systemd has its run directory.
const systemSocket = "/run/tunneld/" + socketName

// Address returns where a daemon serves its control socket: control.address,
// else control.sock in daemon.run_dir, in $RUNTIME_DIRECTORY, or in the folder
// tunneld under $XDG_RUNTIME_DIR. It is empty where there is none of these: the
// run directory is a temporary folder then, in which nobody would find it.
func Address(configured, runDir string) string {
	if places := named(configured, runDir); len(places) > 0 {
		return places[0]
	}
	return ""
}

// Candidates returns where a client looks for the daemon of a configuration,
// the likeliest first. Where the configuration does not say it, the daemon's
// environment does, which may not be the client's: so the place that systemd
// gives to the daemon is among them.
func Candidates(configured, runDir string) []string {
	places := named(configured, runDir)
	if configured == "" && runDir == "" {
		places = append(places, scheme+systemSocket)
	}
	return places
}

func named(configured, runDir string) []string {
	switch {
	case configured != "":
		return []string{configured}
	case runDir != "":
		return []string{scheme + filepath.Join(runDir, socketName)}
	}
	var places []string
	// systemd separates several by colons.
	if dir, _, _ := strings.Cut(os.Getenv("RUNTIME_DIRECTORY"), ":"); filepath.IsAbs(dir) {
		places = append(places, scheme+filepath.Join(dir, socketName))
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		places = append(places, scheme+filepath.Join(dir, "tunneld", socketName))
	}
	return places
}

// Path returns the path in an address, which is one behind unix:// or just one.
func Path(address string) (string, error) {
	path, isURL := strings.CutPrefix(address, scheme)
	switch {
	case path == "", strings.Contains(path, "://"), isURL && !filepath.IsAbs(path):
		return "", fmt.Errorf("control address %q: write unix:// and an absolute path, such as unix://%s, or a path", address, systemSocket)
	case strings.ContainsRune(path, 0):
		return "", fmt.Errorf("control address %q: it contains a zero byte", address)
	case len(path) > unixsock.MaxPath:
		return "", fmt.Errorf("control address %q: the path has %d bytes, and a unix socket allows at most %d: choose a shorter control.address", address, len(path), unixsock.MaxPath)
	}
	return path, nil
}
