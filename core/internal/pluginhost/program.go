package pluginhost

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/tunneld/tunneld/internal/userfile"
)

// program is what a start executes: path is for the kernel, argv for the
// process and whoever lists it.
type program struct {
	path string
	argv []string
	// file is the program that the user named, and "" for a bundled plugin.
	file string
	// held is the file that was hashed and that path leads to; nil where
	// nothing was hashed.
	held *os.File
}

func (p program) close() {
	if p.held != nil {
		_ = p.held.Close()
	}
}

// explain adds to the error of a start what the program's file tells.
func (p program) explain(err error) error {
	if p.file == "" {
		return err
	}
	return notExecuted(p.file, err)
}

// line returns the program's first line, where it is a script.
func (p program) line() (l scriptLine, script bool) {
	if p.file == "" {
		return scriptLine{}, false
	}
	head, err := headOf(p.file)
	if err != nil {
		return scriptLine{}, false
	}
	return firstLine(head)
}

// openProgram finds what s starts and checks its hashes. The caller closes the
// program once it has been started.
func openProgram(ctx context.Context, s Spec, self []string, selfName string) (program, error) {
	if s.Vouched() {
		// What somebody else can write is not what was hashed for long.
		if err := Exposed(s); err != nil {
			return program{}, fmt.Errorf("%w; so its hash proves nothing", err)
		}
	}
	for path, want := range s.Files {
		f, _, err := openHashed(ctx, path, want)
		if err != nil {
			return program{}, err
		}
		_ = f.Close()
	}
	if s.Bundled {
		argv := append(slices.Clone(self), s.Name)
		argv[0] = selfName
		return program{path: self[0], argv: argv}, nil
	}
	p := program{path: s.Command[0], argv: s.Command, file: s.Command[0]}
	if s.SHA256 == "" {
		return p, nil
	}
	f, script, err := openHashed(ctx, p.path, s.SHA256)
	if err != nil {
		return program{}, err
	}
	if script {
		// The kernel hands a script's path to the interpreter, which opens it
		// again, so that the descriptor that was hashed cannot be executed: its
		// owner can change it between here and there. Naming the interpreter in
		// command and the script in files is no different.
		return p, f.Close()
	}
	p.held, p.path, err = executable(f, p.path)
	if err != nil {
		return program{}, err
	}
	return p, nil
}

// openHashed opens path and compares its content with the hexadecimal hash
// want. script says that it begins with "#!".
func openHashed(ctx context.Context, path, want string) (f *os.File, script bool, err error) {
	f, err = userfile.Open(path)
	if err != nil {
		return nil, false, err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
		}
	}()
	start := make([]byte, 2)
	if _, err := f.ReadAt(start, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, false, err
	}
	h := sha256.New()
	if _, err := io.Copy(h, contextReader{ctx, f}); err != nil {
		return nil, false, fmt.Errorf("read %s: %w", path, err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != strings.ToLower(want) {
		return nil, false, fmt.Errorf("%s has the sha256 %s, not %s: it was changed or replaced; if that is intended, put the new hash into the plugin block", path, got, strings.ToLower(want))
	}
	return f, bytes.Equal(start, []byte("#!")), nil
}

// contextReader ends with the context's error once it is done.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(b []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	return c.r.Read(b)
}
