package sdk

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// noDial makes a struct a Dialer.
type noDial struct{}

func (*noDial) Dial(context.Context, *Request) (*Tunnel, error) { return nil, nil }

type mode string

// everything has each type of the schema.
type everything struct {
	noDial   `tunneld:"-"`
	internal int

	Proxy    string              `tunneld:"proxy,required" doc:"the proxy"`
	Token    Secret              `tunneld:"token"`
	Via      string              `tunneld:"via,sensitive"`
	Mode     mode                `tunneld:"mode" default:"fast" deprecated:"use speed"`
	On       bool                `tunneld:"on" default:"true"`
	Count    int                 `tunneld:"count" default:"-3"`
	Long     int64               `tunneld:"long"`
	Ratio    float64             `tunneld:"ratio" default:"0.5"`
	Wait     time.Duration       `tunneld:"wait" default:"1m30.5s"`
	Buffer   Size                `tunneld:"buffer" default:"32KiB"`
	Hosts    []string            `tunneld:"hosts" default:"[\"a\",\"b\"]"`
	Waits    []time.Duration     `tunneld:"waits" default:"[\"1s\"]"`
	Headers  map[string]string   `tunneld:"headers" default:"{}"`
	Secrets  map[string]Secret   `tunneld:"secrets"`
	Nested   map[string][]Size   `tunneld:"nested"`
	Timeouts Timeouts            `tunneld:"timeouts" doc:"how long to wait"`
	OAuth    *oauth              `tunneld:"oauth"`
	Servers  []server            `tunneld:"server"`
	Users    map[string]server   `tunneld:"user,required"`
	Ignored  map[chan int]string `tunneld:"-"`
}

type oauth struct {
	URL    string `tunneld:"url,required"`
	Secret Secret `tunneld:"secret,required"`
}

type server struct {
	Port int `tunneld:"port" default:"443"`
}

func TestSchemaOf(t *testing.T) {
	got, err := SchemaOf(&everything{internal: 1})
	if err != nil {
		t.Fatal(err)
	}
	want := &pluginv1.Block{}
	if err := protojson.Unmarshal([]byte(`{
		"attributes": [
			{"name": "proxy", "type": {"kind": "KIND_STRING", "oneLine": true}, "required": true, "doc": "the proxy"},
			{"name": "token", "type": {"kind": "KIND_STRING"}, "sensitive": true},
			{"name": "via", "type": {"kind": "KIND_STRING"}, "sensitive": true},
			{"name": "mode", "type": {"kind": "KIND_STRING", "oneLine": true}, "defaultJson": "\"fast\"", "deprecated": "use speed"},
			{"name": "on", "type": {"kind": "KIND_BOOL"}, "defaultJson": "true"},
			{"name": "count", "type": {"kind": "KIND_INT"}, "defaultJson": "-3"},
			{"name": "long", "type": {"kind": "KIND_INT"}},
			{"name": "ratio", "type": {"kind": "KIND_FLOAT"}, "defaultJson": "0.5"},
			{"name": "wait", "type": {"kind": "KIND_DURATION"}, "defaultJson": "\"90.5s\""},
			{"name": "buffer", "type": {"kind": "KIND_SIZE"}, "defaultJson": "32768"},
			{"name": "hosts", "type": {"kind": "KIND_LIST", "element": {"kind": "KIND_STRING", "oneLine": true}}, "defaultJson": "[\"a\",\"b\"]"},
			{"name": "waits", "type": {"kind": "KIND_LIST", "element": {"kind": "KIND_DURATION"}}, "defaultJson": "[\"1s\"]"},
			{"name": "headers", "type": {"kind": "KIND_MAP", "element": {"kind": "KIND_STRING", "oneLine": true}}, "defaultJson": "{}"},
			{"name": "secrets", "type": {"kind": "KIND_MAP", "element": {"kind": "KIND_STRING"}}, "sensitive": true},
			{"name": "nested", "type": {"kind": "KIND_MAP", "element": {"kind": "KIND_LIST", "element": {"kind": "KIND_SIZE"}}}}
		],
		"blocks": [
			{"name": "timeouts", "nesting": "NESTING_SINGLE", "body": {"doc": "how long to wait", "attributes": [
				{"name": "connect", "type": {"kind": "KIND_DURATION"}, "dialTime": "DIAL_TIME_STEP", "defaultJson": "\"10s\"", "doc": "how long the connection to the far end may take, a proxy's part included"},
				{"name": "handshake", "type": {"kind": "KIND_DURATION"}, "dialTime": "DIAL_TIME_ANSWER", "defaultJson": "\"10s\"", "doc": "how long the handshake on that connection may take"}
			]}},
			{"name": "oauth", "nesting": "NESTING_SINGLE", "body": {"attributes": [
				{"name": "url", "type": {"kind": "KIND_STRING", "oneLine": true}, "required": true},
				{"name": "secret", "type": {"kind": "KIND_STRING"}, "required": true, "sensitive": true}
			]}},
			{"name": "server", "nesting": "NESTING_REPEATED", "body": {"attributes": [
				{"name": "port", "type": {"kind": "KIND_INT"}, "defaultJson": "443"}
			]}},
			{"name": "user", "nesting": "NESTING_LABELLED", "required": true, "body": {"attributes": [
				{"name": "port", "type": {"kind": "KIND_INT"}, "defaultJson": "443"}
			]}}
		]
	}`), want); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(got, want) {
		t.Errorf("got  %s\nwant %s", protojson.Format(got), protojson.Format(want))
	}
}

