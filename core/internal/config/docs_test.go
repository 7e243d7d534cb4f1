package config

import (
	"bytes"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/core/diag"
	"github.com/tunneld/tunneld/core/internal/hclbody"
	"github.com/tunneld/tunneld/core/internal/listen"
	"github.com/tunneld/tunneld/internal/schema"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

const docsPath = "../../../docs/configuration.md"

// docRows returns the rows of the tables by the first word of the heading above
// them: `name`, type and default. That of the listeners' tls block is "listener.tls".
func docRows(markdown string) map[string][]string {
	rows := map[string][]string{}
	section := ""
	for line := range strings.Lines(markdown) {
		if heading, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " `"); ok && strings.HasPrefix(line, "#") {
			section = strings.Trim(strings.Fields(heading)[0], "`")
			if strings.HasSuffix(strings.TrimSpace(heading), "` of a listener") {
				section = "listener." + section
			}
		}
		if cells := strings.Split(strings.ReplaceAll(line, `\|`, ""), "|"); len(cells) == 6 && strings.HasPrefix(cells[1], " `") {
			rows[section] = append(rows[section], strings.Join(cells[1:4], "|"))
		}
	}
	return rows
}

// TestDocumentation: every attribute of the language is in the documentation
// with its type and default, and nothing else is.
func TestDocumentation(t *testing.T) {
	page, err := os.ReadFile(docsPath)
	if err != nil {
		t.Fatal(err)
	}
	documented := docRows(string(page))
	var own []*pluginv1.Attribute
	for _, k := range listen.Kinds() {
		own = append(own, k.Attributes...)
		if row := "| `" + k.Name + "` | " + k.Summary + " |"; !strings.Contains(string(page), row) {
			t.Errorf("the page has no row %s", row)
		}
	}
	listener := listenerTable(listen.Kind{Attributes: own, Passwords: true, NamesTarget: true})
	common, _ := schema.WithCommon(schema.Upstreams, &pluginv1.Block{})
	blocks := map[string]*pluginv1.Block{
		"log": tables["log"], "metrics": tables["metrics"], "control": tables["control"], "daemon": tables["daemon"],
		"plugin": tables["plugin"], "upstream": common, "tls": schema.Nested(tables["upstream.direct"], "tls").GetBody(), "route": tables["route"], "match": schema.Nested(tables["route"], "match").GetBody(),
		"listener": listener, "listener.tls": schema.Nested(listener, "tls").GetBody(),
		"certificate": schema.Nested(schema.Nested(listener, "tls").GetBody(), "certificate").GetBody(), "limits": schema.Nested(listener, "limits").GetBody(),
		"auth":     schema.Nested(listener, "auth").GetBody(),
		"timeouts": schema.Nested(listener, "timeouts").GetBody(), "tcp": schema.Nested(listener, "tcp").GetBody(),
		"bandwidth": schema.Nested(listener, "bandwidth").GetBody(),
	}
	for name, block := range blocks {
		var b bytes.Buffer
		if err := hclbody.Render(&b, "markdown", "", &pluginv1.Block{Attributes: block.GetAttributes()}); err != nil {
			t.Fatal(err)
		}
		want := docRows("# `" + name + "`\n" + b.String())[name]
		got := documented[name]
		for i, row := range got { // what has no type in the tables is described in words
			got[i] = regexp.MustCompile(`\| list of (references|int or string) \|`).ReplaceAllString(row, "| unknown |")
		}
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s:\n got  %s\n want %s", name, strings.Join(got, "\n      "), strings.Join(want, "\n      "))
		}
		delete(documented, name)
	}
	if len(documented) > 0 {
		t.Errorf("tables of blocks that the language does not have: %q", documented)
	}
	taken := maps.Clone(later)
	for block, owner := range owners {
		for _, c := range schema.CommonOf(owner) {
			if c.IsReserved() {
				taken[block] = append(taken[block], c.Name())
			}
		}
	}
	for block, names := range taken {
		for _, name := range names {
			if !strings.Contains(string(page), "`"+name+"`") {
				t.Errorf("%s: %q is taken for later, and the page does not say so", block, name)
			}
		}
	}
	for _, name := range slices.Concat(functionNames, listen.Later) {
		if !strings.Contains(string(page), "`"+name) {
			t.Errorf("%q is not in the page", name)
		}
	}
}

// TestDocumentationsExamples: the page's configurations are right.
func TestDocumentationsExamples(t *testing.T) {
	page, err := os.ReadFile(docsPath)
	if err != nil {
		t.Fatal(err)
	}
	examples := regexp.MustCompile("(?s)```hcl\n(.*?)```").FindAllSubmatch(page, -1)
	if len(examples) == 0 {
		t.Fatal("the page has no example")
	}
	t.Setenv("VCAP_SERVICES", "{}")
	for _, e := range examples {
		_, diags := parseText(t, string(e[1]))
		// Files of a user's are not here.
		if diags = slices.DeleteFunc(diags, func(d diag.Diagnostic) bool { return d.Machine }); len(diags) > 0 {
			t.Errorf("%s\nof:\n%s", printed(t, diags), e[1])
		}
		if formatted, err := Format(e[1], "main.hcl"); err != nil || !bytes.Equal(formatted, e[1]) {
			t.Errorf("not in the canonical layout (%v):\n%s", err, e[1])
		}
	}
}
