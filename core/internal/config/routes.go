package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/tunneld/tunneld/core/internal/route"
	"github.com/tunneld/tunneld/internal/schema"
)

// routePlace is a route with its place and its references, which are checked
// once all blocks are known.
type routePlace struct {
	route     Route
	at        hcl.Range
	upstreams []reference
	matches   []reference
	users     hcl.Range // where it names users
	wrong     bool      // what it matches is not known
}

// reference is upstream.TYPE.NAME or listener.KIND.NAME as written.
type reference struct {
	id string // "upstream.sapsocks.onprem"
	at hcl.Range
}

func (p *parser) route(v schema.Values, b *hclsyntax.Block) routePlace {
	r := routePlace{route: Route{Name: b.Labels[0]}, at: b.TypeRange}
	if a := b.Body.Attributes["upstreams"]; a != nil {
		var ok bool
		if r.upstreams, ok = p.referenceList(a, "upstream"); ok && len(r.upstreams) == 0 {
			p.errorAt(a.NameRange, "Route without upstreams", "Name at least one: upstreams = [upstream.TYPE.NAME]")
		}
	}
	for _, u := range r.upstreams {
		r.route.Upstreams = append(r.route.Upstreams, strings.TrimPrefix(u.id, "upstream."))
	}
	v["upstreams"] = r.route.Upstreams
	r.route.Bandwidth = bandwidth(v)
	if i := slices.IndexFunc(b.Body.Blocks, func(b *hclsyntax.Block) bool { return b.Type == "match" }); i >= 0 {
		p.match(&r, b.Body.Blocks[i], v.Block("match"))
		r.users = locate(b.Body.Blocks[i], "users")
	}
	return r
}

func (p *parser) match(r *routePlace, m *hclsyntax.Block, v schema.Values) {
	for _, k := range route.Keys() {
		a := m.Body.Attributes[k.Name]
		if a == nil {
			continue
		}
		switch in := k.In(&r.route.Match); {
		case k.References != "":
			*in = p.matchReferences(r, a, k.References)
			v[k.Name] = *in
		case k.Numbers:
			*in = p.numbers(a)
			v[k.Name] = *in
			p.elements(m, k, *in)
		default:
			*in = v.List(k.Name)
			if list, given := v[k.Name].([]any); given && len(list) == 0 {
				p.empty(a)
			}
			p.elements(m, k, *in)
		}
	}
}

// matchReferences reads references to blocks of a type ("listener"), and returns
// the IDs.
func (p *parser) matchReferences(r *routePlace, a *hclsyntax.Attribute, blockType string) (ids []string) {
	refs, ok := p.referenceList(a, blockType)
	if ok && len(refs) == 0 {
		p.empty(a)
	}
	r.matches = append(r.matches, refs...)
	for _, ref := range refs {
		ids = append(ids, strings.TrimPrefix(ref.id, blockType+"."))
	}
	return ids
}

func (p *parser) empty(a *hclsyntax.Attribute) {
	p.errorAt(a.NameRange, fmt.Sprintf("%q is empty", a.Name), "An empty list matches nothing. Leave the attribute out to match everything.")
}

// elements checks the elements of a key.
func (p *parser) elements(m *hclsyntax.Block, k route.Key, written []string) {
	for i, e := range written {
		if problem := k.Check(e); problem != "" {
			p.errorAt(locate(m, k.Name, strconv.Itoa(i)), wrongElement(i, k.Name), problem)
			continue
		}
		if k.Doubt == nil {
			continue
		}
		if summary, detail := k.Doubt(e); summary != "" {
			p.warnAt(locate(m, k.Name, strconv.Itoa(i)), summary, detail)
		}
	}
}

// numbers reads a list of whole numbers and texts. What is neither is an empty
// text, which no key takes.
func (p *parser) numbers(a *hclsyntax.Attribute) (written []string) {
	v, ok := p.eval(a.Expr)
	if !ok || v.IsNull() {
		return nil
	}
	if ty := v.Type(); !ty.IsTupleType() && !ty.IsListType() {
		p.errorAt(a.Expr.StartRange(), fmt.Sprintf("Wrong value for %q", a.Name), fmt.Sprintf(`It must be a list: %s = [5432, "9000-9100"]`, a.Name))
		return nil
	}
	if v.LengthInt() == 0 {
		p.empty(a)
	}
	for it := v.ElementIterator(); it.Next(); {
		_, e := it.Element()
		text, err := convert.Convert(e, cty.String)
		if err != nil || text.IsNull() || e.Type() == cty.Bool {
			written = append(written, "")
			continue
		}
		written = append(written, text.AsString())
	}
	return written
}