// wrong breaks every rule; the error names each field.
type wrong struct {
	noDial       `tunneld:"-"`
	hidden       int             `tunneld:"hidden"`
	Untagged     string          //
	BadName      string          `tunneld:"Bad-Name"`
	Unknown      string          `tunneld:"unknown,optional"`
	One          string          `tunneld:"same"`
	Two          string          `tunneld:"same"`
	Pointer      *string         `tunneld:"pointer"`
	Unsigned     uint            `tunneld:"unsigned"`
	Interface    any             `tunneld:"interface"`
	Keys         map[int]string  `tunneld:"keys"`
	Bytes        []byte          `tunneld:"bytes"`
	Both         string          `tunneld:"both,required" default:"x"`
	Secret       Secret          `tunneld:"secret" default:"hunter2"`
	BadBool      bool            `tunneld:"bad_bool" default:"yes"`
	BadInt       int             `tunneld:"bad_int" default:"1.5"`
	BadDuration  time.Duration   `tunneld:"bad_duration" default:"soon"`
	BadSize      Size            `tunneld:"bad_size" default:"1 acre"`
	BadList      []time.Duration `tunneld:"bad_list" default:"[\"1s\",5]"`
	Block        server          `tunneld:"block,sensitive"`
	NeedsPointer oauth           `tunneld:"needs_pointer"`
	Recursive    recursive       `tunneld:"recursive"`
	BadMin       Size            `tunneld:"bad_min" min:"1 acre"`
	BadMax       bool            `tunneld:"bad_max" max:"1"`
	BadPath      string          `tunneld:"bad_path" path:"socket"`
	OneOfBlock   server          `tunneld:"one_of_block" one_of:"a,b"`
	BadDial      time.Duration   `tunneld:"bad_dial" dial_time:"whole"`
}

type recursive struct {
	Next *recursive `tunneld:"next"`
}

func TestSchemaOfNamesEveryMistake(t *testing.T) {
	_, err := SchemaOf(&wrong{hidden: 1})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"wrong.hidden: an unexported field",
		"wrong.Untagged: no tunneld tag",
		`wrong.BadName: name "Bad-Name"`,
		`wrong.Unknown: unknown option "optional"`,
		`wrong.Two: the name "same" already belongs to One`,
		"wrong.Pointer: type *string: only a block may be a pointer",
		"wrong.Unsigned: type uint is not one of the schema's",
		"wrong.Interface: type interface {} is not one of the schema's",
		"wrong.Keys: type map[int]string: a map's keys are strings",
		"wrong.Bytes: type uint8 is not one of the schema's",
		"wrong.Both: a required attribute has no default",
		"wrong.Secret: a sensitive attribute has no default",
		`wrong.BadBool: default "yes": not a bool`,
		`wrong.BadInt: default "1.5": It must be a whole number`,
		`wrong.BadDuration: default "soon": A duration is a number and a unit`,
		`wrong.BadSize: default "1 acre": A size is a whole number and a unit`,
		`wrong.BadList: default "[\"1s\",5]": 1: Its JSON must be`,
		"wrong.Block: a block is not sensitive",
		`wrong.NeedsPointer: the block is optional and "url" in it is required`,
		"blocks nest deeper than 8",
		`wrong.BadMin: min "1 acre": A size is a whole number and a unit`,
		`wrong.BadMax: max "1": a bool has none`,
		`wrong.BadPath: path "socket": it is "file", "folder" or "any"`,
		"wrong.OneOfBlock: a block is not sensitive",
		`wrong.BadDial: dial_time "whole": it is "step" or "answer"`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q", want)
		}
	}
	if n := strings.Count(err.Error(), "\n"); n != 25 {
		t.Errorf("%d lines: %v", n+1, err)
	}
	for _, d := range []Dialer{nil, (*everything)(nil)} {
		if _, err := SchemaOf(d); err == nil || !strings.Contains(err.Error(), "not a pointer to a struct") {
			t.Errorf("%T: %v", d, err)
		}
	}
}

