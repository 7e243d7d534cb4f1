package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/core"
	"github.com/tunneld/tunneld/internal/userfile"
)

func fmtCommand() *cobra.Command {
	var check bool
	cmd := &cobra.Command{
		Use:   "fmt PATH",
		Short: "Rewrite a configuration in the canonical layout",
		Long: `fmt rewrites a file, or each *.hcl of a folder, in the canonical layout and prints
the names of those that changed. "-" reads standard input and writes standard
output.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] == "-" {
				return formatStream(cmd.InOrStdin(), cmd.OutOrStdout(), check)
			}
			return formatPath(cmd, args[0], check)
		},
	}
	cmd.Flags().BoolVar(&check, "check", false, "change nothing; exit status 1 if a file is not in the layout")
	return cmd
}

func formatStream(in io.Reader, out io.Writer, check bool) error {
	f, err := userfile.ReadFrom(in, core.MaxConfigSize)
	if err != nil {
		return fmt.Errorf("fmt: %s: %w", stdinName, err)
	}
	done, err := core.Format(f.Data, stdinName)
	if err != nil {
		return err
	}
	if check {
		if f.Mark || !bytes.Equal(f.Data, done) {
			return statusError(exitFailed)
		}
		return nil
	}
	_, err = out.Write(done)
	return err
}

func formatPath(cmd *cobra.Command, path string, check bool) error {
	files := []string{path}
	st, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("fmt: %w", err)
	}
	if st.IsDir() {
		if files, err = filepath.Glob(filepath.Join(path, "*.hcl")); err != nil {
			return fmt.Errorf("fmt: %w", err)
		}
		// As run reads a folder.
		files = slices.DeleteFunc(files, func(f string) bool { return strings.HasPrefix(filepath.Base(f), ".") })
		if len(files) == 0 {
			return fmt.Errorf("fmt: no *.hcl in %s", path)
		}
	}
	changed := false
	for _, f := range files {
		did, err := formatFile(f, check)
		if err != nil {
			return err
		}
		if did {
			changed = true
			fmt.Fprintln(cmd.OutOrStdout(), f)
		}
	}
	if check && changed {
		return statusError(exitFailed)
	}
	return nil
}

// formatFile says whether the file was, or with check would be, changed. The
// new text takes the old one's place in one step.
func formatFile(path string, check bool) (bool, error) {
	f, err := userfile.Read(path, core.MaxConfigSize)
	if err != nil {
		return false, fmt.Errorf("fmt: %w", err)
	}
	done, err := core.Format(f.Data, path)
	if err != nil {
		return false, err
	}
	if !f.Mark && bytes.Equal(f.Data, done) {
		return false, nil
	}
	if check {
		return true, nil
	}
	return true, replaceFile(path, done)
}

func replaceFile(path string, text []byte) error {
	// A link keeps pointing at the file that is rewritten.
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fmt.Errorf("fmt: %w", err)
	}
	st, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("fmt: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".tunneld-fmt-*")
	if err != nil {
		return fmt.Errorf("fmt: %w", err)
	}
	defer os.Remove(f.Name()) // it is gone after the rename
	if err := f.Chmod(st.Mode().Perm()); err != nil {
		return fmt.Errorf("fmt: %w", err)
	}
	if _, err := f.Write(text); err != nil {
		return fmt.Errorf("fmt %s: %w", path, err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("fmt %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("fmt: %w", err)
	}
	return nil
}
