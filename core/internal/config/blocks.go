package config

import (
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/tunneld/tunneld/core/internal/hclbody"
	"github.com/tunneld/tunneld/internal/schema"
)

var (
	sha256RE = regexp.MustCompile(`^[0-9a-fA-F]{64}$`)
	envRE    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

var levels = map[string]slog.Level{
	"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
}

// decode decodes a block whose header is right.
func (p *parser) decode(b *hclsyntax.Block) {
	if b.Type == "upstream" && b.Labels[0] != "direct" {
		p.pluginUpstream(b)
		return
	}
	before := len(p.diags)
	v := p.values(b)
	switch b.Type {
	case "log":
		p.cfg.Log = logBlock(v)
	case "metrics":
		p.cfg.Metrics.Addresses = []string{v.Text("address")}
		if written, given := v["address"].(string); given {
			p.address(b, locate(b, "address"), -1, written)
		}
	case "control":
		p.cfg.Control.Address = v.Text("address")
		path, isUnix := strings.CutPrefix(p.cfg.Control.Address, "unix://")
		if v["address"] != nil && (!isUnix || !cleanPath(path)) {
			p.errorAt(locate(b, "address"), "Wrong address for the control socket", `Write unix:// and an absolute path, without control characters: "unix:///run/tunneld/control.sock".`)
		}
	case "daemon":
		p.cfg.Daemon = p.daemon(v, b)
	case "plugin":
		pl := p.plugin(v, b)
		pl.Wrong = p.diags[before:].HasErrors()
		p.cfg.Plugins = append(p.cfg.Plugins, pl)
	case "upstream":
		p.direct(v, b)
	case "listener":
		p.listener(v, b)
	case "route":
		r := p.route(v, b)
		r.wrong = len(p.diags) > before
		p.report(r.route.Bandwidth.doubts(b)...)
		p.routes = append(p.routes, r)
		p.cfg.Routes = append(p.cfg.Routes, r.route)
	}
}

// direct takes a block of the built-in upstream.
func (p *parser) direct(v schema.Values, b *hclsyntax.Block) {
	shared, wrong := common(v)
	for _, w := range wrong {
		p.errorAt(locate(b, w.name), w.summary(), w.problem)
	}
	p.report(shared.Bandwidth.doubts(b)...)
	u := Upstream{Type: DirectType, Name: b.Labels[1], Socket: socket(v.Block("tcp")), TLS: p.directTLS(v, b), Common: shared}
	w := u.Wire()
	w.ConfigJson = fmt.Appendf(nil, "%#v", u.TLS) // names of files, and what is the same every time
	u.Hash = Hash(w)
	p.cfg.Upstreams = append(p.cfg.Upstreams, u)
}

// hasBlock says whether an inner block is written.
func hasBlock(b *hclsyntax.Block, name string) bool {
	return slices.ContainsFunc(b.Body.Blocks, func(in *hclsyntax.Block) bool { return in.Type == name })
}

func logBlock(v schema.Values) Log {
	return Log{Level: levels[v.Text("level")], Format: v.Text("format"), Access: v.Bool("access")}
}

func (p *parser) daemon(v schema.Values, b *hclsyntax.Block) Daemon {
	for _, name := range []string{"run_dir", "plugin_dir"} {
		if path := v.Text(name); path != "" && !cleanPath(path) {
			p.errorAt(locate(b, name), fmt.Sprintf("Wrong value for %q", name), "It must be an absolute path without control characters. trimspace( … ) removes the line break at a file's end.")
		}
	}
	return Daemon{
		RunDir:          v.Text("run_dir"),
		PluginDir:       v.Text("plugin_dir"),
		ShutdownDelay:   v.Duration("shutdown_delay"),
		ShutdownTimeout: v.Duration("shutdown_timeout"),
		DrainTimeout:    v.Duration("drain_timeout"),
		MaxConnections:  v.Int("max_connections"),
		Watch:           v.Bool("watch"),
	}
}

func (p *parser) plugin(v schema.Values, b *hclsyntax.Block) Plugin {
	pl := Plugin{
		Name:    b.Labels[0],
		Command: v.List("command"),
		SHA256:  strings.ToLower(v.Text("sha256")),
		Files:   v.Map("files"),
		Env:     v.Map("env"),
	}
	switch at := locate(b, "command"); {
	case v["command"] == nil:
	case len(pl.Command) == 0:
		p.errorAt(at, `"command" is empty`, `Name the program: command = ["/usr/lib/tunneld/tunneld-plugin-NAME"]`)
	case !cleanPath(pl.Command[0]):
		p.errorAt(at, "The program of a plugin needs an absolute path", "$PATH and the current folder are not searched. Write its absolute path, without control characters.")
	}
	if slices.ContainsFunc(pl.Command, hasNUL) {
		p.errorAt(locate(b, "command"), `Wrong value for "command"`, "An argument cannot contain a zero byte.")
	}
	const hash = "It must be the SHA-256 of the file: 64 hexadecimal digits, as sha256sum prints them."
	if pl.SHA256 != "" && !sha256RE.MatchString(pl.SHA256) {
		p.errorAt(locate(b, "sha256"), `Wrong value for "sha256"`, hash)
	}
	for _, path := range slices.Sorted(maps.Keys(pl.Files)) {
		if !cleanPath(path) || !sha256RE.MatchString(pl.Files[path]) {
			p.errorAt(locate(b, "files"), `Wrong value for "files"`, `Each entry is an absolute path and a hash: { "/path" = "…" }. `+hash)
			break
		}
	}
	for _, name := range slices.Sorted(maps.Keys(pl.Env)) {
		if !envRE.MatchString(name) || hasNUL(pl.Env[name]) {
			p.errorAt(locate(b, "env"), `Wrong value for "env"`, "A variable's name consists of letters, digits and _, and does not start with a digit; its value contains no zero byte.")
			break
		}
	}
	return pl
}

// cleanPath says whether a path is absolute and can be one that a person means: the
// line break at the end of a file has come along otherwise.
func cleanPath(path string) bool {
	return filepath.IsAbs(path) && !strings.ContainsFunc(path, unicode.IsControl)
}

func hasNUL(s string) bool { return strings.ContainsRune(s, 0) }

// locate returns the place of what a path of names leads to within a block.
func locate(b *hclsyntax.Block, path ...string) hcl.Range {
	return hclbody.Locate(b.Body, b.TypeRange, path...)
}
