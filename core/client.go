package core

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/core/internal/control"
	"github.com/tunneld/tunneld/core/status"
)

// ControlAddress returns where the running daemon of a configuration has its
// control socket. The configuration may be broken: only control.address and
// daemon.run_dir are needed, and without them the default places are searched. If
// there is no socket, the error wraps fs.ErrNotExist and says where the socket
// would be.
func ControlAddress(configPath string) (string, error) {
	configured, runDir, read := config.FindControl(configPath)
	candidates := control.Candidates(configured, runDir)
	var paths []string
	for _, address := range candidates {
		path, err := control.Path(address)
		if err != nil {
			return "", err
		}
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			return address, nil // also where it may not be looked at
		}
		paths = append(paths, path)
	}
	var said string
	switch {
	case configured != "":
		said = "its control socket should be there, by control.address of " + configPath + "; if that was just changed, name the old socket with --control, or send SIGHUP"
	case runDir != "":
		said = "its control socket should be there, by daemon.run_dir of " + configPath
	case !read:
		said = "its configuration, " + configPath + ", cannot be read, so only the default places were searched: name the configuration with --config, or the socket with --control"
	default:
		said = "without control.address, daemon.run_dir, $RUNTIME_DIRECTORY and $XDG_RUNTIME_DIR it has no control socket: set control.address, or name the socket with --control"
	}
	return "", &control.Error{
		Text: fmt.Sprintf("there is nothing at %s: is tunneld running? %s", strings.Join(paths, " or "), said),
		Err:  fs.ErrNotExist,
	}
}

// AskStatus asks the daemon whose control socket has the address, "unix:///path"
// or a path, for its status. The error says what to do.
func AskStatus(ctx context.Context, address string) (status.Status, error) {
	c, err := control.NewClient(address)
	if err != nil {
		return status.Status{}, err
	}
	return c.Status(ctx)
}

// AskReload is AskReloadWith without options.
func AskReload(ctx context.Context, address string) (status.Reload, error) {
	return AskReloadWith(ctx, address, status.ReloadOptions{})
}

// AskReloadWith makes the daemon reload and waits until it has, or until ctx is
// done: the daemon breaks the reload off then. The error says what to do, and
// that the outcome is not known; a reload that failed is in the outcome.
func AskReloadWith(ctx context.Context, address string, o status.ReloadOptions) (status.Reload, error) {
	c, err := control.NewClient(address)
	if err != nil {
		return status.Reload{}, err
	}
	return c.Reload(ctx, o)
}

// AskRestartPlugin makes the daemon start a plugin anew, and waits as AskReload does.
func AskRestartPlugin(ctx context.Context, address, name string) (status.Reload, error) {
	c, err := control.NewClient(address)
	if err != nil {
		return status.Reload{}, err
	}
	return c.RestartPlugin(ctx, name)
}
