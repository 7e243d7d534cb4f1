package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/tunneld/tunneld/core/diag"
	"github.com/tunneld/tunneld/core/internal/hclbody"
	"github.com/tunneld/tunneld/internal/outbound"
	"github.com/tunneld/tunneld/internal/plaintext"
	"github.com/tunneld/tunneld/internal/schema"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// maxUpstream bounds the JSON of one upstream: it has to fit into a gRPC
// message with room to spare.
const maxUpstream = 2 << 20

// pluginUpstream takes an upstream whose body only its plugin knows. Its
// expressions need no schema, and are computed at once.
func (p *parser) pluginUpstream(b *hclsyntax.Block) {
	defaults, _ := (&hclbody.Decoder{Fill: true}).Decode(tables["upstream.direct"], &hclsyntax.Body{}, b.DefRange())
	p.cfg.Upstreams = append(p.cfg.Upstreams, Upstream{Type: b.Labels[0], Name: b.Labels[1], Socket: socket(defaults.Block("tcp"))})
	p.evalBody(b.Body)
}

func (p *parser) evalBody(body *hclsyntax.Body) {
	for _, a := range body.Attributes {
		p.eval(a.Expr)
	}
	for _, b := range body.Blocks {
		p.evalBody(b.Body)
	}
}

// PluginTypes returns the types of the upstreams other than "direct", each
// once, in order of appearance.
func (c *Config) PluginTypes() []string {
	var types []string
	for _, u := range c.Upstreams {
		if u.Type != DirectType && !slices.Contains(types, u.Type) {
			types = append(types, u.Type)
		}
	}
	return types
}

// DecodeUpstreams decodes the bodies of the upstreams against the schemas of
// their types and the common attributes, and fills in Common, JSON and Hash of
// those that are right. Upstreams whose type has no schema here are left as they
// are; those whose plugin has a schema that PluginSchema.Check refuses are an
// error. It is called once, on what Parse or Undecoded returned, also where that
// had errors: what Parse has reported is not reported again.
func (c *Config) DecodeUpstreams(schemas map[string]PluginSchema) diag.Diagnostics {
	var diags diag.Diagnostics
	broken := map[string]error{}
	for name, spec := range schemas {
		broken[name] = spec.Check()
	}
	done := map[*hclsyntax.Block]bool{}
	told := map[string]bool{}
	for i, u := range c.Upstreams {
		spec, known := schemas[u.Type]
		b := c.src.block("upstream." + u.ID())
		if u.Type == DirectType || !known || b == nil || done[b] {
			continue
		}
		done[b] = true
		if err := broken[u.Type]; err != nil {
			diags = append(diags, c.BlockDiagnostic("upstream."+u.ID(), "", fmt.Sprintf("The plugin %q has a broken schema", u.Type), "The plugin's author has to fix it: "+err.Error()))
			continue
		}
		if own := schema.OwnNames(spec.Block); len(own) > 0 && !told[u.Type] {
			told[u.Type] = true
			d := c.BlockDiagnostic("upstream."+u.ID(), "", fmt.Sprintf("The plugin %q has a %q of its own", u.Type, own[0].Name()), "It was built before every upstream got one, so that one cannot be set here. Build it with a newer SDK.")
			d.Warning = true
			diags = append(diags, d)
		}
		diags = append(diags, c.decodeUpstream(&c.Upstreams[i], spec, b)...)
	}
	diags = append(diags, c.labels(schemas)...)
	diags = append(diags, c.upstreamTimes()...)
	diags.Sort()
	return diags
}

// decodeUpstream decodes one body, and fills in what it says if it is right.
func (c *Config) decodeUpstream(u *Upstream, spec PluginSchema, b *hclsyntax.Block) (diags diag.Diagnostics) {
	evaluated := true
	d := hclbody.Decoder{
		Eval: func(expr hclsyntax.Expression) (cty.Value, bool) {
			e, _ := c.src.eval(expr)
			evaluated = evaluated && e.ok
			return e.value, e.ok
		},
		Later: func(path []string, name string) bool {
			return len(path) == 0 && schema.IsReserved(schema.Upstreams, name)
		},
	}
	block, added := schema.WithCommon(schema.Upstreams, spec.Block)
	values, problems := d.Decode(block, b.Body, b.DefRange())
	c.src.written["upstream."+u.ID()] = written{block, maps.Clone(values)}
	commonValues := schema.Values{}
	for _, name := range added {
		if value, given := values[name]; given {
			commonValues[name] = value
			delete(values, name)
		}
	}
	shared, wrongShared := common(commonValues)
	for _, w := range wrongShared {
		problems = append(problems, hclbody.Problem{Summary: w.summary(), Detail: w.problem, Range: locate(b, w.name)})
	}
	problems = append(problems, shared.Bandwidth.doubts(b)...)
	for _, name := range spec.missing() {
		if commonValues[name] != nil {
			problems = append(problems, hclbody.Problem{
				Summary: fmt.Sprintf("The plugin %q does not know %q", u.Type, name),
				Detail:  "It was built before every upstream got one, and would ignore it. Build it with a newer SDK.",
				Range:   locate(b, name),
			})
		}
	}
	wrong := !evaluated
	diags = c.src.diagnostics(problems)
	for _, p := range problems {
		wrong = wrong || !p.Warning
	}
	secrets := viaSecrets(shared.Via, secretsOf(spec.Block, values, nil))
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) })
	c.src.secrets[u.ID()] = secrets
	json := schema.JSON(values)
	if len(json) > maxUpstream {
		diags = append(diags, c.BlockDiagnostic("upstream."+u.ID(), "", "Upstream is too large", fmt.Sprintf("Its values are more than %d MiB. Look for a wrong file.", maxUpstream>>20)))
		wrong = true
	}
	if !wrong {
		u.Common, u.JSON = shared, json
		u.Hash = Hash(u.Wire())
		u.dialTimes = schema.DialTimes(spec.Block, values)
		u.Answer = answerTime(u.dialTimes)
	}
	return diags
}

