package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/tunneld/tunneld/core/diag"
	"github.com/tunneld/tunneld/core/internal/hclbody"
	"github.com/tunneld/tunneld/internal/userfile"
)

// MaxSize bounds a configuration, all its files together, in bytes: ten thousand
// routes are about 2 MB.
const MaxSize = 4 << 20

// source is what a configuration was made from: it places diagnostics.
type source struct {
	// folder is where relative paths start from.
	folder string
	files  map[string]*file
	// sums are of the files as they were read.
	sums   map[string]userfile.Sum
	blocks map[string]*hclsyntax.Block // by ID: "listener.tcp.orders", "log"
	funcs  *hcl.EvalContext
	evals  map[hclsyntax.Expression]evaluated
	// read is what file() reads while an expression is computed.
	read   map[string]userfile.Sum
	locals map[string]*local
	// missing says that a local which is not there is not to be had.
	missing bool
	// secrets are the sensitive values of each upstream, to keep them out of
	// what its plugin says.
	secrets map[string][]string
	// written is what each block says, by ID.
	written map[string]written
	// shown counts what diagnostics has placed: errors, warnings, and errors of the
	// machine.
	shown [3]int
}

// evaluated is an expression's value. Each expression is computed once, so
// that a file or variable that changes meanwhile gives one value.
type evaluated struct {
	value cty.Value
	ok    bool
	// read are the files that it was made of, by path.
	read map[string]userfile.Sum
}

// file is one configuration file.
type file struct {
	name string
	src  []byte
	body *hclsyntax.Body
	// broken is the line of the first syntax error, 0 if there is none. What
	// the parser made of the rest cannot be trusted.
	broken int
	tokens hclsyntax.Tokens // of a broken file
}

// newSource is an empty source, whose relative paths start from folder.
func newSource(folder string) *source {
	s := &source{
		folder:  folder,
		files:   map[string]*file{},
		sums:    map[string]userfile.Sum{},
		blocks:  map[string]*hclsyntax.Block{},
		evals:   map[hclsyntax.Expression]evaluated{},
		locals:  map[string]*local{},
		missing: true,
		secrets: map[string][]string{},
		written: map[string]written{},
	}
	s.funcs = s.evalContext()
	return s
}

// configFiles returns the files that path stands for, in order, and the folder
// that relative paths in them start from.
func configFiles(path string) (names []string, folder string, problem string) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, "", "It cannot be opened: " + reason(err) + "."
	}
	if !info.IsDir() {
		return []string{path}, filepath.Dir(path), ""
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, "", "The folder cannot be read: " + reason(err) + "."
	}
	for _, e := range entries {
		if n := e.Name(); strings.HasSuffix(n, ".hcl") && !strings.HasPrefix(n, ".") && !e.IsDir() {
			names = append(names, filepath.Join(path, n))
		}
	}
	if len(names) == 0 {
		return nil, "", "The folder has no file whose name ends in .hcl. Put one there, or name another path."
	}
	slices.Sort(names)
	return names, path, ""
}

// reason is why a file operation failed, without the path.
func reason(err error) string {
	var pe *fs.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "there is no such file"
	case errors.Is(err, fs.ErrPermission):
		return "permission denied"
	case errors.As(err, &pe):
		return pe.Err.Error()
	}
	return err.Error()
}

// blockAt returns the outermost block that holds the position, or nil.
func (f *file) blockAt(pos hcl.Pos) *hclsyntax.Block {
	blocks := f.body.Blocks
	i := sort.Search(len(blocks), func(i int) bool { return blocks[i].TypeRange.Start.Byte > pos.Byte }) - 1
	if i < 0 || blocks[i].Range().End.Byte < pos.Byte {
		return nil
	}
	return blocks[i]
}

// attributeAt returns the attribute of the body that holds the position, or
// nil.
func attributeAt(body *hclsyntax.Body, pos hcl.Pos) *hclsyntax.Attribute {
	for _, a := range body.Attributes {
		if a.SrcRange.Start.Byte <= pos.Byte && pos.Byte <= a.SrcRange.End.Byte {
			return a
		}
	}
	return nil
}

// nestedAt returns the block of the body that holds the position, or nil.
func nestedAt(body *hclsyntax.Body, pos hcl.Pos) *hclsyntax.Block {
	for _, b := range body.Blocks {
		if r := b.Range(); r.Start.Byte <= pos.Byte && pos.Byte <= r.End.Byte {
			return b
		}
	}
	return nil
}

// lineAt returns the line of the position, without its end.
func (f *file) lineAt(pos hcl.Pos) string {
	n := min(pos.Byte, len(f.src))
	start := bytes.LastIndexByte(f.src[:n], '\n') + 1
	line, _, _ := bytes.Cut(f.src[start:], []byte("\n"))
	return strings.TrimRight(string(line), "\r")
}

// maxProblems bounds the problems of each kind that one configuration shows: one
// of a few megabytes can have a million, each with its place and its piece of the
// source.
const maxProblems = 100

// diagnostics places problems, and leaves out those beyond maxProblems: that there are
// more is told with the last.
func (s *source) diagnostics(problems []hclbody.Problem) (out diag.Diagnostics) {
	for _, p := range problems {
		kind := 0
		switch {
		case p.Warning:
			kind = 1
		case p.Machine:
			kind = 2
		}
		if s.shown[kind]++; s.shown[kind] > maxProblems {
			continue
		}
		d := s.diagnostic(p)
		if s.shown[kind] == maxProblems {
			d.Detail = strings.TrimSpace(fmt.Sprintf("%s There may be more: only %d are shown.", d.Detail, maxProblems))
		}
		out = append(out, d)
	}
	return out
}

// diagnostic places a problem: file, line, block, and as much of the source as
// may be shown.
func (s *source) diagnostic(p hclbody.Problem) diag.Diagnostic {
	d := diag.Diagnostic{Warning: p.Warning, Machine: p.Machine, Summary: p.Summary, Detail: p.Detail}
	f := s.files[p.Range.Filename]
	if f == nil {
		return d
	}
	d.File, d.Line = f.name, p.Range.Start.Line
	if f.broken > 0 {
		d.Block = f.brokenHeader(p.Range.Start)
		d.Source, d.SourceLine = f.brokenSnippet(d.Line), d.Line
		return d
	}
	if b := f.blockAt(p.Range.Start); b != nil {
		d.Block = headerText(b.Type, b.Labels)
	}
	d.Source, d.SourceLine = f.snippet(p.Range.Start)
	if p.Summary == summaryTwice { // the parser keeps the first only
		d.Source, d.SourceLine = f.indent(p.Range)+string(p.Range.SliceBytes(f.src))+" =", d.Line
	}
	return d
}
