package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// buildOf is what compare was given for one of its sides.
type buildOf struct {
	Name    string `json:"name"`             // as it was given
	Commit  string `json:"commit,omitempty"` // of a revision
	tunneld string // the program
}

func (b buildOf) String() string {
	if b.Commit == "" {
		return b.Name
	}
	return fmt.Sprintf("%s (commit %.12s)", b.Name, b.Commit)
}

// findBuild returns the program that name stands for: a file is the program, a folder
// a checkout to be built as it is, and anything else a git revision of the repository
// here, of which a copy is built below dir. The repository itself is left alone.
func findBuild(ctx context.Context, name, dir string) (b buildOf, err error) {
	b.Name = name
	info, err := os.Stat(name)
	switch {
	case err == nil && info.Mode().IsRegular():
		b.tunneld, err = filepath.Abs(name)
		return b, err
	case err == nil && info.IsDir():
		b.tunneld, err = build(ctx, name, dir)
		return b, err
	}
	if b.Commit, err = git(ctx, nil, "rev-parse", "--verify", "--quiet", "--end-of-options", name+"^{commit}"); err != nil {
		return b, fmt.Errorf("%q is neither a file nor a folder nor a git revision", name)
	}
	source := filepath.Join(dir, "source")
	if err := copyRevision(ctx, b.Commit, dir, source); err != nil {
		return b, err
	}
	b.tunneld, err = build(ctx, source, dir)
	return b, errors.Join(err, os.RemoveAll(source))
}

// copyRevision writes the files of a commit into the folder source, by an index of its
// own in dir.
func copyRevision(ctx context.Context, commit, dir, source string) error {
	if err := os.MkdirAll(source, 0o700); err != nil {
		return err
	}
	top, err := git(ctx, nil, "rev-parse", "--show-toplevel")
	if err != nil {
		return err
	}
	index := []string{"GIT_INDEX_FILE=" + filepath.Join(dir, "index")}
	if _, err := git(ctx, index, "-C", top, "read-tree", commit); err != nil {
		return err
	}
	_, err = git(ctx, index, "-C", top, "checkout-index", "--all", "--prefix="+source+"/")
	return err
}

// git returns what git prints, without the end of the line.
func git(ctx context.Context, env []string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Env = append(os.Environ(), env...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w\n%s", strings.Join(args, " "), err, said.String())
	}
	return strings.TrimSpace(string(out)), nil
}