// Hash returns a hash of an upstream as it is sent to its plugin, in hex. It is not
// secret, but a weak password could be guessed from it, so it must not be logged.
func Hash(u *pluginv1.Upstream) string {
	h := sha256.New()
	for _, part := range []string{u.GetName(), u.GetCommon().GetVia(), u.GetCommon().GetBind(), string(u.GetConfigJson())} {
		h.Write([]byte(strconv.Itoa(len(part)) + ":" + part))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Undecoded returns a copy of the configuration as it was before DecodeUpstreams,
// with the values that were read then.
func (c *Config) Undecoded() *Config {
	next, src := *c, *c.src
	next.Upstreams = slices.Clone(c.Upstreams)
	for i, u := range next.Upstreams {
		if u.Type != DirectType {
			next.Upstreams[i] = Upstream{Type: u.Type, Name: u.Name, Socket: u.Socket}
		}
	}
	src.secrets, src.written = map[string][]string{}, maps.Clone(src.written)
	next.src = &src
	return &next
}

// secretsOf collects the sensitive texts of an upstream. The longest is cut out
// first, since one may hold another.
func secretsOf(spec *pluginv1.Block, v schema.Values, found []string) []string {
	for _, a := range spec.GetAttributes() {
		if a.GetSensitive() {
			found = texts(v[a.GetName()], found)
		}
	}
	for _, n := range spec.GetBlocks() {
		switch inner := v[n.GetName()].(type) {
		case schema.Values:
			found = secretsOf(n.GetBody(), inner, found)
		case []any:
			for _, e := range inner {
				e, _ := e.(schema.Values)
				found = secretsOf(n.GetBody(), e, found)
			}
		case map[string]any:
			for _, e := range inner {
				e, _ := e.(schema.Values)
				found = secretsOf(n.GetBody(), e, found)
			}
		}
	}
	return found
}

// viaSecrets adds what a via holds: what was written, unless that only says where to
// look, and what is sent to the proxy, also in the escaping of URLs.
func viaSecrets(via outbound.Via, found []string) []string {
	if text := via.Text(); text != outbound.Environment {
		found = texts(text, found)
	}
	for _, secret := range via.Secrets() {
		found = texts(secret, texts(url.QueryEscape(secret), found))
	}
	return found
}

func texts(v any, found []string) []string {
	switch v := v.(type) {
	case string:
		if len(strings.TrimSpace(v)) >= 4 {
			found = append(found, v, strings.TrimSpace(v))
		}
	case []any:
		for _, e := range v {
			found = texts(e, found)
		}
	case map[string]any:
		for _, e := range v {
			found = texts(e, found)
		}
	}
	return found
}

func (s *source) block(id string) *hclsyntax.Block {
	if s == nil {
		return nil
	}
	return s.blocks[id]
}

// PluginDiagnostic places what a plugin says about an upstream ("sapsocks.onprem")
// at its line in the upstream's body. The plugin promises to name no secret;
// should it name a sensitive value all the same, that is cut out.
func (c *Config) PluginDiagnostic(upstreamID string, d *pluginv1.Diagnostic) diag.Diagnostic {
	out := diag.Diagnostic{Summary: d.GetSummary(), Detail: d.GetDetail()}
	if b := c.src.block("upstream." + upstreamID); b != nil {
		for _, secret := range c.src.secrets[upstreamID] {
			// A plugin's texts have come in one printable line.
			for _, form := range []string{secret, strings.TrimSpace(plaintext.Shown(secret))} {
				if form != "" {
					out.Summary = strings.ReplaceAll(out.Summary, form, "(sensitive)")
					out.Detail = strings.ReplaceAll(out.Detail, form, "(sensitive)")
				}
			}
		}
		out = c.src.diagnostic(hclbody.Problem{Summary: out.Summary, Detail: out.Detail, Range: locate(b, d.GetPath()...)})
	}
	out.Warning = d.GetSeverity() == pluginv1.Severity_SEVERITY_WARNING
	out.Machine = d.GetNotYet()
	out.Note = out.Warning && d.GetNote()
	return out
}

// BlockDiagnostic makes an error of the daemon's own about a block
// ("listener.tcp.orders", "log") or an attribute in it ("address",
// "tcp.backlog"; empty: the block as a whole). The texts must hold no value of
// an upstream or plugin.
func (c *Config) BlockDiagnostic(blockID, attribute, summary, detail string) diag.Diagnostic {
	b := c.src.block(blockID)
	if b == nil {
		return diag.Diagnostic{Summary: summary, Detail: detail}
	}
	var path []string
	if attribute != "" {
		path = strings.Split(attribute, ".")
	}
	return c.src.diagnostic(hclbody.Problem{Summary: summary, Detail: detail, Range: locate(b, path...)})
}
