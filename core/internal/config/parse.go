// Package config reads the configuration language: it parses files, checks what
// needs no plugin, decodes the bodies of upstreams against their plugins' schemas,
// and reports everything that is wrong, with file and line and without secrets. It
// starts nothing and opens no socket.
package config

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/tunneld/tunneld/core/diag"
	"github.com/tunneld/tunneld/core/internal/hclbody"
	"github.com/tunneld/tunneld/core/internal/listen"
	"github.com/tunneld/tunneld/internal/schema"
	"github.com/tunneld/tunneld/internal/userfile"
)

// parser collects a configuration and what is wrong with it.
type parser struct {
	cfg   *Config
	src   *source
	diags diag.Diagnostics
	// places are the headers of the blocks by ID, also of those that are wrong: a
	// reference to one that exists but is wrong is not reported as dangling.
	places map[string]hcl.Range
	routes []routePlace
	listen []listenPlace
	// dangling says that a reference leads nowhere, so that a block without
	// references may only be the victim of a misspelling.
	dangling bool
}

func newParser(cfg *Config) *parser {
	return &parser{cfg: cfg, src: cfg.src, places: map[string]hcl.Range{}}
}

// Default returns what the absence of every block stands for.
func Default() *Config {
	cfg := &Config{src: newSource("")}
	newParser(cfg).defaults()
	return cfg
}

// Parse reads one file, or a folder's *.hcl in name order, and checks all that
// needs no plugin. It returns everything that is wrong at once. The Config is
// whole only if no diagnostic is an error; otherwise it serves to find more
// errors, and must not be run.
func Parse(path string) (*Config, diag.Diagnostics) {
	names, folder, problem := configFiles(path)
	p := newParser(&Config{src: newSource(folder)})
	if problem != "" {
		return p.cfg, diag.Diagnostics{{Summary: "No configuration", Detail: problem, File: path}}
	}
	var texts []sourceText
	left := int64(MaxSize)
	for _, name := range names {
		f, err := userfile.Read(name, left)
		if err != nil {
			p.src.sums[name] = userfile.Sum{}
			p.unreadable(name, err)
			continue
		}
		p.src.sums[name] = f.Sum()
		left -= int64(len(f.Data))
		texts = append(texts, sourceText{name, f.Data})
	}
	return p.parse(texts, len(texts) == len(names))
}

// ParseFrom is Parse for a configuration that comes from r, as standard input;
// name is for diagnostics. Relative paths in it start from the working directory.
func ParseFrom(r io.Reader, name string) (*Config, diag.Diagnostics) {
	p := newParser(&Config{src: newSource("")})
	f, err := userfile.ReadFrom(r, MaxSize)
	if err != nil {
		p.unreadable(name, err)
		return p.cfg, p.diags
	}
	return p.parse([]sourceText{{name, f.Data}}, true)
}

// sourceText is a file that has been read.
type sourceText struct {
	name string
	data []byte
}

func (p *parser) unreadable(name string, err error) {
	detail := "The reason: " + reason(err) + "."
	if errors.Is(err, userfile.ErrTooLarge) {
		detail = fmt.Sprintf("The configuration is larger than %d MiB, all its files together.", MaxSize>>20)
	}
	p.diags = append(p.diags, diag.Diagnostic{Summary: "File cannot be read", Detail: detail, File: name})
}

// parse makes a configuration of its files; whole says that all could be read.
func (p *parser) parse(texts []sourceText, whole bool) (*Config, diag.Diagnostics) {
	var files []*file
	for _, t := range texts {
		f, problems := parseFile(t.name, t.data)
		p.src.files[t.name] = f
		files = append(files, f)
		p.report(problems...)
		whole = whole && f.broken == 0
	}
	p.defaults()
	p.locals(files, whole)
	for _, f := range files {
		p.file(f)
	}
	p.addresses()
	if whole {
		p.references()
	}
	p.diags.Sort()
	return p.cfg, p.diags
}

func (p *parser) report(problems ...hclbody.Problem) {
	p.diags = append(p.diags, p.src.diagnostics(problems)...)
}

func (p *parser) errorAt(at hcl.Range, summary, detail string) {
	p.report(hclbody.Problem{Summary: summary, Detail: detail, Range: at})
}

func (p *parser) warnAt(at hcl.Range, summary, detail string) {
	p.report(hclbody.Problem{Warning: true, Summary: summary, Detail: detail, Range: at})
}

// defaults fills in what an absent block stands for.
func (p *parser) defaults() {
	empty := &hclsyntax.Body{}
	absent := func(id string) schema.Values {
		values, _ := new(hclbody.Decoder).Decode(tables[id], empty, hcl.Range{})
		p.src.written[id] = written{tables[id], values}
		return values
	}
	p.cfg.Log = logBlock(absent("log"))
	p.cfg.Daemon = p.daemon(absent("daemon"), nil)
}

// file decodes the blocks of a file: in a broken one, those that end before the
// first error.
func (p *parser) file(f *file) {
	for name, a := range f.body.Attributes {
		if f.broken > 0 && a.SrcRange.End.Line >= f.broken {
			continue
		}
		p.errorAt(a.NameRange, fmt.Sprintf("Attribute %q outside a block", name), "Attributes belong in blocks: "+blockNames()+".")
	}
	for _, b := range f.body.Blocks {
		if f.broken == 0 || b.CloseBraceRange.End.Line < f.broken {
			p.block(b)
		}
	}
}

