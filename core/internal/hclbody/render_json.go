package hclbody

import (
	"encoding/json"
	"io"

	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

type jsonBlock struct {
	Plugin     string          `json:"plugin,omitempty"`
	Doc        string          `json:"doc,omitempty"`
	Attributes []jsonAttribute `json:"attributes,omitempty"`
	Blocks     []jsonNested    `json:"blocks,omitempty"`
}

type jsonAttribute struct {
	Name       string          `json:"name"`
	Type       string          `json:"type"`
	Required   bool            `json:"required,omitempty"`
	Sensitive  bool            `json:"sensitive,omitempty"`
	Default    json.RawMessage `json:"default,omitempty"`
	Doc        string          `json:"doc,omitempty"`
	Deprecated string          `json:"deprecated,omitempty"`
}

type jsonNested struct {
	Name     string    `json:"name"`
	Nesting  string    `json:"nesting"`
	Required bool      `json:"required,omitempty"`
	Body     jsonBlock `json:"body"`
}

func renderJSON(w io.Writer, plugin string, block *pluginv1.Block) error {
	out := jsonBody(block)
	out.Plugin = plugin
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(out)
}

func jsonBody(block *pluginv1.Block) jsonBlock {
	out := jsonBlock{Doc: clean(block.GetDoc())}
	for _, a := range block.GetAttributes() {
		j := jsonAttribute{
			Name: a.GetName(), Type: typeText(a.GetType()), Required: a.GetRequired(),
			Sensitive: a.GetSensitive(), Doc: clean(a.GetDoc()), Deprecated: clean(a.GetDeprecated()),
		}
		if !a.GetSensitive() {
			j.Default = json.RawMessage(a.GetDefaultJson())
		}
		out.Attributes = append(out.Attributes, j)
	}
	for _, n := range block.GetBlocks() {
		nesting := map[pluginv1.Nesting]string{
			pluginv1.Nesting_NESTING_SINGLE:   "single",
			pluginv1.Nesting_NESTING_REPEATED: "repeated",
			pluginv1.Nesting_NESTING_LABELLED: "labelled",
		}[n.GetNesting()]
		out.Blocks = append(out.Blocks, jsonNested{
			Name: n.GetName(), Nesting: nesting, Required: n.GetRequired(), Body: jsonBody(n.GetBody()),
		})
	}
	return out
}
