package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/tunneld/tunneld/core/conformance/internal/secrets"
	"github.com/tunneld/tunneld/core/diag"
	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/core/internal/pluginhost"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

func (r *run) handshake(ctx context.Context) outcome {
	begun := time.Now()
	i, err := r.launch(ctx)
	if err != nil {
		failed := fail("%v", err)
		var start *pluginhost.StartError
		if errors.As(err, &start) && start.Handshake {
			failed.fix = "print the handshake line first and nothing before it, and serve GetInfo and GetSchema (docs/plugin-protocol.md, section 1)"
		}
		return failed
	}
	r.main, r.level = i, levelStarted
	return pass("ready after %s", time.Since(begun).Round(time.Millisecond))
}

func (r *run) information(ctx context.Context) outcome {
	var wrong []string
	info := r.main.Info()
	line := func(what, text string) {
		if strings.TrimSpace(text) == "" {
			wrong = append(wrong, "no "+what)
		}
		if strings.ContainsAny(text, "\n\r\t\x1b") || len(text) > 256 {
			wrong = append(wrong, "the "+what+" is not one short line")
		}
	}
	raw := r.said.rawInfo()
	line("version", raw.GetVersion())
	line("summary", raw.GetSummary())
	again, err := r.main.Service().GetInfo(ctx, &pluginv1.GetInfoRequest{CoreVersion: r.opts.Version, Capabilities: []string{"kit.unknown"}})
	switch {
	case err != nil:
		wrong = append(wrong, "asked again, with an unknown capability: "+err.Error())
	case !proto.Equal(info, again):
		wrong = append(wrong, "asked again, it gives another answer")
	}
	return fails(wrong, "%s %s", info.GetName(), info.GetVersion())
}

func (r *run) schema(ctx context.Context) outcome {
	spec := r.main.Schema()
	common := config.PluginSchema{Block: spec, CommonNames: r.main.Info().GetCommonNames()}
	if err := common.Check(); err != nil {
		return fail("%v", err)
	}
	if diags := r.decode(common); diags.HasErrors() {
		r.invalid = diags
		return skip("the configuration does not fit it")
	}
	r.level = levelDecoded
	wrong := undocumented(spec, "")
	again, err := r.main.Service().GetSchema(ctx, &pluginv1.GetSchemaRequest{})
	switch {
	case err != nil:
		wrong = append(wrong, "asked again: "+err.Error())
	case !proto.Equal(spec, again.GetUpstream()):
		wrong = append(wrong, "asked again, it gives another schema")
	}
	return fails(wrong, "%d attributes, %d blocks", len(spec.GetAttributes()), len(spec.GetBlocks()))
}

// decode brings the upstream's body into the form that the plugin takes.
func (r *run) decode(spec config.PluginSchema) diag.Diagnostics {
	diags := r.cfg.DecodeUpstreams(map[string]config.PluginSchema{r.spec.Name: spec})
	for _, u := range r.cfg.Upstreams {
		if u.ID() == r.upstream.ID() {
			r.upstream = u
		}
	}
	if r.upstream.Hash == "" {
		return diags
	}
	r.up = r.upstream.Wire()
	var known []secrets.Secret
	known, r.unsought = secrets.Find(spec.Block, r.values())
	r.said.Know(known)
	// Another upstream of the plugin may be wrong.
	return nil
}

// values returns the upstream's values, which are the caller's to change.
func (r *run) values() map[string]any {
	var v map[string]any
	d := json.NewDecoder(bytes.NewReader(r.upstream.JSON))
	d.UseNumber()
	// The daemon's own decoder wrote it.
	_ = d.Decode(&v)
	return v
}

func undocumented(b *pluginv1.Block, path string) []string {
	var wrong []string
	for _, a := range b.GetAttributes() {
		if strings.TrimSpace(a.GetDoc()) == "" {
			wrong = append(wrong, fmt.Sprintf("attribute %s%s has no doc", path, a.GetName()))
		}
	}
	for _, n := range b.GetBlocks() {
		if strings.TrimSpace(n.GetBody().GetDoc()) == "" {
			wrong = append(wrong, fmt.Sprintf("block %s%s has no doc", path, n.GetName()))
		}
		wrong = append(wrong, undocumented(n.GetBody(), path+n.GetName()+".")...)
	}
	return wrong
}