// limited has each tag of a limit.
type limited struct {
	noDial `tunneld:"-"`
	Mode   string            `tunneld:"mode" default:"raw" one_of:"raw,azbridge"`
	Modes  []string          `tunneld:"modes" one_of:"a,b" max:"3"`
	Time   time.Duration     `tunneld:"time,orzero" default:"0s" min:"1m"`
	Buffer Size              `tunneld:"buffer" default:"1KiB" min:"1" max:"64KiB"`
	ID     string            `tunneld:"id" max:"189" pattern:"[a-z]*"`
	Paths  map[string]string `tunneld:"paths" path:"any"`
	Free   string            `tunneld:"free,freetext" conflicts_with:"id,login"`
	Login  *oauth            `tunneld:"login" required_with:"id" deprecated:"Use id."`
	Times  Timeouts          `tunneld:"times" min:"1ms"`
}

func TestLimits(t *testing.T) {
	got, err := SchemaOf(&limited{})
	if err != nil {
		t.Fatal(err)
	}
	want := &pluginv1.Block{}
	if err := protojson.Unmarshal([]byte(`{
		"attributes": [
			{"name": "mode", "type": {"kind": "KIND_STRING", "oneOf": ["raw", "azbridge"], "oneLine": true}, "defaultJson": "\"raw\""},
			{"name": "modes", "type": {"kind": "KIND_LIST", "maximumJson": "3", "element": {"kind": "KIND_STRING", "oneOf": ["a", "b"], "oneLine": true}}},
			{"name": "time", "type": {"kind": "KIND_DURATION", "minimumJson": "\"60s\"", "orZero": true}, "defaultJson": "\"0s\""},
			{"name": "buffer", "type": {"kind": "KIND_SIZE", "minimumJson": "1", "maximumJson": "65536"}, "defaultJson": "1024"},
			{"name": "id", "type": {"kind": "KIND_STRING", "maximumJson": "189", "pattern": "[a-z]*", "oneLine": true}},
			{"name": "paths", "type": {"kind": "KIND_MAP", "element": {"kind": "KIND_STRING", "path": "PATH_USE_ANY", "oneLine": true}}},
			{"name": "free", "type": {"kind": "KIND_STRING"}, "conflictsWith": ["id", "login"]}
		],
		"blocks": [
			{"name": "login", "nesting": "NESTING_SINGLE", "requiredWith": ["id"], "deprecated": "Use id.", "body": {"attributes": [
				{"name": "url", "type": {"kind": "KIND_STRING", "oneLine": true}, "required": true},
				{"name": "secret", "type": {"kind": "KIND_STRING"}, "required": true, "sensitive": true}
			]}},
			{"name": "times", "nesting": "NESTING_SINGLE", "body": {"attributes": [
				{"name": "connect", "type": {"kind": "KIND_DURATION", "minimumJson": "\"0.001s\""}, "dialTime": "DIAL_TIME_STEP", "defaultJson": "\"10s\"", "doc": "how long the connection to the far end may take, a proxy's part included"},
				{"name": "handshake", "type": {"kind": "KIND_DURATION", "minimumJson": "\"0.001s\""}, "dialTime": "DIAL_TIME_ANSWER", "defaultJson": "\"10s\"", "doc": "how long the handshake on that connection may take"}
			]}}
		]
	}`), want); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(got, want) {
		t.Errorf("got  %s\nwant %s", protojson.Format(got), protojson.Format(want))
	}
	// A daemon that is older than the limits lets everything pass.
	for config, want := range map[string]string{
		`{"mode": "rew", "time": "1s", "buffer": 0}`:                         `mode: Did you mean "raw"? It is one of "raw", "azbridge". | time: It must be "0s" or at least "1m". | buffer: It must lie between "1B" and "64KiB".`,
		`{"id": "x1", "free": "a\nb", "login": {"url": "u", "secret": "s"}}`: `id: It must match the pattern [a-z]*. | free: They exclude each other: leave one of the two out. | free: They exclude each other: leave one of the two out.`,
		`{"login": {"url": "u", "secret": "s"}}`:                             `login: Add "id", or leave "login" out.`,
		`{"times": {"connect": "0s"}}`:                                       `times.connect: It must be at least "1ms".`,
	} {
		var told []string
		for _, d := range decodeInto(t, []byte(config), &limited{}) {
			told = append(told, strings.Join(d.Path, ".")+": "+d.Detail)
		}
		if got := strings.Join(told, " | "); got != want {
			t.Errorf("%s:\n got %s\nwant %s", config, got, want)
		}
	}
}

func TestBuild(t *testing.T) {
	_, err := Plugin{Name: "No-Good", New: func() Dialer { return &wrong{} }}.build()
	for _, want := range []string{`plugin "No-Good"`, "a lower-case letter first, then up to 31", "no version", "wrong.Untagged"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
	if _, err := (Plugin{}).build(); err == nil || !strings.Contains(err.Error(), "no New") {
		t.Errorf("an empty plugin: %v", err)
	}
}
