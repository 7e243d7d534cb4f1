package pluginhost

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// elfFile is the beginning of an ELF file, with a loader where one is named.
func elfFile(t *testing.T, machine elf.Machine, loader string) string {
	t.Helper()
	h := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: 1, Ehsize: 64, Phentsize: 56, Shentsize: 64}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	parts := []any{&h}
	if loader != "" {
		h.Phoff, h.Phnum = 64, 1
		size := uint64(len(loader) + 1)
		parts = append(parts, &elf.Prog64{Type: uint32(elf.PT_INTERP), Off: 64 + 56, Filesz: size, Memsz: size}, append([]byte(loader), 0))
	}
	var b bytes.Buffer
	for _, part := range parts {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

// own and foreign are the machine that runs this test, and another one.
func ownAndForeign(t *testing.T) (own, foreign elf.Machine) {
	t.Helper()
	foreign = elf.EM_S390
	for machine, name := range machines {
		if name == runtime.GOARCH {
			own = machine
		}
	}
	if own == elf.EM_NONE || own == foreign {
		t.Skip("no little endian ELF files of 64 bits here")
	}
	return own, foreign
}

// TestNotExecuted: a program that the system does not execute is told what it lacks, and
// what to do; the system's own words name the wrong file.
func TestNotExecuted(t *testing.T) {
	own, foreign := ownAndForeign(t)
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	forbidden := write("forbidden", "x", 0o644)
	broken := write("broken", "#!/nonexistent/python\n", 0o755)
	this := runtime.GOOS + "/" + runtime.GOARCH
	h := newHost(t, nil)
	for i, tt := range []struct{ what, text, want string }{
		{"the interpreter is missing", "#! /nonexistent/pyhton3 -u\nprint()\n", "no such file or directory: its first line names the interpreter /nonexistent/pyhton3, which does not exist: install it, or correct the line"},
		{"CR LF behind it", "#!/bin/sh\r\necho\r\n", "no such file or directory: its first line ends with CR LF, and the CR counts as part of the name: save it with LF alone (sed -i 's/\\r$//' PATH)"},
		{"CR LF behind its argument", "#!/usr/bin/env sh\r\n", "before its handshake: its first line ends with CR LF"},
		{"a name alone", "#!python3\n", `the interpreter "python3" without a path: write #!/usr/bin/env python3`},
		{"none behind it", "#! \necho\n", "exec format error: no interpreter follows the #! of its first line"},
		{"too long", "#!/" + strings.Repeat("x", 300) + "\n", "longer than Linux reads (255 bytes)"},
		{"a folder", "#!" + dir + "\n", "permission denied: its first line names the interpreter " + dir + ", which is a folder"},
		{"not executable", "#!" + forbidden + "\n", "permission denied: its first line names the interpreter " + forbidden + ", which cannot be used: the daemon's user may not execute it: correct its mode"},
		{"of the interpreter", "#!" + broken + "\n", "its first line names the interpreter " + broken + ", which cannot be used: its first line names the interpreter /nonexistent/python, which does not exist"},
		{"its own interpreter", "#!PATH\n", "too many levels of symbolic links: its first line names the interpreter PATH, which is a script, whose interpreter is one again"},
		{"no first line", "echo hello\n", `exec format error: it is a text without an interpreter in its first line: begin it with a line such as #!/bin/sh, or write command = ["/bin/sh", "PATH"]`},
		{"a byte order mark", "\ufeff#!/bin/sh\n", "exec format error: a byte order mark stands before its #!: save it as UTF-8 without one"},
		{"empty", "", "exec format error: it is empty: copy it again"},
		{"another machine", elfFile(t, foreign, ""), "exec format error: it is a program for another machine, s390x: install the one for " + this},
		{"a machine without a name", elfFile(t, elf.EM_SPARCV9, ""), "it is a program for another machine, EM_SPARCV9"},
		{"half of it", elfFile(t, own, "")[:40], "it is a damaged ELF file ("},
		{"no loader", elfFile(t, own, "/lib/ld-other.so.1"), `no such file or directory: its loader "/lib/ld-other.so.1" does not exist`},
		{"Windows", "MZ\x90\x00\x03", "it is a program for Windows: install the one for " + this},
		{"macOS", "\xcf\xfa\xed\xfe\x0c\x00", "it is a program for macOS: install the one for " + this},
		{"something else", "\x1f\x8b\x08\x00", "it is not a program"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			name := "plugin-" + strconv.Itoa(i)
			path := filepath.Join(dir, name)
			write(name, strings.ReplaceAll(tt.text, "PATH", path), 0o755)
			err := h.startFails(t, Spec{Name: rawName, Command: []string{path}})
			want := strings.ReplaceAll(tt.want, "PATH", path)
			if got := err.Error(); !strings.Contains(got, want) || !strings.Contains(want, "handshake") && !strings.Contains(got, ": execute "+path+": ") {
				t.Errorf("error %q, want %q", got, want)
			}
		})
	}
}

// TestNotExecutedOfAHash: what was hashed is executed by its descriptor, which the error
// does not name.
func TestNotExecutedOfAHash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	const empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	err := newHost(t, nil).startFails(t, Spec{Name: rawName, Command: []string{path}, SHA256: empty})
	if got := err.Error(); !strings.Contains(got, "execute "+path+": exec format error: it is empty") {
		t.Errorf("error %q", got)
	}
}

// TestProgramThatIsWritten: the system executes no file that is open for writing.
func TestProgramThatIsWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "program")
	copySelf(t, path)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	err = newHost(t, nil).startFails(t, Spec{Name: rawName, Command: []string{path}})
	if got := err.Error(); !strings.Contains(got, "text file busy: somebody is writing it: copy it under another name, then rename it") {
		t.Errorf("error %q", got)
	}
}

// executeProbe executes the program in its environment and prints what is wrong with it.
func executeProbe() int {
	path := os.Getenv("PROBE")
	err := exec.Command(path).Run()
	if err == nil {
		return 0
	}
	_, _ = os.Stdout.WriteString(notExecuted(path, err).Error())
	return 1
}

// TestMountedWithNoexec: a mode that allows it is not all.
func TestMountedWithNoexec(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root mounts")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	path := filepath.Join(folder, "program")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", "-ec", `mount --make-rprivate / && mount --bind "$FOLDER" "$FOLDER" && mount -o remount,bind,noexec "$FOLDER" && exec "$0" plugin serve execute`, exe)
	cmd.Env = append(os.Environ(), "PROBE="+path, "FOLDER="+folder)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.HasPrefix(string(out), "execute ") {
		t.Skipf("no mount namespace here: %v, %s", err, out)
	}
	if want := "permission denied: its file system is mounted with noexec"; !strings.Contains(string(out), want) {
		t.Errorf("%s, want %q", out, want)
	}
}

// TestEndsBeforeItsHandshake: how a process ended is told, and not that it was killed
// since it had closed its standard output first.
func TestEndsBeforeItsHandshake(t *testing.T) {
	h := newHost(t, nil)
	for _, tt := range []struct{ what, does, want string }{
		{"it ends", "exit 7", "it ended (exit status 7) before its handshake"},
		{"it lives on", "exec sleep 1000", "it closed its standard output before its handshake"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "script")
			if err := os.WriteFile(path, []byte("#!/bin/sh\nexec >&-\n"+tt.does+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := h.startFails(t, Spec{Name: rawName, Command: []string{path}}); !strings.HasSuffix(err.Error(), tt.want) {
				t.Errorf("error %q, want %q", err, tt.want)
			}
		})
	}
}