// referenceList reads a list of references to blocks of a type ("upstream").
func (p *parser) referenceList(a *hclsyntax.Attribute, blockType string) ([]reference, bool) {
	want := fmt.Sprintf("%s.%s", blockType, strings.Join(labelNames[blockType], "."))
	list, ok := a.Expr.(*hclsyntax.TupleConsExpr)
	if !ok {
		p.errorAt(a.Expr.StartRange(), fmt.Sprintf("Wrong value for %q", a.Name), fmt.Sprintf("It must be a list of references: %s = [%s]", a.Name, want))
		return nil, false
	}
	ok = true
	var refs []reference
	for i, e := range list.Exprs {
		id, problem := referenceID(e, blockType)
		switch {
		case problem != "":
			p.errorAt(e.StartRange(), wrongElement(i, a.Name), problem+" Write: "+want)
			ok = false
		case slices.ContainsFunc(refs, func(r reference) bool { return r.id == id }):
			p.errorAt(e.StartRange(), fmt.Sprintf("Element %d of %q appears twice", i+1, a.Name), "Name each once: remove one of the two.")
		default:
			refs = append(refs, reference{id, e.StartRange()})
		}
	}
	p.dangling = p.dangling || !ok
	return refs, ok
}

func referenceID(e hclsyntax.Expression, blockType string) (id, problem string) {
	traversal, diags := hcl.AbsTraversalForExpr(e)
	if diags.HasErrors() {
		if _, isText := e.(*hclsyntax.TemplateExpr); isText {
			return "", "A reference is written without quotes."
		}
		return "", "It must be a reference to a block."
	}
	if traversal.RootName() != blockType {
		return "", fmt.Sprintf("It must be a reference to a block of type %s.", blockType)
	}
	id = blockType
	for _, step := range traversal[1:] {
		switch step := step.(type) {
		case hcl.TraverseAttr:
			id += "." + step.Name
		case hcl.TraverseIndex:
			if step.Key.Type() != cty.String {
				return "", "The reference has a number for a name."
			}
			id += "." + step.Key.AsString()
		}
	}
	if strings.Count(id, ".") != len(labelNames[blockType]) {
		return "", "The reference does not have the right number of names."
	}
	return id, ""
}

// references checks what blocks say of each other: references that lead
// nowhere, what nothing refers to, and routes that are never reached.
func (p *parser) references() {
	used := map[string]bool{}
	for _, r := range p.routes {
		for _, ref := range slices.Concat(r.upstreams, r.matches) {
			used[ref.id] = true
			if _, ok := p.places[ref.id]; !ok {
				p.danglingReference(ref)
			}
		}
	}
	p.reachable()
	if p.dangling {
		return
	}
	p.unused(used)
	p.resolvedElsewhere()
	if !p.diags.HasErrors() { // what is known of the listeners is all there is
		p.strangers()
	}
}

func (p *parser) danglingReference(ref reference) {
	p.dangling = true
	blockType, _, _ := strings.Cut(ref.id, ".")
	var known []string
	for id := range p.places {
		if strings.HasPrefix(id, blockType+".") {
			known = append(known, id)
		}
	}
	slices.Sort(known)
	detail := fmt.Sprintf("There is no %s at all. Add one.", blockType)
	similar := schema.Suggest(ref.id, known)
	name := ref.id[strings.LastIndexByte(ref.id, '.'):]
	if i := slices.IndexFunc(known, func(id string) bool { return strings.HasSuffix(id, name) }); i >= 0 {
		similar = known[i]
	}
	switch {
	case similar != "":
		detail = fmt.Sprintf("Did you mean %s?", similar)
	case len(known) > 8:
		detail = "Add the block, or refer to an existing one."
	case len(known) > 0:
		detail = "There are " + strings.Join(known, ", ") + "."
	}
	p.errorAt(ref.at, fmt.Sprintf("There is no %s", ref.id), detail)
}

// unused warns of blocks that no route leads to.
func (p *parser) unused(used map[string]bool) {
	all := slices.ContainsFunc(p.routes, func(r routePlace) bool { return len(r.route.Match.Listeners) == 0 })
	types := map[string]bool{}
	for _, u := range p.cfg.Upstreams {
		types[u.Type] = true
		if id := "upstream." + u.ID(); !used[id] {
			p.warnAt(p.places[id], "Upstream that no route uses", "Name it in the upstreams of a route, or remove it.")
		}
	}
	for _, l := range p.cfg.Listeners {
		if id := "listener." + l.ID(); !all && !used[id] {
			p.warnAt(p.places[id], "Listener without a route", "All its connections will be refused. Add a route whose match names it, or one without a match block.")
		}
	}
	for _, pl := range p.cfg.Plugins {
		if !types[pl.Name] {
			p.warnAt(p.places["plugin."+pl.Name], "Plugin that no upstream uses", fmt.Sprintf("It will not be started. Add an upstream %q, or remove it.", pl.Name))
		}
	}
}

// reachable reports routes that earlier ones hide.
func (p *parser) reachable() {
	var known []routePlace
	var rules []route.Rule
	for _, r := range p.routes {
		if !r.wrong {
			known = append(known, r)
			rules = append(rules, r.route.Match)
		}
	}
	for _, h := range route.FindHidden(rules) {
		by := known[h.By]
		where := fmt.Sprintf("%q in %s on line %d", by.route.Name, by.at.Filename, by.at.Start.Line)
		detail := "Route " + where + " comes before it and matches all that it does."
		if !h.Alone {
			detail = "The routes before it, down to " + where + ", match all that it does."
		}
		p.errorAt(known[h.Rule].at, "Route that is never reached", detail+" Put this one first, or remove it.")
	}
}
