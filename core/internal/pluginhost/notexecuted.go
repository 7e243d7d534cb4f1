package pluginhost

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/internal/userfile"
)

const (
	// maxInterpreters bounds the scripts that are each other's interpreters.
	maxInterpreters = 5
	// maxLoader bounds the path of a program's loader, in bytes.
	maxLoader = 4096
)

// notExecuted adds to the system's error what keeps path from being executed, where the
// files tell. The system says "no such file" of a file that is there and whose
// interpreter is not.
func notExecuted(path string, err error) error {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return err
	}
	err = fmt.Errorf("execute %s: %w", path, errno)
	switch errno {
	case syscall.ENOEXEC, syscall.ENOENT, syscall.EACCES, syscall.ELOOP:
		if why := hindrance(path, errno, maxInterpreters); why != "" {
			return fmt.Errorf("%w: %s", err, why)
		}
	case syscall.ETXTBSY:
		return fmt.Errorf("%w: somebody is writing it: copy it under another name, then rename it", err)
	}
	return err
}

// hindrance says what is wrong with a program for which the system said errno, and what
// to do; unknown: "".
func hindrance(path string, errno syscall.Errno, depth int) string {
	if errno == syscall.EACCES {
		if noExec(path) {
			return "its file system is mounted with noexec: move it to another one, or mount that with exec"
		}
		if unix.Access(path, unix.X_OK) != nil {
			return "the daemon's user may not execute it: correct its mode, its owner or the modes of the folders above it"
		}
	}
	head, err := headOf(path)
	if err != nil {
		return ""
	}
	line, script := firstLine(head)
	switch {
	case script:
		return line.hindrance(path, errno, depth)
	case bytes.HasPrefix(head, []byte(elf.ELFMAG)):
		return hindranceOfELF(path, errno)
	case errno != syscall.ENOEXEC:
		return ""
	case len(head) == 0:
		return "it is empty: copy it again"
	case bytes.HasPrefix(head, []byte("MZ")):
		return "it is a program for Windows: " + installOwn
	case isMachO(head):
		return "it is a program for macOS: " + installOwn
	case bytes.HasPrefix(head, []byte("\ufeff#!")):
		return "a byte order mark stands before its #!: save it as UTF-8 without one"
	case bytes.IndexByte(head, 0) < 0:
		return fmt.Sprintf(`it is a text without an interpreter in its first line: begin it with a line such as #!/bin/sh, or write command = ["/bin/sh", %q]`, path)
	}
	return "it is not a program: check that it is the right file"
}

var installOwn = fmt.Sprintf("install the one for %s/%s", runtime.GOOS, runtime.GOARCH)

// headOf returns as much of the beginning of a file as a first line may have.
func headOf(path string) ([]byte, error) {
	f, err := userfile.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return io.ReadAll(io.LimitReader(f, maxFirstLine))
}

// machines are the names that Go has for the processors of ELF files.
var machines = map[elf.Machine]string{
	elf.EM_386:       "386",
	elf.EM_X86_64:    "amd64",
	elf.EM_ARM:       "arm",
	elf.EM_AARCH64:   "arm64",
	elf.EM_LOONGARCH: "loong64",
	elf.EM_PPC64:     "ppc64",
	elf.EM_RISCV:     "riscv64",
	elf.EM_S390:      "s390x",
}

// hindranceOfELF is hindrance for a program of Linux and its kin.
func hindranceOfELF(path string, errno syscall.Errno) string {
	f, err := elf.Open(path)
	if err != nil {
		return fmt.Sprintf("it is a damaged ELF file (%v): copy it again", err)
	}
	defer func() { _ = f.Close() }()
	name := machines[f.Machine]
	if name == "" {
		name = f.Machine.String()
	}
	switch {
	case errno == syscall.ENOENT:
		return missingLoader(f)
	case errno != syscall.ENOEXEC:
		return ""
	case name != strings.TrimSuffix(runtime.GOARCH, "le"):
		return fmt.Sprintf("it is a program for another machine, %s: %s", name, installOwn)
	}
	return "the system does not take this ELF file: " + installOwn
}

// missingLoader says which loader a dynamically linked program names that is not there.
func missingLoader(f *elf.File) string {
	i := slices.IndexFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
	if i < 0 {
		return ""
	}
	b, err := io.ReadAll(io.LimitReader(f.Progs[i].Open(), maxLoader))
	loader := strings.TrimRight(string(b), "\x00")
	if err != nil {
		return ""
	}
	if _, err := os.Stat(loader); !errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	return fmt.Sprintf("its loader %q does not exist: it was linked for another system or C library; install one that is linked statically (CGO_ENABLED=0 in Go), or that library", loader)
}

// isMachO says whether a file begins as programs of macOS do, for one processor or
// several.
func isMachO(head []byte) bool {
	if len(head) < 4 {
		return false
	}
	return slices.Contains([]uint32{0xcffaedfe, 0xcefaedfe, 0xcafebabe}, binary.BigEndian.Uint32(head))
}
