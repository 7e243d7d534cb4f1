package layers

import (
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// beyond lists what public packages show of types that are not theirs to show: by
// symbol, the package and why. All else that an exported name leads to is of the
// standard library or of a public package, so that go doc shows it whole.
var beyond = map[string]struct{ shows, why string }{
	"plugins/sdk.SchemaOf":                 {"proto/tunneld/plugin/v1", "the schema as it travels: a second form of it would have to be kept equal"},
	"plugins/sdk/sdktest.Plugin.Schema":    {"proto/tunneld/plugin/v1", "the same"},
	"plugins/sdk/sdktest.Plugin.Control":   {"proto/tunneld/plugin/v1", "the calls of the contract, for tests of the contract itself"},
	"plugins/sdk/sdktest.Plugin.Tunnels":   {"proto/tunneld/plugin/v1", "the same"},
	"plugins/azrelay/azrelaycmd.Command":   {"github.com/spf13/cobra", "a command of the program's, which is made of these"},
	"plugins/azrelay/azrelaycmd.Emulate":   {"github.com/spf13/cobra", "the same"},
	"plugins/sapsocks/sapsockscmd.Emulate": {"github.com/spf13/cobra", "the same"},
	"plugins/soht/sohtcmd.Emulate":         {"github.com/spf13/cobra", "the same"},
	"plugins/websocks/websockscmd.Emulate": {"github.com/spf13/cobra", "the same"},
}

// public are the packages that somebody else may import, without the contract's
// generated code.
type public struct {
	names    []string // without the module's path
	exported map[string]string
	dirs     map[string]string
	files    map[string][]string
}

// contract is generated, and public for authors in other languages.
const contract = "proto/tunneld/plugin/v1"

func listPublic(t *testing.T) public {
	t.Helper()
	lookAtModule(t)
	p := public{exported: map[string]string{}, dirs: map[string]string{}, files: map[string][]string{}}
	list := func(args ...string) [][]string {
		out, err := exec.CommandContext(t.Context(), "go", append([]string{"list"}, args...)...).Output()
		if err != nil {
			t.Fatalf("go list %q: %v", args, err)
		}
		var rows [][]string
		for line := range strings.Lines(string(out)) {
			rows = append(rows, strings.Split(strings.TrimSuffix(line, "\n"), "\t"))
		}
		return rows
	}
	for _, row := range list("-f", "{{.ImportPath}}\t{{.Name}}\t{{.Dir}}\t{{join .GoFiles \"\t\"}}", module+"...") {
		name := strings.TrimPrefix(row[0], module)
		if row[1] == "main" || row[3] == "" || name == contract || slices.Contains(strings.Split(name, "/"), "internal") {
			continue
		}
		p.names = append(p.names, name)
		p.dirs[name], p.files[name] = row[2], row[3:]
	}
	args := []string{"-export", "-deps", "-f", "{{.ImportPath}}\t{{.Export}}"}
	for _, name := range p.names {
		args = append(args, module+name)
	}
	for _, row := range list(args...) {
		p.exported[row[0]] = row[1]
	}
	return p
}

// TestPublicFace: no exported name of a public package leads to a type that is
// internal, generated or another module's.
func TestPublicFace(t *testing.T) {
	p := listPublic(t)
	imports := importer.ForCompiler(token.NewFileSet(), "gc", func(path string) (io.ReadCloser, error) { return os.Open(p.exported[path]) })
	unused := map[string]bool{}
	for symbol := range beyond {
		unused[symbol] = true
	}
	for _, name := range p.names {
		pkg, err := imports.Import(module + name)
		if err != nil {
			t.Fatal(err)
		}
		l := looker{pkg: pkg, name: name, seen: map[types.Object]bool{}}
		l.found = func(symbol, path string) {
			to, ours := strings.CutPrefix(path, module)
			first, _, _ := strings.Cut(path, "/")
			if ours && slices.Contains(p.names, to) || !strings.Contains(first, ".") { // of the standard library
				return
			}
			if beyond[symbol].shows == to {
				delete(unused, symbol)
				return
			}
			t.Errorf("%s shows a type of %s", symbol, to)
		}
		for _, n := range pkg.Scope().Names() {
			if o := pkg.Scope().Lookup(n); o.Exported() {
				l.object(o)
			}
		}
	}
	for symbol := range unused {
		t.Errorf("%s shows nothing of %s, and may: take it off the list", symbol, beyond[symbol].shows)
	}
}

// looker follows what the exported names of a package lead to.
type looker struct {
	pkg   *types.Package
	name  string
	seen  map[types.Object]bool
	found func(symbol, path string)
}

// object looks at a declaration.
func (l *looker) object(o types.Object) {
	if l.seen[o] {
		return
	}
	l.seen[o] = true
	symbol := l.name + "." + o.Name()
	named, ok := o.Type().(*types.Named)
	if _, isType := o.(*types.TypeName); !isType || !ok {
		l.typ(symbol, o.Type())
		return
	}
	l.typ(symbol, named.Underlying())
	for i := range named.TypeParams().Len() {
		l.typ(symbol, named.TypeParams().At(i).Constraint())
	}
	for m := range named.Methods() {
		if m.Exported() {
			l.typ(symbol+"."+m.Name(), m.Type())
		}
	}
}

// typ looks at a type that the symbol leads to.
func (l *looker) typ(symbol string, t types.Type) {
	switch t := t.(type) {
	case *types.Alias:
		l.reached(symbol, t.Obj())
		l.typ(symbol, types.Unalias(t))
	case *types.Named:
		l.reached(symbol, t.Obj())
		for a := range t.TypeArgs().Types() {
			l.typ(symbol, a)
		}
	case *types.Map:
		l.typ(symbol, t.Key())
		l.typ(symbol, t.Elem())
	case interface{ Elem() types.Type }: // pointers, slices, arrays, channels
		l.typ(symbol, t.Elem())
	case *types.Signature:
		for i := range t.TypeParams().Len() {
			l.typ(symbol, t.TypeParams().At(i).Constraint())
		}
		for v := range t.Params().Variables() {
			l.typ(symbol, v.Type())
		}
		for v := range t.Results().Variables() {
			l.typ(symbol, v.Type())
		}
	case *types.Struct:
		for f := range t.Fields() {
			if f.Exported() || f.Embedded() {
				l.typ(symbol+"."+f.Name(), f.Type())
			}
		}
	case *types.Interface:
		for m := range t.ExplicitMethods() {
			if m.Exported() {
				l.typ(symbol+"."+m.Name(), m.Type())
			}
		}
		for e := range t.EmbeddedTypes() {
			l.typ(symbol, e)
		}
	case *types.Union:
		for term := range t.Terms() {
			l.typ(symbol, term.Type())
		}
	}
}

// reached is told each type by its name. One of the package's own that is not exported
// is looked through, since what has it shows its methods and fields.
func (l *looker) reached(symbol string, o types.Object) {
	switch {
	case o.Pkg() == nil: // of the language
	case o.Pkg() != l.pkg:
		l.found(symbol, o.Pkg().Path())
	case !o.Exported():
		l.object(o)
	}
}

// TestPublicFaceIsDocumented: every exported name of the SDK and the core has a comment,
// and so has every exported field, or the comment of a neighbour names it.
func TestPublicFaceIsDocumented(t *testing.T) {
	p := listPublic(t)
	for _, name := range p.names {
		if !covers("plugins/sdk/...", name) && !covers("core/...", name) {
			continue
		}
		for _, file := range p.files[name] {
			path := filepath.Join(p.dirs[name], file)
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range f.Decls {
				for _, silent := range undocumented(d) {
					t.Errorf("%s, %s: %s has no comment", name, file, silent)
				}
			}
		}
	}
}

// undocumented returns the exported names of a declaration that no comment is about.
func undocumented(d ast.Decl) (names []string) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && d.Doc == nil && (d.Recv == nil || ast.IsExported(receiver(d.Recv.List[0].Type))) {
			names = append(names, d.Name.Name)
		}
	case *ast.GenDecl:
		for _, s := range d.Specs {
			switch s := s.(type) {
			case *ast.TypeSpec:
				if !s.Name.IsExported() {
					continue
				}
				if d.Doc == nil && s.Doc == nil {
					names = append(names, s.Name.Name)
				}
				for _, field := range silentFields(s.Type) {
					names = append(names, s.Name.Name+"."+field)
				}
			case *ast.ValueSpec:
				for _, n := range s.Names {
					if n.IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
						names = append(names, n.Name)
					}
				}
			}
		}
	}
	return names
}

func receiver(e ast.Expr) string {
	if star, ok := e.(*ast.StarExpr); ok {
		e = star.X
	}
	if id, ok := e.(*ast.Ident); ok {
		return id.Name
	}
	return ""
}

var docTag = regexp.MustCompile(`\bdoc:"[^"]`)

// silentFields returns the exported fields and methods of a struct or an interface that
// have no comment, no tag that is one, and no place in a neighbour's.
func silentFields(e ast.Expr) (names []string) {
	var fields []*ast.Field
	switch e := e.(type) {
	case *ast.StructType:
		fields = e.Fields.List
	case *ast.InterfaceType:
		fields = e.Methods.List
	}
	var told strings.Builder
	for _, f := range fields {
		told.WriteString(f.Doc.Text())
	}
	for _, f := range fields {
		if f.Doc != nil || f.Comment != nil || f.Tag != nil && docTag.MatchString(f.Tag.Value) {
			continue
		}
		for _, n := range f.Names {
			if n.IsExported() && !regexp.MustCompile(`\b`+n.Name+`\b`).MatchString(told.String()) {
				names = append(names, n.Name)
			}
		}
	}
	return names
}