func blockNames() string {
	var names []string
	for n := range labelNames {
		names = append(names, n)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

func (p *parser) block(b *hclsyntax.Block) {
	labels, known := labelNames[b.Type]
	if !known {
		var names []string
		for n := range labelNames {
			names = append(names, n)
		}
		slices.Sort(names)
		detail := "The blocks are " + strings.Join(names, ", ") + "."
		if similar := schema.Suggest(b.Type, names); similar != "" {
			detail = fmt.Sprintf("Did you mean %q?", similar)
		}
		p.errorAt(b.TypeRange, fmt.Sprintf("Unknown block %q", b.Type), detail)
		return
	}
	if len(b.Labels) != len(labels) {
		p.errorAt(b.TypeRange, fmt.Sprintf("Wrong number of labels for %q", b.Type), "Write: "+wantedHeader(b.Type)+" { … }")
		return
	}
	if b.Type == "locals" {
		return // see parser.locals
	}
	id, ok := p.identify(b)
	if !ok {
		return
	}
	if first, twice := p.places[id]; twice {
		what := headerText(b.Type, b.Labels)
		detail := fmt.Sprintf("The first is in %s on line %d. ", first.Filename, first.Start.Line)
		if len(labels) == 0 {
			detail += "Only one is allowed: merge the two."
		} else {
			detail += "Give this one another name."
		}
		p.errorAt(b.TypeRange, fmt.Sprintf("Block %s is defined twice", what), detail)
	} else {
		p.places[id] = b.DefRange()
		p.src.blocks[id] = b
	}
	p.decode(b)
}

func wantedHeader(blockType string) string {
	s := blockType
	for _, n := range labelNames[blockType] {
		s += ` "` + n + `"`
	}
	return s
}

// identify checks the labels and returns the block's ID.
func (p *parser) identify(b *hclsyntax.Block) (string, bool) {
	if len(b.Labels) == 0 {
		return b.Type, true
	}
	name := b.Labels[len(b.Labels)-1]
	ok := true
	if !nameRE.MatchString(name) {
		p.errorAt(b.TypeRange, fmt.Sprintf("Wrong name for %s", b.Type), "A name starts with a letter and goes on with letters, digits, _ or -, at most 64 in all.")
		ok = false
	}
	switch b.Type {
	case "listener":
		ok = p.listenerKind(b) && ok
	case "upstream", "plugin":
		if !schema.IsPluginName(b.Labels[0]) {
			p.errorAt(b.TypeRange, fmt.Sprintf("Wrong plugin name for %s", b.Type), "The name of a plugin starts with a small letter and goes on with small letters, digits or _, at most 32 in all.")
			ok = false
		}
		if b.Type == "plugin" && b.Labels[0] == "direct" {
			p.errorAt(b.TypeRange, `The name "direct" is taken`, `Upstreams of type "direct" are built in. Give the plugin another name.`)
			ok = false
		}
	}
	return blockID(b), ok
}

// blockID is "listener.tcp.orders", "log".
func blockID(b *hclsyntax.Block) string {
	return strings.Join(append([]string{b.Type}, b.Labels...), ".")
}

func (p *parser) listenerKind(b *hclsyntax.Block) bool {
	kind := b.Labels[0]
	var known []string
	for _, k := range listen.Kinds() {
		known = append(known, k.Name)
	}
	found, ok := listen.FindKind(kind)
	summary, detail := wrongSystem(found, runtime.GOOS)
	switch {
	case ok && summary == "":
		return true
	case ok:
		p.errorAt(b.TypeRange, summary, detail)
	case slices.Contains(listen.Later, kind):
		p.errorAt(b.TypeRange, fmt.Sprintf("Listeners of kind %q are not implemented yet", kind), "The name is reserved for a later version of tunneld. The kinds are "+strings.Join(known, ", ")+".")
	default:
		detail := "The kinds are " + strings.Join(known, ", ") + "."
		if similar := schema.Suggest(kind, known); similar != "" {
			detail = fmt.Sprintf("Did you mean %q? %s", similar, detail)
		}
		p.errorAt(b.TypeRange, "Unknown kind of listener", detail)
	}
	return false
}

// wrongSystem says what is wrong with listeners of a kind on a system; empty: nothing.
func wrongSystem(k listen.Kind, goos string) (summary, detail string) {
	if k.System == "" || k.System == goos {
		return "", ""
	}
	var here []string
	for _, other := range listen.Kinds() {
		if other.System == "" || other.System == goos {
			here = append(here, other.Name)
		}
	}
	return fmt.Sprintf("Listeners of kind %q need another system", k.Name),
		fmt.Sprintf("They are for %s, and this is %s. The kinds here are %s.", k.System, goos, strings.Join(here, ", "))
}

// eval computes an expression and reports what is wrong with it.
func (p *parser) eval(expr hclsyntax.Expression) (cty.Value, bool) {
	e, problems := p.src.eval(expr)
	p.report(problems...)
	return e.value, e.ok
}

// values decodes the body of one of the language's own blocks.
func (p *parser) values(b *hclsyntax.Block) schema.Values {
	d := hclbody.Decoder{
		Eval: p.eval,
		Fill: true,
		// Blocks other than listeners have no addresses.
		Instead: map[string]string{"address": "addresses"},
		Later: func(path []string, name string) bool {
			if len(path) > 0 {
				return slices.Contains(later[path[len(path)-1]], name)
			}
			owner, hasCommon := owners[b.Type]
			return slices.Contains(later[b.Type], name) || hasCommon && schema.IsReserved(owner, name)
		},
		Elsewhere: func(path []string, name string) string {
			if b.Type != "listener" || len(path) > 0 {
				return ""
			}
			kind, _ := listen.FindKind(b.Labels[0]) // the header was checked
			return listenerWith(kind, name)
		},
	}
	table := tableOf(b)
	values, problems := d.Decode(table, b.Body, b.DefRange())
	p.report(problems...)
	p.src.written[blockID(b)] = written{table, values}
	return values
}
