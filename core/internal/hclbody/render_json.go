package hclbody

import (
	"encoding/json"
	"io"
	"reflect"

	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

type jsonBlock struct {
	Plugin     string          `json:"plugin,omitempty"`
	Doc        string          `json:"doc,omitempty"`
	Targets    string          `json:"targets,omitempty"` // "port" or "label"
	Attributes []jsonAttribute `json:"attributes,omitempty"`
	Blocks     []jsonNested    `json:"blocks,omitempty"`
}

type jsonAttribute struct {
	Name       string          `json:"name"`
	Type       string          `json:"type"`
	Limits     *jsonLimits     `json:"limits,omitempty"`
	Required   bool            `json:"required,omitempty"`
	Sensitive  bool            `json:"sensitive,omitempty"`
	Default    json.RawMessage `json:"default,omitempty"`
	Doc        string          `json:"doc,omitempty"`
	Deprecated string          `json:"deprecated,omitempty"`
	jsonTogether
}

type jsonNested struct {
	Name     string `json:"name"`
	Nesting  string `json:"nesting"`
	Required bool   `json:"required,omitempty"`
	jsonTogether
	Deprecated string    `json:"deprecated,omitempty"`
	Body       jsonBlock `json:"body"`
}

type jsonTogether struct {
	ConflictsWith []string `json:"conflicts_with,omitempty"`
	RequiredWith  []string `json:"required_with,omitempty"`
}

// jsonLimits are the limits of a type, in the form of the protocol.
type jsonLimits struct {
	OneOf   []string        `json:"one_of,omitempty"`
	Minimum json.RawMessage `json:"minimum,omitempty"`
	Maximum json.RawMessage `json:"maximum,omitempty"`
	OrZero  bool            `json:"or_zero,omitempty"`
	Pattern string          `json:"pattern,omitempty"`
	OneLine bool            `json:"one_line,omitempty"`
	Path    string          `json:"path,omitempty"`
	Element *jsonLimits     `json:"element,omitempty"`
}

func raw(text string) json.RawMessage {
	if text == "" {
		return nil
	}
	return json.RawMessage(text)
}

// limitsOf returns nil where there is none.
func limitsOf(t *pluginv1.Type) *jsonLimits {
	if t == nil {
		return nil
	}
	l := jsonLimits{
		OneOf: t.GetOneOf(), Minimum: raw(t.GetMinimumJson()), Maximum: raw(t.GetMaximumJson()),
		OrZero: t.GetOrZero(), Pattern: t.GetPattern(), OneLine: t.GetOneLine(), Element: limitsOf(t.GetElement()),
	}
	if t.GetPath() != pluginv1.PathUse_PATH_USE_UNSPECIFIED {
		l.Path = t.GetPath().Text()
	}
	if reflect.ValueOf(l).IsZero() {
		return nil
	}
	return &l
}

func renderJSON(w io.Writer, plugin string, block *pluginv1.Block) error {
	out := jsonBody(block)
	out.Plugin = plugin
	if t := block.GetTargets(); t != pluginv1.Targets_TARGETS_UNSPECIFIED {
		out.Targets = t.Text()
	}
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
			Limits: limitsOf(a.GetType()), jsonTogether: jsonTogether{a.GetConflictsWith(), a.GetRequiredWith()},
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
			Deprecated: clean(n.GetDeprecated()), jsonTogether: jsonTogether{n.GetConflictsWith(), n.GetRequiredWith()},
		})
	}
	return out
}
