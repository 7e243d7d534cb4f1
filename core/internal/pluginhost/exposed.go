package pluginhost

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Exposed says whether anybody but the owner and root can change what s starts: its
// program, the interpreter of a script, the first argument that names a file, and the
// files with hashes, or a folder above one of them, where it could be replaced. It is
// nil for a bundled plugin, and for what is not there. Access lists are not looked at.
func Exposed(s Spec) error {
	if s.Bundled {
		return nil
	}
	for _, path := range append(watched(s), interpreters(s.Command[0])...) {
		if err := exposed(path); err != nil {
			return err
		}
	}
	return nil
}

// interpreters returns the program that a script's first line names, and where that is a
// script, its interpreter as well.
func interpreters(path string) (paths []string) {
	for range maxInterpreters {
		head, err := headOf(path)
		line, script := firstLine(head)
		if err != nil || !script || !filepath.IsAbs(line.interpreter) {
			break
		}
		path = line.interpreter
		paths = append(paths, path)
	}
	return paths
}

// Vouched says whether hashes are to vouch for the plugin.
func (s Spec) Vouched() bool { return s.SHA256 != "" || len(s.Files) > 0 }

// maxLinks is how many symbolic links the kernel follows in a path.
const maxLinks = 40

// exposed looks at the file and at each folder on the way to it, those of symbolic
// links included.
func exposed(path string) error {
	at, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	for range maxLinks {
		if at, err = walk(at); err != nil {
			return fmt.Errorf("%s can be changed by others: %w", path, err)
		}
		if at == "" {
			return nil
		}
	}
	return fmt.Errorf("%s: too many symbolic links", path)
}

// walk looks at what lies on an absolute path up to the first symbolic link, and
// returns the path with that link followed, or nothing where there is none.
func walk(path string) (target string, err error) {
	at, rest := "/", strings.TrimPrefix(filepath.Clean(path), "/")
	for {
		info, err := os.Lstat(at)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return "", nil // whoever opens it says so
		case err != nil:
			return "", fmt.Errorf("that cannot be ruled out: %w", err)
		case info.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(at)
			if err != nil {
				return "", fmt.Errorf("that cannot be ruled out: %w", err)
			}
			if !filepath.IsAbs(to) {
				to = filepath.Join(filepath.Dir(at), to)
			}
			return filepath.Join(to, rest), nil
		}
		if who := writers(info); who != "" && !readOnly(at) {
			return "", fmt.Errorf("%s is writable for %s", at, who)
		}
		if rest == "" {
			return "", nil
		}
		var next string
		next, rest, _ = strings.Cut(rest, "/")
		at = filepath.Join(at, next)
	}
}

// writers says who else than the owner may write a file, or make and remove what is in
// a folder; nobody: "". In a folder with the sticky bit everybody removes only what is
// theirs.
func writers(info fs.FileInfo) string {
	mode := info.Mode()
	if mode.IsDir() && mode&fs.ModeSticky != 0 {
		return ""
	}
	sys := info.Sys().(*syscall.Stat_t)
	switch {
	case mode.Perm()&0o002 != 0:
		return fmt.Sprintf("everybody (mode %04o): chmod o-w it", mode.Perm())
	case mode.Perm()&0o020 != 0 && !ownGroup(sys.Uid, sys.Gid):
		return fmt.Sprintf("the group %s (mode %04o): chmod g-w it", groupName(sys.Gid), mode.Perm())
	}
	return ""
}

// ownGroup says whether a group is the user's own: of the same number, or name.
func ownGroup(uid, gid uint32) bool {
	if uid == gid {
		return true
	}
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	return err == nil && u.Username == groupName(gid)
}

func groupName(gid uint32) string {
	id := strconv.FormatUint(uint64(gid), 10)
	if g, err := user.LookupGroupId(id); err == nil {
		return g.Name
	}
	return id
}
