package config

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/schema"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// relay is the schema of a plugin whose far end takes its time.
func relay() PluginSchema {
	dialTime := func(name, def string, part pluginv1.DialTime) *pluginv1.Attribute {
		a := schema.Attr(name, schema.Duration, def)
		a.DialTime = part
		return a
	}
	return PluginSchema{CommonNames: schema.CommonTable(), Block: &pluginv1.Block{Blocks: []*pluginv1.NestedBlock{schema.Single("timeouts",
		dialTime("connect", `"10s"`, pluginv1.DialTime_DIAL_TIME_STEP),
		dialTime("accept", `"35s"`, pluginv1.DialTime_DIAL_TIME_ANSWER),
		schema.Attr("idle", schema.Duration, `"3600s"`),
	)}}}
}

// TestTimesThatCannotApply: a time that another one is always over before is told, where
// it stands, and none that is a default or that may apply.
func TestTimesThatCannotApply(t *testing.T) {
	const (
		upstream = "upstream \"relay\" \"a\" {\n%s\n}\n"
		long     = "timeouts { accept = \"40s\" }"
	)
	listener := func(name, more string) string {
		return fmt.Sprintf("listener \"tcp\" %q {\naddress = \"127.0.0.1:0\"\ntarget = \"%s.corp:1\"\n%s\n}\n", name, name, more)
	}
	route := func(match string) string {
		return "route \"r\" {\n" + match + "\nupstreams = [upstream.relay.a, upstream.direct.d]\n}\n"
	}
	for name, tt := range map[string]struct {
		upstream, listeners, match string
		want                       []string // "line: summary: the beginning of the detail"
	}{
		"all defaults":                  {"", listener("l", ""), "", nil},
		"the default accept":            {"", listener("l", `timeouts { dial = "5s" }`), "", nil},
		"no longer than the dial":       {`timeouts { accept = "35s" }`, listener("l", ""), "", nil},
		"a dial without end":            {`timeouts { accept = "40s" }`, listener("l", `timeouts { dial = "0s" }`), "", nil},
		"a time of the tunnel's":        {`timeouts { idle = "2h" }`, listener("l", ""), "", nil},
		"another listener allows it":    {long, listener("l", "") + listener("m", `timeouts { dial = "1m" }`), "", nil},
		"accept":                        {long, listener("l", ""), "", []string{`2: "timeouts.accept" cannot apply: It is longer than timeouts.dial of every listener that leads here, such as tcp.l.`}},
		"connect":                       {`timeouts { connect = "6s" }`, listener("l", `timeouts { dial = "5s" }`), "", []string{`2: "timeouts.connect" cannot apply: `}},
		"the most generous is named":    {long, listener("l", "") + listener("m", `timeouts { dial = "36s" }`), "", []string{`2: "timeouts.accept" cannot apply: It is longer than timeouts.dial of every listener that leads here, such as tcp.m.`}},
		"the other leads elsewhere":     {long, listener("l", "") + listener("m", `timeouts { dial = "1m" }`), `match { hosts = ["l.corp"] }`, []string{`2: "timeouts.accept" cannot apply: `}},
		"half_close beyond the end":     {`half_close = "2m"`, listener("l", `timeouts { lifetime = "1m" }`), "", []string{`2: "half_close" cannot apply: It is longer than timeouts.idle or timeouts.lifetime of every`}},
		"half_close beyond idle":        {`half_close = "2m"`, listener("l", "timeouts {\nidle = \"1m\"\nlifetime = \"1h\"\n}"), "", []string{`2: "half_close" cannot apply: It is longer than timeouts.idle or`}},
		"half_close within both":        {`half_close = "2m"`, listener("l", "timeouts {\nidle = \"3m\"\nlifetime = \"1h\"\n}"), "", nil},
		"the listener's idle":           {"", listener("l", "timeouts {\nidle = \"2h\"\nlifetime = \"1h\"\n}"), "", []string{`8: "idle" cannot apply: "lifetime" is shorter and ends the tunnel first.`}},
		"the listener's half_close":     {"", listener("l", "timeouts {\nidle = \"2m\"\nhalf_close = \"3m\"\n}"), "", []string{`9: "half_close" cannot apply: "idle" is shorter`}},
		"the listener's beyond the end": {"", listener("l", "timeouts {\nlifetime = \"2m\"\nhalf_close = \"3m\"\n}"), "", []string{`9: "half_close" cannot apply: "lifetime" is shorter`}},
		"both of the listener's":        {"", listener("l", "timeouts {\nidle = \"2h\"\nlifetime = \"1h\"\nhalf_close = \"3h\"\n}"), "", []string{`8: "idle" cannot apply`, `10: "half_close" cannot apply: "lifetime" is shorter`}},
		"the default half_close":        {"", listener("l", `timeouts { lifetime = "10s" }`), "", nil},
		"idle as long as the rest":      {"", listener("l", "timeouts {\nidle = \"1h\"\nlifetime = \"1h\"\n}"), "", nil},
		"nobody leads to it, told so":   {long, listener("l", ""), `match { hosts = ["other.corp"] }`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			text := fmt.Sprintf(upstream, tt.upstream) + tt.listeners + "upstream \"direct\" \"d\" {}\n" + route(tt.match) +
				"route \"rest\" { upstreams = [upstream.direct.d] }\n"
			if tt.match == "" {
				text = strings.TrimSuffix(text, "route \"rest\" { upstreams = [upstream.direct.d] }\n")
			}
			cfg, diags := parseText(t, text)
			diags = append(diags, cfg.DecodeUpstreams(map[string]PluginSchema{"relay": relay()})...)
			var got []string
			for _, d := range diags {
				if !d.Warning || strings.Contains(d.Summary, "is not used") {
					t.Errorf("%+v", d)
				}
				got = append(got, fmt.Sprintf("%d: %s: %s", d.Line, d.Summary, d.Detail))
			}
			if !slices.EqualFunc(got, tt.want, strings.HasPrefix) {
				t.Errorf("%q, want %q in\n%s", got, tt.want, text)
			}
		})
	}
}

// TestAnswer: the engine learns how long an upstream waits for its far end.
func TestAnswer(t *testing.T) {
	for body, want := range map[string]time.Duration{"": 35 * time.Second, `timeouts { accept = "50s" }`: 50 * time.Second, `timeouts { connect = "50s" }`: 35 * time.Second} {
		cfg, _ := parseText(t, "upstream \"relay\" \"a\" {\n"+body+"\n}\n")
		cfg.DecodeUpstreams(map[string]PluginSchema{"relay": relay()})
		if got := cfg.Upstreams[0].Answer; got != want {
			t.Errorf("%q: %s, want %s", body, got, want)
		}
	}
}
