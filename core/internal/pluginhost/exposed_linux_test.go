package pluginhost

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// exposures are files and folders whose modes let others write; a group is one of
// another number than the owner's where it is not 0.
var exposures = []struct {
	what     string
	folder   os.FileMode
	file     os.FileMode
	group    int // of both
	byLink   bool
	wrong    string // "": nobody else can change it
	whatElse string // of the message
}{
	{what: "nobody else", folder: 0o755, file: 0o755},
	{what: "the file by everybody", folder: 0o755, file: 0o757, wrong: "file is writable for everybody", whatElse: "chmod o-w it"},
	{what: "the folder by everybody", folder: 0o777, file: 0o755, wrong: "folder is writable for everybody"},
	{what: "the file by a group", folder: 0o755, file: 0o775, group: 54321, wrong: "file is writable for the group 54321 (mode 0775)", whatElse: "chmod g-w it"},
	{what: "the folder by a group", folder: 0o775, file: 0o755, group: 54321, wrong: "folder is writable for the group 54321"},
	{what: "the owner's group", folder: 0o775, file: 0o775},
	{what: "a folder with the sticky bit", folder: 0o777 | os.ModeSticky, file: 0o755},
	{what: "the file in a folder with the sticky bit", folder: 0o777 | os.ModeSticky, file: 0o777, wrong: "file is writable for everybody"},
	{what: "a sticky file", folder: 0o755, file: 0o777 | os.ModeSticky, wrong: "file is writable for everybody"},
	{what: "a link into a folder", folder: 0o777, file: 0o755, byLink: true, wrong: "folder is writable for everybody"},
}

// expose makes a file in a folder and returns the path to it.
func expose(t *testing.T, i int, text string) (path, folder string) {
	t.Helper()
	e := exposures[i]
	if e.group != 0 && os.Geteuid() != 0 {
		t.Skip("only root gives a file to a group of its choice")
	}
	top := t.TempDir()
	folder = filepath.Join(top, "folder")
	path = filepath.Join(folder, "file")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	gid := e.group
	if gid == 0 {
		gid = os.Geteuid() // the own group has the user's number
	}
	for at, mode := range map[string]os.FileMode{folder: e.folder, path: e.file} {
		if os.Geteuid() == 0 {
			if err := os.Chown(at, os.Geteuid(), gid); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(at, mode); err != nil {
			t.Fatal(err)
		}
	}
	if e.byLink {
		links := filepath.Join(top, "links")
		if err := os.Mkdir(links, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("../folder", filepath.Join(links, "relative")); err != nil {
			t.Fatal(err)
		}
		link := filepath.Join(links, "link")
		if err := os.Symlink(filepath.Join(links, "relative", "file"), link); err != nil {
			t.Fatal(err)
		}
		path = link
	}
	return path, folder
}

// TestExposed: whoever can write the program, the script, a hashed file or a folder
// above can have something else run.
func TestExposed(t *testing.T) {
	for i, e := range exposures {
		t.Run(e.what, func(t *testing.T) {
			path, folder := expose(t, i, "x")
			interpreted := filepath.Join(t.TempDir(), "script")
			if err := os.WriteFile(interpreted, []byte("#! "+path+" -u\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			for what, s := range map[string]Spec{
				"program":     {Command: []string{path}},
				"script":      {Command: []string{"/bin/sh", "-e", path}},
				"file":        {Command: []string{"/bin/sh"}, Files: map[string]string{path: ""}},
				"interpreter": {Command: []string{interpreted}},
			} {
				err := Exposed(s)
				switch {
				case e.wrong == "" && err != nil, e.wrong != "" && err == nil:
					t.Errorf("%s: %v", what, err)
				case err != nil:
					want := strings.Replace(e.wrong, "file is", filepath.Join(folder, "file")+" is", 1)
					want = strings.Replace(want, "folder is", folder+" is", 1)
					if got := err.Error(); !strings.HasPrefix(got, path+" can be changed by others: ") || !strings.Contains(got, want) || !strings.Contains(got, e.whatElse) {
						t.Errorf("%s: %q, want %q", what, got, want)
					}
				}
			}
		})
	}
	if err := Exposed(Spec{Command: []string{"/nonexistent/x"}}); err != nil {
		t.Errorf("a missing program: %v", err)
	}
	loop := filepath.Join(t.TempDir(), "loop")
	if err := os.Symlink(loop, loop); err != nil {
		t.Fatal(err)
	}
	if err := Exposed(Spec{Command: []string{loop}}); err == nil || !strings.Contains(err.Error(), "too many symbolic links") {
		t.Errorf("a loop: %v", err)
	}
}

// TestExposedIsRefused: where a hash is to vouch, nothing starts that others can
// change, and nothing of it runs.
func TestExposedIsRefused(t *testing.T) {
	h := newHost(t, nil)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range exposures {
		t.Run(e.what, func(t *testing.T) {
			marker := filepath.Join(t.TempDir(), "ran")
			text := fmt.Sprintf("#!/bin/sh\n: >%s\nexec %s plugin serve %s\n", marker, exe, rawName)
			path, _ := expose(t, i, text)
			hash := sha256.Sum256([]byte(text))
			sum := hex.EncodeToString(hash[:])
			for _, s := range []Spec{
				{Command: []string{path}, SHA256: sum},
				{Command: []string{"/bin/sh", path}, Files: map[string]string{path: sum}},
			} {
				s.Name = rawName
				if e.wrong == "" {
					if err := h.start(t, s).Stop(t.Context()); err != nil {
						t.Error(err)
					}
					continue
				}
				if err := h.startFails(t, s); !strings.Contains(err.Error(), "can be changed by others") || !strings.Contains(err.Error(), "so its hash proves nothing") {
					t.Errorf("error %v", err)
				}
				if _, err := os.Stat(marker); err == nil {
					t.Error("it ran")
				}
			}
		})
	}
}

// exposedProbe says whether the program in its environment is exposed.
func exposedProbe() int {
	if err := Exposed(Spec{Command: []string{os.Getenv("PROBE")}}); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// TestReadOnlyMountIsNotExposed: nobody writes there, whatever the modes are.
func TestReadOnlyMountIsNotExposed(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root mounts")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	top := t.TempDir()
	folder := filepath.Join(top, "folder")
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(folder, "file")
	if err := os.WriteFile(path, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{folder, path} {
		if err := os.Chmod(at, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	probe := func(before string) (string, error) {
		cmd := exec.Command("/bin/sh", "-ec", before+`exec "$0" plugin serve exposed`, exe)
		cmd.Env = append(os.Environ(), "PROBE="+path, "FOLDER="+folder)
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := probe("mount --make-rprivate / && "); err == nil || !strings.Contains(out, "writable for everybody") {
		if !strings.Contains(out, "can be changed by others") {
			t.Skipf("no mount namespace here: %v, %s", err, out)
		}
		t.Errorf("writable: %q, %v", out, err)
	}
	if out, err := probe(`mount --make-rprivate / && mount --bind "$FOLDER" "$FOLDER" && mount -o remount,bind,ro "$FOLDER" && `); err != nil {
		t.Errorf("read-only: %q, %v", out, err)
	}
}
