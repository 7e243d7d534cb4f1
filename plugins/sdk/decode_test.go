package sdk

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"
)

func TestDecodeConfig(t *testing.T) {
	var got everything
	ds := decodeConfig([]byte(`{
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
	ds := decodeConfig([]byte(`{
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
		"plain: plain ends in a line break", "list/1: list.1 ends in a line break", "map/k: map.k holds a control character",
		"map: map ends in a line break", "deep/k/0: deep.k.0 holds a control character", "block/name: block.name holds a control character",
		"labels: labels ends in a line break", "labels/a\n/name: labels.a\n.name holds a control character", "after: after ends in a line break",
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
	if ds := decodeConfig([]byte(`{"proxy": "p", "user": {"a": {}}}`), &got); len(ds) != 0 {
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
		"not JSON":           {`{"proxy": hunter2}`, ": the configuration is not valid JSON"},
		"two values":         {`{} {}`, ": the configuration is not valid JSON"},
		"empty":              {``, ": the configuration is not valid JSON"},
		"not an object":      {`["hunter2"]`, ": must be an object, not an array"},
		"unknown":            {`{"proxi": "hunter2"}`, "proxi: unknown attribute or block"},
		"missing":            {`{"proxy": null, "user": {}}`, "proxy: must not be null: leave it out instead\nuser: required block is missing"},
		"null in a list":     {`{"hosts": ["a", null]}`, "hosts.1: must not be null"},
		"null in a map":      {`{"headers": {"k": null}}`, "headers.k: must not be null"},
		"string":             {`{"via": {"x": "hunter2"}}`, "via: must be a string, not an object"},
		"secret":             {`{"token": ["hunter2"]}`, "token: must be a string, not an array"},
		"bool":               {`{"on": "hunter2"}`, "on: must be a boolean, not a string"},
		"int as string":      {`{"count": "hunter2"}`, "count: must be a whole number, not a string"},
		"int with fraction":  {`{"count": 1.5}`, "count: must be a whole number within ±2^53"},
		"int too large":      {`{"count": 9007199254740993}`, "count: must be a whole number within ±2^53"},
		"int far too large":  {`{"count": 1e400}`, "count: must be a whole number within ±2^53"},
		"float":              {`{"ratio": true}`, "ratio: must be a number, not a boolean"},
		"float too large":    {`{"ratio": 1e400}`, "ratio: is too large a number"},
		"duration":           {`{"wait": "hunter2"}`, `wait: must be seconds in decimal with the suffix "s"`},
		"user's duration":    {`{"wait": "1m"}`, `wait: must be seconds in decimal with the suffix "s"`},
		"duration's number":  {`{"wait": 5}`, "wait: must be a string, not a number"},
		"duration too long":  {`{"wait": "99999999999s"}`, "wait: is too long a duration"},
		"size":               {`{"buffer": "32KiB"}`, "buffer: must be a whole number, not a string"},
		"negative duration":  {`{"waits": ["1s", "-1s"]}`, "waits.1: must not be negative"},
		"negative size":      {`{"buffer": -1}`, "buffer: must not be negative"},
		"list":               {`{"hosts": "hunter2"}`, "hosts: must be an array, not a string"},
		"element":            {`{"waits": ["1s", "hunter2"]}`, `waits.1: must be seconds in decimal with the suffix "s"`},
		"map":                {`{"secrets": ["hunter2"]}`, "secrets: must be an object, not an array"},
		"map's element":      {`{"secrets": {"k": 5}}`, "secrets.k: must be a string, not a number"},
		"list in a map":      {`{"nested": {"k": [1, "x"]}}`, "nested.k.1: must be a whole number, not a string"},
		"block":              {`{"oauth": "hunter2"}`, "oauth: must be an object, not a string"},
		"block is null":      {`{"oauth": null}`, "oauth: must not be null: leave it out instead"},
		"in a block":         {`{"oauth": {"secret": "hunter2", "x": 1}}`, "oauth.url: required attribute is missing\noauth.x: unknown attribute or block"},
		"repeated":           {`{"server": {"port": 1}}`, "server: must be an array, not an object"},
		"in a repeated one":  {`{"server": [{}, {"port": "hunter2"}]}`, "server.1.port: must be a whole number, not a string"},
		"null in a repeated": {`{"server": [null]}`, "server.0: must be an object, not null"},
		"labelled":           {`{"user": []}`, "user: must be an object, not an array"},
		"in a labelled one":  {`{"user": {"bob": {"port": "hunter2"}}}`, "user.bob.port: must be a whole number, not a string"},
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
			for _, d := range decodeConfig([]byte(config), new(everything)) {
				lines = append(lines, strings.Join(d.Path, ".")+": "+d.Summary)
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

func TestDurations(t *testing.T) {
	for _, d := range []time.Duration{0, 1, -1, time.Second, -90 * time.Second, 1<<63 - 1, -1 << 63, 1500 * time.Millisecond} {
		text := formatDuration(d)
		if got, err := parseDuration(text); err != nil || got != d {
			t.Errorf("%s: %v, %v", text, got, err)
		}
		want, err := protojson.Marshal(durationpb.New(d))
		if err != nil {
			t.Fatal(err)
		}
		var theirs string
		if err := json.Unmarshal(want, &theirs); err != nil {
			t.Fatal(err)
		}
		if got, err := parseDuration(theirs); err != nil || got != d {
			t.Errorf("protobuf's %s: %v, %v", theirs, got, err)
		}
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]Size{
		"0": 0, "5": 5, "5B": 5, "64KiB": 64 * KiB, "1MB": 1e6, "1 MiB": MiB, " 2GiB ": 2 * GiB, "3kB": 3000, "3KB": 3000, "3GB": 3e9,
		"9223372036854775807": 1<<63 - 1,
	} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "KiB", "-1", "1.5MiB", "1kib", "1 TiB", "99999999999999999999", "9223372036854775807KiB", "٣"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("%q is %d", text, got)
		}
	}
	for size, want := range map[Size]string{0: "0B", 5: "5B", 1000: "1000B", KiB: "1KiB", 3 * MiB: "3MiB", GiB: "1GiB"} {
		if got := size.String(); got != want {
			t.Errorf("%d prints as %s", int64(size), got)
		}
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
	if s.Reveal() != value || s.IsZero() || !NewSecret("").IsZero() {
		t.Error("the value is not what was put in")
	}
}

func FuzzDecodeConfig(f *testing.F) {
	f.Add([]byte(`{"proxy": "p", "user": {"a": {"port": 5}}, "waits": ["1s"], "nested": {"k": [1]}}`))
	f.Add([]byte(`{"oauth": null, "server": [[]]}`))
	f.Fuzz(func(t *testing.T, config []byte) {
		decodeConfig(config, new(everything))
	})
}
