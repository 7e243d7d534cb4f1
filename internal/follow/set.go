package follow

import (
	"crypto/sha256"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tunneld/tunneld/internal/userfile"
)

// set says of files whether they have changed. It knows no clock and no events: who
// looks says when that is.
type set struct {
	files []followed
	stamp func(path string) userfile.Stamp // stampOf
	// moving: they have changed, last as seen at since, and not been read since.
	moving bool
	since  time.Time
}

type followed struct {
	path string
	sum  userfile.Sum   // what the caller knows
	seen userfile.Stamp // of the last look
	read userfile.Stamp // of the last reading that went well; zero: the next look reads
}

func newSet(files []File) set {
	// What was changed since the caller has read it is to be seen as a change: all
	// are read once.
	s := set{moving: true, stamp: stampOf}
	for _, f := range files {
		s.files = append(s.files, followed{path: f.Path, sum: f.Sum})
	}
	return s
}

// look says whether the contents are others than they were, having been still for
// settle, and when to look again at the latest; the zero Time: no need.
func (s *set) look(now time.Time, settle time.Duration) (changed bool, again time.Time) {
	sure := true
	for i := range s.files {
		f := &s.files[i]
		stamp := s.stamp(f.path)
		if s.since.IsZero() || !f.seen.Alike(stamp) {
			f.seen = stamp
			s.moving, s.since = true, now
		}
		sure = sure && f.unchanged()
	}
	switch {
	case s.moving && now.Before(s.since.Add(settle)):
		return false, s.since.Add(settle)
	case !s.moving && sure:
		return false, time.Time{}
	}
	if changed, still := s.readAll(); still {
		s.moving = false
		return changed, time.Time{}
	}
	s.moving, s.since = true, now
	return false, now.Add(settle)
}

// readAll says whether contents have changed, and remembers them, unless a file moved
// meanwhile.
func (s *set) readAll() (changed, still bool) {
	next := slices.Clone(s.files)
	for i := range next {
		f := &next[i]
		if f.unchanged() {
			continue
		}
		sum, stamp, ok := digest(f.path)
		if !stamp.Alike(f.seen) {
			return false, false
		}
		changed = changed || sum != f.sum
		f.sum, f.read = sum, stamp
		if !ok {
			// What mends it, such as a chmod, may leave the Stamp as it is.
			f.read = userfile.Stamp{}
		}
	}
	s.files = next
	return changed, true
}

// unchanged says whether the file is certainly the one that was read.
func (f *followed) unchanged() bool { return f.read.Same(f.seen) }

// stampOf is the zero Stamp of a file that is not there.
func stampOf(path string) userfile.Stamp {
	stamp, err := userfile.Look(path)
	if err != nil {
		return userfile.Stamp{}
	}
	return stamp
}

// digest reads a file, or a folder's names. The Stamp is of the moment before, and
// zero where there is no file. Where ok is false nothing could be read: the Sum is zero.
func digest(path string) (sum userfile.Sum, stamp userfile.Stamp, ok bool) {
	f, err := userfile.Read(path, maxSize)
	if err == nil {
		return f.Sum(), f.Stamp, true
	}
	stamp = stampOf(path)
	if !errors.Is(err, userfile.ErrNotRegular) {
		return userfile.Sum{}, stamp, false
	}
	sum = FolderSum(path)
	return sum, stamp, sum != userfile.Sum{}
}

// FolderSum is the Sum of the names in a folder; the zero Sum where they cannot be
// read, or are too many.
func FolderSum(path string) userfile.Sum {
	names, err := userfile.Names(path, maxNames)
	if err != nil {
		return userfile.Sum{}
	}
	return namesSum(names)
}

func namesSum(names []string) userfile.Sum {
	slices.Sort(names)
	return sha256.Sum256([]byte(strings.Join(names, "\x00")))
}

// Look returns what the paths hold now, to be followed by whoever reads them next. A
// folder comes with the regular files that are directly in it.
func Look(paths ...string) (files []File) {
	for _, path := range paths {
		names, err := userfile.Names(path, maxNames)
		if err != nil { // it is no folder, or cannot be read
			sum, _, _ := digest(path)
			files = append(files, File{Path: path, Sum: sum})
			continue
		}
		files = append(files, File{Path: path, Sum: namesSum(names)})
		for _, name := range names {
			within := filepath.Join(path, name)
			if info, err := os.Stat(within); err == nil && info.Mode().IsRegular() {
				sum, _, _ := digest(within)
				files = append(files, File{Path: within, Sum: sum})
			}
		}
	}
	return files
}

// maxLinks bounds the symbolic links on the way to a file, as the kernel does.
const maxLinks = 40

// folders adds those in which an event may tell of the files: where they are, and
// where a symbolic link on the way to them is.
func (s *set) folders(in map[string]bool) {
	for i := range s.files {
		path, err := filepath.Abs(s.files[i].path)
		if err != nil {
			continue // there is no working directory; looking will do
		}
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			in[path] = true
		}
		foldersTo(path, in)
	}
}

// foldersTo adds the folder of path and of each link on the way to it; of what is not
// there, the folder where it would be.
func foldersTo(path string, in map[string]bool) {
	rest := strings.Split(path, "/")
	at := "/"
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		if name == "" || name == "." {
			continue
		}
		if name == ".." {
			at = filepath.Dir(at)
			continue
		}
		full := filepath.Join(at, name)
		info, err := os.Lstat(full)
		switch {
		case err != nil:
			in[at] = true
			return
		case info.Mode()&fs.ModeSymlink == 0:
			if len(rest) == 0 {
				in[at] = true
			}
			at = full
			continue
		}
		in[at] = true
		target, err := os.Readlink(full)
		if links++; err != nil || links > maxLinks {
			return
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
}
