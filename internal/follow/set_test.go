package follow

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/userfile"
)

func sumOf(text string) userfile.Sum { return sha256.Sum256([]byte(text)) }

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func replace(t *testing.T, path, text string) {
	t.Helper()
	write(t, path+".new", text)
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// clocked is a set under a clock of its own.
type clocked struct {
	t   *testing.T
	set set
	now time.Time
}

func newClocked(t *testing.T, files ...File) *clocked {
	return &clocked{t: t, set: newSet(files), now: time.Now()}
}

// after looks once d has gone by, and wants changed to be what it is.
func (c *clocked) after(d time.Duration, want bool) {
	c.t.Helper()
	c.now = c.now.Add(d)
	if changed, _ := c.set.look(c.now, time.Second); changed != want {
		c.t.Errorf("changed: %v, want %v", changed, want)
	}
}

// settled lets a second go by in which nothing happens.
func (c *clocked) settled(want bool) {
	c.t.Helper()
	c.after(0, false)
	c.after(time.Second, want)
	c.after(time.Hour, false)
}

func TestSet(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	write(t, path, "one")

	t.Run("what the caller knows is no change", func(t *testing.T) {
		newClocked(t, File{path, sumOf("one")}).settled(false)
	})
	t.Run("what was changed before the first look is one", func(t *testing.T) {
		newClocked(t, File{path, sumOf("zero")}).settled(true)
	})
	t.Run("in place, replaced, touched", func(t *testing.T) {
		c := newClocked(t, File{path, sumOf("one")})
		c.settled(false)
		write(t, path, "two")
		c.settled(true)
		replace(t, path, "three")
		c.settled(true)
		replace(t, path, "three")
		c.settled(false)
		write(t, path, "one")
		c.settled(true)
	})
	t.Run("only once it is still", func(t *testing.T) {
		c := newClocked(t, File{path, sumOf("one")})
		c.settled(false)
		for _, text := range []string{"half", "half of it", "half of it, and half"} {
			write(t, path, text)
			c.after(900*time.Millisecond, false)
		}
		c.after(999*time.Millisecond, false)
		c.after(time.Millisecond, true)
	})
	t.Run("back to what it was while it moved", func(t *testing.T) {
		write(t, path, "one")
		c := newClocked(t, File{path, sumOf("one")})
		c.settled(false)
		write(t, path, "other")
		c.after(500*time.Millisecond, false)
		write(t, path, "one")
		c.settled(false)
	})
	t.Run("gone and back", func(t *testing.T) {
		c := newClocked(t, File{path, sumOf("one")})
		c.settled(false)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		c.settled(true)
		write(t, path, "one")
		c.settled(true)
	})
	t.Run("one that never was", func(t *testing.T) {
		c := newClocked(t, File{filepath.Join(dir, "none", "f"), userfile.Sum{}})
		c.settled(false)
		if err := os.Mkdir(filepath.Join(dir, "none"), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, "none", "f"), "here")
		c.settled(true)
	})
	t.Run("two are one change", func(t *testing.T) {
		other := filepath.Join(dir, "g")
		write(t, other, "g")
		c := newClocked(t, File{path, sumOf("one")}, File{other, sumOf("g")})
		c.settled(false)
		write(t, path, "two")
		c.after(900*time.Millisecond, false)
		write(t, other, "h")
		c.after(900*time.Millisecond, false)
		c.after(100*time.Millisecond, false)
		c.after(900*time.Millisecond, true)
		c.after(time.Hour, false)
	})
}

// TestSetWithinTheFileSystemsStep: a change that leaves size and time as they were.
func TestSetWithinTheFileSystemsStep(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	at := time.Now().Add(time.Minute) // not past while the test runs
	put := func(text string) {
		write(t, path, text)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	put("one")
	c := newClocked(t, File{path, sumOf("one")})
	c.settled(false)
	put("two")
	c.after(time.Second, true)
}

// TestSetSymlinks swaps the link of a folder, as Kubernetes does.
func TestSetSymlinks(t *testing.T) {
	dir := t.TempDir()
	generation := func(name, text string) {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name, "token"), text)
		if err := os.Symlink(name, filepath.Join(dir, "..data.new")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..data.new"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	generation("..1", "one")
	path := filepath.Join(dir, "token")
	if err := os.Symlink("..data/token", path); err != nil {
		t.Fatal(err)
	}
	c := newClocked(t, File{path, sumOf("one")})
	c.settled(false)
	in := map[string]bool{}
	c.set.folders(in)
	if len(in) != 2 || !in[dir] || !in[filepath.Join(dir, "..1")] {
		t.Errorf("folders %v", in)
	}
	generation("..2", "two")
	c.settled(true)
	generation("..3", "two")
	c.settled(false)
	clear(in)
	if c.set.folders(in); len(in) != 2 || !in[dir] || !in[filepath.Join(dir, "..3")] {
		t.Errorf("folders %v", in)
	}
}

func TestSetFolder(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a"), "a")
	c := newClocked(t, File{dir, FolderSum(dir)})
	c.settled(false)
	write(t, filepath.Join(dir, "a"), "b")
	c.settled(false)
	write(t, filepath.Join(dir, "b"), "b")
	c.settled(true)
	if err := os.Remove(filepath.Join(dir, "a")); err != nil {
		t.Fatal(err)
	}
	c.settled(true)
}

func TestFoldersTo(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{"a/b", "c"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(dir, "a/b/f"), "")
	for name, target := range map[string]string{"c/up": "../a", "c/whole": filepath.Join(dir, "a"), "c/loop": "loop"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string][]string{
		"a/b/f":       {"a/b"},
		"a/../a/b/f":  {"a/b"},
		"c/up/b/f":    {"c", "a/b"},
		"c/whole/b/f": {"c", "a/b"},
		"c/loop/f":    {"c"},
		"a/none/f":    {"a"},
		"a/b/none":    {"a/b"},
	} {
		in := map[string]bool{}
		foldersTo(filepath.Join(dir)+"/"+path, in)
		if len(in) != len(want) {
			t.Errorf("%s: %v, want %v", path, in, want)
		}
		for _, w := range want {
			if !in[filepath.Join(dir, w)] {
				t.Errorf("%s: %v, want %v", path, in, want)
			}
		}
	}
}

// TestLook: a folder comes with the files in it, not with folders, nor with links to some.
func TestLook(t *testing.T) {
	dir := t.TempDir()
	file, folder := filepath.Join(dir, "f"), filepath.Join(dir, "d")
	write(t, file, "one")
	if err := os.MkdirAll(filepath.Join(folder, "..v1"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(folder, "..v1", "a"), "two")
	for name, to := range map[string]string{"..data": "..v1", "a": "..data/a", "gone": "..data/gone"} {
		if err := os.Symlink(to, filepath.Join(folder, name)); err != nil {
			t.Fatal(err)
		}
	}
	want := []File{{file, sumOf("one")}, {folder, FolderSum(folder)}, {filepath.Join(folder, "a"), sumOf("two")}, {Path: filepath.Join(dir, "none")}}
	if got := Look(file, folder, filepath.Join(dir, "none")); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
