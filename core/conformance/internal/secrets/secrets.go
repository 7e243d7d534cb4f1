// Package secrets looks for a configuration's sensitive values, in any encoding, in
// what a plugin prints.
package secrets

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/tunneld/tunneld/internal/plaintext"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// Shortest is the length in bytes from which a text is looked for: a shorter one
// is in many a line by chance.
const Shortest = 4

// Secret is one sensitive text of the configuration.
type Secret struct {
	path  string
	value string
	forms []form
}

// form is a secret as it would stand in a line.
type form struct{ text, how string }

func newSecret(path, value string) Secret {
	s := Secret{path: path, value: value}
	add := func(how string, texts ...string) {
		for _, t := range texts {
			known := slices.ContainsFunc(s.forms, func(f form) bool { return f.text == t })
			if len(t) >= Shortest && !known {
				s.forms = append(s.forms, form{t, how})
			}
		}
	}
	add("as it is", value, strings.TrimSpace(value))
	add("in one line", strings.TrimSpace(plaintext.Shown(value)))
	quoted, _ := json.Marshal(value)
	add("as JSON has it", strings.Trim(string(quoted), `"`))
	add("as a URL has it", url.QueryEscape(value), url.PathEscape(value))
	if len(value) < 6 {
		return s // what is left of its encodings is in many a line
	}
	add("in hexadecimal", hex.EncodeToString([]byte(value)), strings.ToUpper(hex.EncodeToString([]byte(value))))
	// In base64 a text looks different at each of three places, and the
	// characters at its ends are shared with its neighbours.
	for before := range 3 {
		for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			t := e.EncodeToString([]byte(strings.Repeat("\x00", before) + value))
			t = t[(before*8+5)/6:]
			if (before+len(value))%3 != 0 {
				t = t[:len(t)-1]
			}
			add("in base64", t)
		}
	}
	return s
}

// Find returns the sensitive values among values, which fit the block, and the
// paths of those that are too short to be looked for.
func Find(b *pluginv1.Block, values map[string]any) (known []Secret, unsought []string) {
	var s sensitive
	s.in(b, values, "")
	return s.secrets, s.unsought
}

// sensitive are the sensitive values of a configuration.
type sensitive struct {
	secrets  []Secret
	unsought []string
}

// in adds those of values, which fit the block.
func (s *sensitive) in(b *pluginv1.Block, values map[string]any, path string) {
	for _, a := range b.GetAttributes() {
		if a.GetSensitive() {
			s.add(values[a.GetName()], path+a.GetName())
		}
	}
	for _, n := range b.GetBlocks() {
		at := path + n.GetName() + "."
		switch v := values[n.GetName()].(type) {
		case map[string]any:
			if n.GetNesting() != pluginv1.Nesting_NESTING_LABELLED {
				s.in(n.GetBody(), v, at)
				continue
			}
			for label, e := range v {
				e, _ := e.(map[string]any)
				s.in(n.GetBody(), e, at+label+".")
			}
		case []any:
			for i, e := range v {
				e, _ := e.(map[string]any)
				s.in(n.GetBody(), e, fmt.Sprintf("%s%d.", at, i))
			}
		}
	}
}

func (s *sensitive) add(v any, path string) {
	switch v := v.(type) {
	case string:
		switch n := len(strings.TrimSpace(v)); {
		case n >= Shortest:
			s.secrets = append(s.secrets, newSecret(path, v))
		case n > 0:
			s.unsought = append(s.unsought, path)
		}
	case json.Number:
		s.add(v.String(), path)
	case bool:
		s.unsought = append(s.unsought, path)
	case []any:
		for i, e := range v {
			s.add(e, fmt.Sprintf("%s.%d", path, i))
		}
	case map[string]any:
		for k, e := range v {
			s.add(e, path+"."+k)
		}
	}
}

// Watch takes texts and looks for secrets in them. It is bounded: what is beyond
// is looked at and forgotten. The zero value is ready, and safe for concurrent use.
type Watch struct {
	mu      sync.Mutex
	text    strings.Builder
	secrets []Secret
	found   []string
	texts   int
}

// maxKept bounds what is kept for secrets that are known later.
const maxKept = 4 << 20

// Add takes a text.
func (w *Watch) Add(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.texts++
	w.look(text)
	if w.text.Len()+len(text) < maxKept {
		w.text.WriteString(text + "\n")
	}
}

// Know begins to look for secrets, also in what was added before.
func (w *Watch) Know(secrets []Secret) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.secrets = secrets
	for line := range strings.Lines(w.text.String()) {
		w.look(line)
	}
}

// look is called with mu held.
func (w *Watch) look(text string) {
	for _, s := range w.secrets {
		for _, f := range s.forms {
			i := strings.Index(text, f.text)
			if i < 0 {
				continue
			}
			where := coverAll(w.secrets, text[max(0, i-60):min(len(text), i+len(f.text)+20)])
			what := fmt.Sprintf("the value of %s, %s: …%s…", s.path, f.how, strings.TrimSpace(where))
			if len(w.found) < 8 && !slices.ContainsFunc(w.found, func(f string) bool { return strings.HasPrefix(f, "the value of "+s.path+",") }) {
				w.found = append(w.found, what)
			}
			break
		}
	}
}

// Cover cuts the secrets out of a text of the report.
func (w *Watch) Cover(text string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return coverAll(w.secrets, text)
}

func coverAll(secrets []Secret, text string) string {
	var forms []string
	for _, s := range secrets {
		for _, f := range s.forms {
			forms = append(forms, f.text)
		}
	}
	// The longest first, since one may hold another.
	slices.SortFunc(forms, func(a, b string) int { return len(b) - len(a) })
	for _, f := range forms {
		text = strings.ReplaceAll(text, f, "(sensitive)")
	}
	return text
}

// Found returns where secrets were found, how many secrets are known, and in how
// many texts they were looked for.
func (w *Watch) Found() (found []string, secrets, texts int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.found), len(w.secrets), w.texts
}
