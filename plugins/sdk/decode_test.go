package sdk

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/schema"
)

// decodeInto is decodeConfig with the schema of d.
func decodeInto(t *testing.T, config []byte, d Dialer) []Diagnostic {
	t.Helper()
	block, err := SchemaOf(d)
	if err != nil {
		t.Fatal(err)
	}
	return decodeConfig(block, config, d)
}

func TestDecodeConfig(t *testing.T) {
	var got everything
	ds := decodeInto(t, []byte(`{
		"proxy": "h:1", "token": "t", "via": "v", "mode": "slow", "on": false, "count": 7, "long": 9007199254740992,
		"ratio": 1.25, "wait": "1.5s", "buffer": 1048576, "hosts": [], "waits": ["0s", "2.000000001s"],
		"headers": {"a": "b"}, "secrets": {"k": "s"}, "nested": {"n": [1, 2]},
		"timeouts": {"connect": "3s"}, "oauth": {"url": "u", "secret": "s"},
		"server": [{"port": 1}, {}], "user": {"alice": {}}
	}`), &got)
	if len(ds) != 0 {
		t.Fatal(ds)
	}
	want := everything{
		Proxy: "h:1", Token: NewSecret("t"), Via: "v", Mode: "slow", Count: 7, Long: 1 << 53, Ratio: 1.25,
		Wait: 1500 * time.Millisecond, Buffer: MiB, Hosts: []string{}, Waits: []time.Duration{0, 2*time.Second + 1},
		Headers: map[string]string{"a": "b"}, Secrets: map[string]Secret{"k": NewSecret("s")}, Nested: map[string][]Size{"n": {1, 2}},
		Timeouts: Timeouts{Connect: 3 * time.Second, Handshake: 10 * time.Second},
		OAuth:    &oauth{URL: "u", Secret: NewSecret("s")},
		Servers:  []server{{Port: 1}, {Port: 443}},
		Users:    map[string]server{"alice": {Port: 443}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// A control character is refused in every text but those that a plugin judges itself:
// a secret may hold anything, and so may free text.
func TestDecodeRefusesControlCharacters(t *testing.T) {
	type inner struct {
		Name string `tunneld:"name"`
	}
	var got struct {
		noDial `tunneld:"-"`
		Plain  string              `tunneld:"plain"`
		List   []string            `tunneld:"list"`
		Map    map[string]string   `tunneld:"map"`
		Deep   map[string][]string `tunneld:"deep"`
		Block  inner               `tunneld:"block"`
		Labels map[string]inner    `tunneld:"labels"`
		Secret Secret              `tunneld:"secret"`
		Hidden map[string]string   `tunneld:"hidden,sensitive"`
		Free   string              `tunneld:"free,freetext"`
		After  string              `tunneld:"after"`
	}
	ds := decodeInto(t, []byte(`{
		"plain": "a\n", "list": ["a", "b\r\n"], "map": {"k": "a\tb", "l\n": "v"}, "deep": {"k": ["\u0000"]},
		"block": {"name": "\u0085x"}, "labels": {"a\n": {"name": "\u007f"}},
		"secret": "a\n", "hidden": {"k\n": "a\n"}, "free": "a\nb\n", "after": "a\n"
	}`), &got)
	var told []string
	for _, d := range ds {
		told = append(told, strings.Join(d.Path, "/")+": "+d.Summary)
		if d.Warning || d.Detail == "" {
			t.Errorf("%+v", d)
		}
	}
	want := []string{
		"plain: plain ends in a line break", "list/1: list.1 ends in a line break", "map/k: map.k contains a control character",
		"map: map ends in a line break", "deep/k/0: deep.k.0 contains a control character", "after: after ends in a line break", "block/name: block.name contains a control character",
		"labels: labels ends in a line break", "labels/a\n/name: labels.a\n.name contains a control character",
	}
	if !reflect.DeepEqual(told, want) {
		t.Errorf("got  %q\nwant %q", told, want)
	}
	if got.Secret.Reveal() != "a\n" || got.Hidden["k\n"] != "a\n" || got.Free != "a\nb\n" {
		t.Errorf("%+v", got)
	}
}

// What is absent has its default, also in a block that is absent as a whole.
func TestDecodeDefaults(t *testing.T) {
	var got everything
	if ds := decodeInto(t, []byte(`{"proxy": "p", "user": {"a": {}}}`), &got); len(ds) != 0 {
		t.Fatal(ds)
	}
	want := everything{
		Proxy: "p", Mode: "fast", On: true, Count: -3, Ratio: 0.5, Wait: 90500 * time.Millisecond, Buffer: 32 * KiB,
		Hosts: []string{"a", "b"}, Waits: []time.Duration{time.Second}, Headers: map[string]string{},
		Timeouts: Timeouts{Connect: 10 * time.Second, Handshake: 10 * time.Second},
		Users:    map[string]server{"a": {Port: 443}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// Every mistake is named by its path; no value is in what is said of it.
func TestDecodeIsStrict(t *testing.T) {
	const secret = "hunter2"
	for name, tc := range map[string]struct {
		json string
		want string // "path: summary", one a line
	}{
		"not JSON":           {`{"proxy": hunter2}`, ": It must be one object."},
		"two values":         {`{} {}`, ": It must be one object."},
		"empty":              {``, ": It must be one object."},
		"not an object":      {`["hunter2"]`, ": Its JSON must be an object, not an array."},
		"unknown":            {`{"proxi": "hunter2"}`, "proxi: The schema does not have it."},
		"missing":            {`{"proxy": null, "user": {}}`, "proxy: It must not be null. Leave it out instead.\nuser: It is required here."},
		"null in a list":     {`{"hosts": ["a", null]}`, "hosts.1: It must not be null. Leave it out instead."},
		"null in a map":      {`{"headers": {"k": null}}`, "headers.k: One of its values does not fit. It must not be null. Leave it out instead."},
		"string":             {`{"via": {"x": "hunter2"}}`, "via: Its JSON must be a string, not an object."},
		"secret":             {`{"token": ["hunter2"]}`, "token: Its JSON must be a string, not an array."},
		"bool":               {`{"on": "hunter2"}`, "on: Its JSON must be a boolean, not a string."},
		"int as string":      {`{"count": "hunter2"}`, "count: Its JSON must be a whole number, not a string."},
		"int with fraction":  {`{"count": 1.5}`, "count: " + schema.NotWhole},
		"int too large":      {`{"count": 9007199254740993}`, "count: " + schema.OutsideInt},
		"int far too large":  {`{"count": 1e400}`, "count: " + schema.OutsideInt},
		"float":              {`{"ratio": true}`, "ratio: Its JSON must be a number, not a boolean."},
		"float too large":    {`{"ratio": 1e400}`, "ratio: " + schema.TooLarge},
		"duration":           {`{"wait": "hunter2"}`, `wait: A duration is seconds in decimal with the suffix "s": "1.5s".`},
		"user's duration":    {`{"wait": "1m"}`, `wait: A duration is seconds in decimal with the suffix "s": "1.5s".`},
		"duration's number":  {`{"wait": 5}`, `wait: Its JSON must be a string such as "1.5s", not a number.`},
		"duration too long":  {`{"wait": "99999999999s"}`, "wait: The duration is too long."},
		"size":               {`{"buffer": "32KiB"}`, "buffer: Its JSON must be a whole number, not a string."},
		"negative duration":  {`{"waits": ["1s", "-1s"]}`, "waits.1: A duration cannot be negative. \"0s\" stands for none."},
		"negative size":      {`{"buffer": -1}`, "buffer: A size cannot be negative."},
		"list":               {`{"hosts": "hunter2"}`, "hosts: Its JSON must be an array, not a string."},
		"element":            {`{"waits": ["1s", "hunter2"]}`, `waits.1: A duration is seconds in decimal with the suffix "s": "1.5s".`},
		"map":                {`{"secrets": ["hunter2"]}`, "secrets: Its JSON must be an object, not an array."},
		"map's element":      {`{"secrets": {"k": 5}}`, "secrets.k: One of its values does not fit. Its JSON must be a string, not a number."},
		"list in a map":      {`{"nested": {"k": [1, "x"]}}`, "nested.k.1: One of its values does not fit. Its JSON must be a whole number, not a string."},
		"block":              {`{"oauth": "hunter2"}`, "oauth: Its JSON must be an object, not a string."},
		"block is null":      {`{"oauth": null}`, "oauth: It must not be null. Leave it out instead."},
		"in a block":         {`{"oauth": {"secret": "hunter2", "x": 1}}`, "oauth.url: It is required here.\noauth.x: The schema does not have it."},
		"repeated":           {`{"server": {"port": 1}}`, "server: Its JSON must be an array, not an object."},
		"in a repeated one":  {`{"server": [{}, {"port": "hunter2"}]}`, "server.1.port: Its JSON must be a whole number, not a string."},
		"null in a repeated": {`{"server": [null]}`, "server.0: Its JSON must be an object, not null."},
		"labelled":           {`{"user": []}`, "user: Its JSON must be an object, not an array."},
		"in a labelled one":  {`{"user": {"bob": {"port": "hunter2"}}}`, "user.bob.port: Its JSON must be a whole number, not a string."},
	} {
		t.Run(name, func(t *testing.T) {
			config := tc.json
			// What is required and not the case's subject.
			if strings.HasPrefix(config, "{") && strings.HasSuffix(config, "}") && !strings.Contains(config, "{} {}") {
				for _, required := range []string{`"proxy": "p"`, `"user": {"a": {}}`} {
					if key, _, _ := strings.Cut(required, ":"); !strings.Contains(config, key) {
						config = strings.TrimSuffix(config, "}") + ", " + required + "}"
					}
				}
			}
			var lines []string
			for _, d := range decodeInto(t, []byte(config), new(everything)) {
				lines = append(lines, strings.Join(d.Path, ".")+": "+d.Detail)
				if d.Warning || strings.Contains(fmt.Sprint(d), secret) {
					t.Errorf("diagnostic is %+v", d)
				}
			}
			if got := strings.Join(lines, "\n"); got != tc.want {
				t.Errorf("got\n%s\nwant\n%s", got, tc.want)
			}
		})
	}
}

func TestSecretIsNeverPrinted(t *testing.T) {
	const value = "hunter2"
	s := NewSecret(value)
	in := struct{ S, hidden Secret }{s, s}
	text, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	for _, got := range []string{
		fmt.Sprint(s), fmt.Sprintf("%v %+v %#v %s %q %x %X", s, s, s, s, s, s, s), fmt.Sprintf(strings.Replace("%_", "_", "d", 1), s), fmt.Sprintf("%v %+v %#v", in, in, in),
		fmt.Sprintf("%v", &s), fmt.Sprint([]Secret{s}), string(text), s.LogValue().String(),
	} {
		if strings.Contains(got, value) || strings.Contains(got, fmt.Sprintf("%x", value)) {
			t.Errorf("it prints %s", got)
		}
	}
	if s.Reveal() != value || s.IsZero() || !NewSecret("").IsZero() || !NewSecret("").IsSet() || (Secret{}).IsSet() {
		t.Error("the value is not what was put in")
	}
}

func FuzzDecodeConfig(f *testing.F) {
	block, err := SchemaOf(new(everything))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(`{"proxy": "p", "user": {"a": {"port": 5}}, "waits": ["1s"], "nested": {"k": [1]}}`))
	f.Add([]byte(`{"oauth": null, "server": [[]]}`))
	f.Fuzz(func(t *testing.T, config []byte) {
		decodeConfig(block, config, new(everything))
	})
}

// TestBlocksThatNobodyWrote: a block that may be nil is, also within one that is filled
// with its defaults.
func TestBlocksThatNobodyWrote(t *testing.T) {
	type leaf struct {
		Port int `tunneld:"port" default:"7"`
	}
	var got struct {
		noDial `tunneld:"-"`
		Far    struct {
			Name  string `tunneld:"name" default:"n"`
			Maybe *leaf  `tunneld:"maybe"`
			Plain leaf   `tunneld:"plain"`
		} `tunneld:"far"`
	}
	if ds := decodeInto(t, []byte(`{}`), &got); len(ds) != 0 {
		t.Fatal(ds)
	}
	if got.Far.Name != "n" || got.Far.Plain.Port != 7 || got.Far.Maybe != nil {
		t.Errorf("%+v", got.Far)
	}
}
