package secrets

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"testing"

	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// TestSecretsAreFound: in whatever dress, and never shown.
func TestSecretsAreFound(t *testing.T) {
	const value = `pa"ss wörd/7?`
	quoted, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		value,
		"x" + value + "x",
		string(quoted),
		"?p=" + url.QueryEscape(value) + "&q",
		hex.EncodeToString([]byte(value)),
		base64.StdEncoding.EncodeToString([]byte(value)),
		base64.StdEncoding.EncodeToString([]byte("a:" + value)),
		base64.StdEncoding.EncodeToString([]byte("al:" + value)),
		base64.URLEncoding.EncodeToString([]byte("ali:" + value + "!")),
		base64.RawURLEncoding.EncodeToString([]byte(value + "!!")),
	} {
		for _, early := range []bool{false, true} {
			var w Watch
			if early {
				w.Add(text)
			}
			w.Know([]Secret{newSecret("password", value)})
			if !early {
				w.Add(text)
			}
			if len(w.found) != 1 || strings.Contains(w.found[0], value) {
				t.Errorf("%s: found %q", text, w.found)
			}
			if covered := w.Cover(text); !strings.Contains(covered, "(sensitive)") {
				t.Errorf("%s: covered as %s", text, covered)
			}
		}
	}
	var w Watch
	w.Know([]Secret{newSecret("password", value)})
	w.Add("nothing of it")
	w.Add(base64.StdEncoding.EncodeToString([]byte("another one")))
	if len(w.found) != 0 {
		t.Errorf("found %q", w.found)
	}
}

// TestSecretsIn: sensitive texts and numbers are found wherever a value can be.
func TestSecretsIn(t *testing.T) {
	text := &pluginv1.Type{Kind: pluginv1.Kind_KIND_STRING}
	body := &pluginv1.Block{Attributes: []*pluginv1.Attribute{
		{Name: "key", Type: text, Sensitive: true},
		{Name: "headers", Sensitive: true},
		{Name: "name", Type: text},
	}}
	root := &pluginv1.Block{Attributes: body.GetAttributes(), Blocks: []*pluginv1.NestedBlock{
		{Name: "one", Nesting: pluginv1.Nesting_NESTING_SINGLE, Body: body},
		{Name: "many", Nesting: pluginv1.Nesting_NESTING_REPEATED, Body: body},
		{Name: "by", Nesting: pluginv1.Nesting_NESTING_LABELLED, Body: body},
	}}
	d := json.NewDecoder(strings.NewReader(`{
		"key": "key-1", "name": "name", "headers": {"a": "key-2", "b": ["key-3", 7, 9007199254740993, ""], "c": true},
		"one": {"key": "key-4"}, "many": [{"key": "key-5"}, {"name": "x"}, {"key": " "}], "by": {"alice": {"key": "key-6"}, "bob": {"key": "no"}}
	}`))
	d.UseNumber()
	var values map[string]any
	if err := d.Decode(&values); err != nil {
		t.Fatal(err)
	}
	known, unsought := Find(root, values)
	var found []string
	for _, s := range known {
		found = append(found, s.path+"="+s.value)
	}
	slices.Sort(found)
	want := []string{
		"by.alice.key=key-6", "headers.a=key-2", "headers.b.0=key-3", "headers.b.2=9007199254740993", "key=key-1", "many.0.key=key-5", "one.key=key-4",
	}
	if !slices.Equal(found, want) {
		t.Errorf("found %q", found)
	}
	slices.Sort(unsought)
	if want := []string{"by.bob.key", "headers.b.1", "headers.c"}; !slices.Equal(unsought, want) {
		t.Errorf("not looked for: %q", unsought)
	}
}
