package pluginhost

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// runPrefix begins the name of every host's own directory; digits follow, and
// nothing else. What is swept has to be ours beyond doubt: the folder for
// temporary files is everybody's.
const runPrefix = "tunneld-run-"

// maxRunDir bounds the length of the base directory: behind it comes
// "/tunneld-run-0123456789/99999/plugin0123456789" at most.
const maxRunDir = maxSocketPath - 46

// runDir is a host's own directory. An advisory lock on the directory itself
// lasts as long as the process: it tells the living from the left behind, and
// keeps systemd-tmpfiles from cleaning it.
type runDir struct {
	base string // where it was made, resolved
	path string
	lock *os.File
}

// makeRunDir makes a private directory under base and removes those that dead
// processes left there. An empty base is $RUNTIME_DIRECTORY, else the folder
// for temporary files.
func makeRunDir(base string) (*runDir, error) {
	if base == "" {
		// systemd separates several by colons.
		base, _, _ = strings.Cut(os.Getenv("RUNTIME_DIRECTORY"), ":")
	}
	if base == "" {
		base = os.TempDir()
		if len(base) > maxRunDir {
			base = "/tmp"
		}
	}
	base, err := filepath.Abs(base)
	if err != nil {
		return nil, fmt.Errorf("run directory: %w", err)
	}
	if len(base) > maxRunDir {
		return nil, fmt.Errorf("run directory %s: %d bytes, and the path of a unix socket leaves room for %d: choose a shorter daemon.run_dir", base, len(base), maxRunDir)
	}
	if err := os.MkdirAll(base, 0o700); err != nil {
		return nil, fmt.Errorf("run directory %s: %w: make it, or choose another daemon.run_dir", base, err)
	}
	if err := trusted(base); err != nil {
		return nil, err
	}
	sweep(base)
	for range 10 {
		d, err := claim(base)
		if err != nil {
			return nil, fmt.Errorf("run directory %s: %w: let this user write to it, or choose another daemon.run_dir", base, err)
		}
		if d != nil {
			return d, nil
		}
	}
	return nil, fmt.Errorf("run directory %s: another process keeps removing what is made there", base)
}

// trusted refuses a directory in which somebody else could replace ours.
func trusted(base string) error {
	info, err := os.Stat(base)
	if err != nil {
		return fmt.Errorf("run directory: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("run directory %s: not a directory", base)
	}
	owner := int(info.Sys().(*syscall.Stat_t).Uid)
	if owner != os.Geteuid() && owner != 0 {
		return fmt.Errorf("run directory %s: it belongs to user %d, not to %d: choose another daemon.run_dir", base, owner, os.Geteuid())
	}
	if info.Mode().Perm()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0 {
		return fmt.Errorf("run directory %s: others may write to it: chmod go-w it, or choose another daemon.run_dir", base)
	}
	return nil
}

// claim makes a directory and locks it. It returns nil where a sweeping process
// was faster.
func claim(base string) (*runDir, error) {
	path, err := os.MkdirTemp(base, runPrefix)
	if err != nil {
		return nil, err
	}
	lock, err := lockDir(path)
	if err != nil {
		return nil, nil
	}
	d := &runDir{base: base, path: path, lock: lock}
	if !d.intact() {
		return nil, lock.Close()
	}
	return d, nil
}

// sweep removes the directories under base that nobody holds. What cannot be
// removed is left: it takes room and nothing else.
func sweep(base string) {
	entries, err := os.ReadDir(base)
	if err != nil {
		return
	}
	for _, e := range entries {
		digits, ours := strings.CutPrefix(e.Name(), runPrefix)
		if !e.IsDir() || !ours || strings.Trim(digits, "0123456789") != "" {
			continue
		}
		path := filepath.Join(base, e.Name())
		lock, err := lockDir(path)
		if err != nil {
			continue
		}
		info, err := lock.Stat()
		if err == nil && int(info.Sys().(*syscall.Stat_t).Uid) == os.Geteuid() && info.Mode().Perm() == 0o700 {
			_ = os.RemoveAll(path)
		}
		_ = lock.Close()
	}
}

// lockDir opens a directory, not a link to one, and locks it without waiting.
func lockDir(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// intact says whether the directory is still there, and no other in its place.
func (d *runDir) intact() bool {
	held, err1 := d.lock.Stat()
	named, err2 := os.Lstat(d.path)
	return err1 == nil && err2 == nil && os.SameFile(held, named)
}

// close removes the directory, unless another is in its place.
func (d *runDir) close() error {
	var err error
	if d.intact() {
		err = os.RemoveAll(d.path)
	}
	return errors.Join(err, d.lock.Close())
}
