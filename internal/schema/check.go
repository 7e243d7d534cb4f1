package schema

import (
	"errors"
	"fmt"
	"slices"

	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// Check says whether a plugin's schema is sane: names, bounds, types, defaults
// that are of their types. The error names all that is wrong.
func Check(block *pluginv1.Block) error {
	if block == nil {
		return errors.New("check schema: there is none")
	}
	c := checker{}
	for _, a := range block.GetAttributes() {
		c.reserved(a.GetName())
	}
	for _, b := range block.GetBlocks() {
		c.reserved(b.GetName())
	}
	c.block(block, "", 1)
	if len(c.errs) == 0 {
		return nil
	}
	return fmt.Errorf("check schema: %w", errors.Join(c.errs...))
}

type checker struct {
	errs  []error
	total int
}

func (c *checker) errorf(format string, args ...any) {
	if len(c.errs) < maxProblems {
		c.errs = append(c.errs, fmt.Errorf(format, args...))
	}
}

func (c *checker) reserved(name string) {
	if IsReserved(Upstreams, name) {
		c.errorf("%q: the configuration language reserves this name", name)
	}
}

func (c *checker) block(b *pluginv1.Block, path string, depth int) {
	count := len(b.GetAttributes()) + len(b.GetBlocks())
	c.total += count
	switch {
	case depth > MaxDepth:
		c.errorf("%s: blocks are nested deeper than %d", path, MaxDepth)
		return
	case count > maxNames:
		c.errorf("%q: more than %d names in one body", path, maxNames)
		return
	case c.total > maxTotal:
		c.errorf("more than %d names in all", maxTotal)
		return
	}
	c.text(path, b.GetDoc())
	seen := map[string]bool{}
	for _, a := range b.GetAttributes() {
		at := path + a.GetName()
		c.name(a.GetName(), at, seen)
		c.attribute(a, at)
		c.partners(b, path, a.GetName(), a)
	}
	for _, n := range b.GetBlocks() {
		at := path + n.GetName()
		c.name(n.GetName(), at, seen)
		if _, known := pluginv1.Nesting_name[int32(n.GetNesting())]; !known || n.GetNesting() == pluginv1.Nesting_NESTING_UNSPECIFIED {
			c.errorf("%q: unknown nesting %d", at, n.GetNesting())
		}
		if n.GetBody() == nil {
			c.errorf("%q: the block has no body", at)
			continue
		}
		c.text(at, n.GetDeprecated())
		c.partners(b, path, n.GetName(), n)
		c.block(n.GetBody(), at+".", depth+1)
	}
}

func (c *checker) name(name, at string, seen map[string]bool) {
	if !IsName(name) {
		c.errorf("%.80q: not a name (%s)", at, NameRule)
	}
	if seen[name] {
		c.errorf("%q: defined twice", at)
	}
	seen[name] = true
}

func (c *checker) text(at string, texts ...string) {
	for _, t := range texts {
		if len(t) > maxText {
			c.errorf("%q: a text of more than %d bytes", at, maxText)
		}
	}
}

func (c *checker) attribute(a *pluginv1.Attribute, at string) {
	c.text(at, a.GetDoc(), a.GetDeprecated(), a.GetDefaultJson())
	if err := checkType(a.GetType(), 1); err != nil {
		c.errorf("%q: %w", at, err)
		return
	}
	if a.GetDialTime() != pluginv1.DialTime_DIAL_TIME_UNSPECIFIED && a.GetType().GetKind() != pluginv1.Kind_KIND_DURATION {
		c.errorf("%q: only a duration is a time of a dial", at)
	}
	if a.GetDefaultJson() == "" || len(a.GetDefaultJson()) > maxText {
		return
	}
	if a.GetRequired() {
		c.errorf("%q: required, and has a default", at)
	}
	if err := checkDefault(a); err != nil {
		c.errorf("%q: default: %w", at, err)
	}
}

// checkDefault says whether an attribute's default could be given as its value.
func checkDefault(a *pluginv1.Attribute) error {
	v, err := readValue(a.GetType(), []byte(a.GetDefaultJson()))
	if err == nil {
		var limits validator
		limits.value(a.GetType(), v, place{what: "it"}, a.GetSensitive())
		if len(limits.problems) > 0 {
			err = errors.New(limits.problems[0].Summary + ": " + limits.problems[0].Detail)
		}
	}
	if err != nil && a.GetSensitive() {
		err = errors.New("does not fit its type")
	}
	return err
}

// partners checks the names of what excludes or needs each other in a body.
func (c *checker) partners(b *pluginv1.Block, path, name string, p partners) {
	others := slices.Concat(p.GetConflictsWith(), p.GetRequiredWith())
	if len(others) > maxPartners {
		c.errorf("%q: it excludes or needs more than %d others", path+name, maxPartners)
		return
	}
	own := Attribute(b, name)
	for _, other := range others {
		a := Attribute(b, other)
		switch {
		case other == name || a == nil && Nested(b, other) == nil:
			c.errorf("%q: the body has no other %.80q to exclude or need", path+name, other)
		case own.GetDefaultJson() != "" || a.GetDefaultJson() != "":
			c.errorf("%q: it cannot exclude or need %q, since one of the two has a default and is always there", path+name, other)
		}
	}
}

func checkType(t *pluginv1.Type, depth int) error {
	if depth > MaxDepth {
		return fmt.Errorf("the type is nested deeper than %d", MaxDepth)
	}
	switch t.GetKind() {
	case pluginv1.Kind_KIND_LIST, pluginv1.Kind_KIND_MAP:
		if t.GetElement() == nil {
			return fmt.Errorf("a %s without the type of its elements", t.GetKind().Text())
		}
		if err := checkLimits(t); err != nil {
			return err
		}
		return checkType(t.GetElement(), depth+1)
	case pluginv1.Kind_KIND_STRING, pluginv1.Kind_KIND_BOOL, pluginv1.Kind_KIND_INT, pluginv1.Kind_KIND_FLOAT,
		pluginv1.Kind_KIND_DURATION, pluginv1.Kind_KIND_SIZE:
		if t.GetElement() != nil {
			return fmt.Errorf("a %s with elements", t.GetKind().Text())
		}
		return checkLimits(t)
	}
	return fmt.Errorf("unknown type %d", t.GetKind())
}
