package engine

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/tlsconf"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// twoValues returns two values that can be written for an attribute.
func twoValues(t *testing.T, block string, a *pluginv1.Attribute) (one, other string) {
	t.Helper()
	if v, ok := map[string][2]string{
		"metrics.address":        {`"127.0.0.1:1"`, `"127.0.0.1:2"`},
		"control.address":        {`"unix:///run/a"`, `"unix:///run/b"`},
		"daemon.run_dir":         {`"/run/a"`, `"/run/b"`},
		"daemon.plugin_dir":      {`"/run/a"`, `"/run/b"`},
		"listener.address":       {`"127.0.0.1:3"`, `"127.0.0.1:4"`},
		"listener.addresses":     {`["127.0.0.1:3", "127.0.0.1:4"]`, `["127.0.0.1:4"]`},
		"listener.mode":          {`"0600"`, `"0660"`},
		"listener.owner":         {`"0"`, `"1"`},
		"listener.group":         {`"0"`, `"1"`},
		"listener.target":        {`"h:1"`, `"h:2"`},
		"listener.allow":         {`["10.0.0.0/8"]`, `["10.0.0.0/16"]`},
		"listener.deny":          {`["10.0.0.0/8"]`, `["10.0.0.0/16"]`},
		"listener.deny_targets":  {`["10.0.0.0/8"]`, `["10.0.0.0/16"]`},
		"listener.allow_targets": {`["10.0.0.0/8"]`, `["10.0.0.0/16"]`},
		"upstream.via":           {`"http://a"`, `"http://b"`},
		"tls.server_name":        {`"a"`, `"b"`},
		"tls.key_log_file":       {`"/run/a"`, `"/run/b"`},
		"tls.cipher_suites":      {`["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]`, `["TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"]`},
		"tls.allow_san":          {`["a"]`, `["b"]`},
		"tls.alpn":               {`["a"]`, `["b"]`},
		"upstream.bind":          {`"127.0.0.1"`, `"::1"`},
		"auth.users":             {`{ a = "b" }`, `{ a = "c" }`},
		"route.upstreams":        {`[upstream.direct.a]`, `[upstream.direct.b]`},
		"match.listeners":        {`[listener.tcp.a]`, `[listener.tcp.b]`},
		"match.ports":            {`[1]`, `[2]`},
		"match.hosts":            {`["a"]`, `["b"]`},
		"match.sources":          {`["10.0.0.0/8"]`, `["10.0.0.0/16"]`},
		"match.users":            {`["alice"]`, `["bob"]`},
	}[block+"."+a.GetName()]; ok {
		return v[0], v[1]
	}
	if of := a.GetType().GetOneOf(); len(of) > 1 {
		return strconv.Quote(of[0]), strconv.Quote(of[1])
	}
	switch a.GetType().GetKind() {
	case pluginv1.Kind_KIND_BOOL:
		return "true", "false"
	case pluginv1.Kind_KIND_INT:
		return "7", "8"
	case pluginv1.Kind_KIND_DURATION:
		return `"7s"`, `"8s"`
	}
	t.Fatalf("no two values for %s.%s: add them", block, a.GetName())
	return "", ""
}

// TestChangesNameEveryAttribute changes each attribute of each block in turn: what a
// reload prints has to name the block, and of a listener what is in it.
func TestChangesNameEveryAttribute(t *testing.T) {
	t.Setenv(tlsconf.KeyLogEnv, "1")
	const others = `
upstream "direct" "a" {}
upstream "direct" "b" {}
listener "tcp" "a" {
  address = "127.0.0.1:10"
  target  = "h:1"
}
listener "tcp" "b" {
  address = "127.0.0.1:11"
  target  = "h:1"
}
`
	parse := func(text string) *config.Config {
		cfg, diags := config.ParseFrom(strings.NewReader(others+text), "test.hcl")
		if diags.HasErrors() {
			t.Fatalf("%v in\n%s", diags, text)
		}
		return cfg
	}
	authority := nettest.NewAuthority(t, "authority")
	cert, key := authority.Files(t, &x509.Certificate{})
	listenersTLS := fmt.Sprintf("cert_file = %q\nkey_file = %q\nclient_ca_file = %q\n", cert, key, authority.File(t))
	tried := 0
	for id, table := range config.Tables() {
		kind, label, _ := strings.Cut(id, ".")
		if kind == "plugin" {
			continue // told by its process, which is another
		}
		header := kind
		name := kind
		switch {
		case kind == "route":
			header, name = `route "x"`, "route x"
		case label != "":
			header, name = fmt.Sprintf("%s %q \"x\"", kind, label), fmt.Sprintf("%s %s.x", kind, label)
		}
		// render writes the block with what is required, one attribute as given, which may
		// be an inner block's.
		render := func(in, attribute, value string) string {
			var b strings.Builder
			for _, a := range table.GetAttributes() {
				switch {
				case in == "" && a.GetName() == attribute:
					fmt.Fprintf(&b, "%s = %s\n", attribute, value)
				case in == "" && attribute == "addresses" && a.GetName() == "address": // it stands in for this one
				case in == "" && slices.Contains([]string{"mode", "owner", "group"}, attribute) && a.GetName() == "address":
					fmt.Fprintln(&b, `address = "unix:///run/x.sock"`)
				case a.GetRequired():
					required, _ := twoValues(t, kind, a)
					fmt.Fprintf(&b, "%s = %s\n", a.GetName(), required)
				}
			}
			if in != "" {
				more := ""
				if kind == "listener" && in == "tls" {
					more = listenersTLS
				}
				fmt.Fprintf(&b, "%s {\n%s%s = %s\n}\n", in, more, attribute, value)
			}
			return header + " {\n" + b.String() + "}\n"
		}
		try := func(in string, a *pluginv1.Attribute) {
			tried++
			block := kind
			if in != "" {
				block = in
			}
			one, other := twoValues(t, block, a)
			old, next := &generation{cfg: parse(render(in, a.GetName(), one))}, &generation{cfg: parse(render(in, a.GetName(), other))}
			said := strings.Join(changes(old, next), "\n")
			want := name + ": changed"
			switch {
			case kind == "listener" && a.GetName() == "address":
				want = name + ": moved from "
			case kind == "listener" && a.GetName() == "addresses":
				want = name + ": no longer on 127.0.0.1:3"
			case kind == "listener" && in != "":
				want += " " + in
			case kind == "listener":
				want += " " + a.GetName()
			}
			if !strings.HasPrefix(said, want) {
				t.Errorf("%s.%s of %s, from %s to %s: %q, want %q", block, a.GetName(), id, one, other, said, want)
			}
			if again := changes(old, old); len(again) > 0 {
				t.Errorf("%s: nothing has changed, and it says %q", id, again)
			}
		}
		for _, a := range table.GetAttributes() {
			try("", a)
		}
		for _, n := range table.GetBlocks() {
			for _, a := range n.GetBody().GetAttributes() {
				if a.GetType().GetPath() == pluginv1.PathUse_PATH_USE_FILE {
					continue // it would have to be there
				}
				try(n.GetName(), a)
			}
		}
	}
	if tried < 40 {
		t.Errorf("only %d attributes were tried", tried)
	}
}
