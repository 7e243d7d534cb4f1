package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/tunneld/tunneld/core/diag"
	"github.com/tunneld/tunneld/core/internal/hclbody"
	"github.com/tunneld/tunneld/internal/schema"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// What is here warns of times that another one, which is shorter, keeps from ever being
// over. It looks at times that somebody wrote, since a default is meant for all.

// listenerTimes warns of those of a listener, of each once.
func (p *parser) listenerTimes(t Timeouts, b *hclsyntax.Block) {
	told := ""
	for _, c := range []struct {
		name, shorter string
		time, limit   time.Duration
	}{
		{"idle", "lifetime", t.Idle, t.Lifetime},
		{"half_close", "lifetime", t.HalfClose, t.Lifetime},
		{"half_close", "idle", t.HalfClose, t.Idle},
	} {
		if c.name != told && c.limit > 0 && c.time > c.limit && isWritten(b, "timeouts", c.name) {
			told = c.name
			p.warnAt(locate(b, "timeouts", c.name), fmt.Sprintf("%q cannot apply", c.name),
				fmt.Sprintf("%q is shorter and ends the tunnel first. Raise that, or lower or remove this.", c.shorter))
		}
	}
}

// upstreamTimes warns of those of upstreams that no listener leaves the time for.
func (c *Config) upstreamTimes() (diags diag.Diagnostics) {
	for _, u := range c.Upstreams {
		b := c.src.block("upstream." + u.ID())
		if b == nil {
			continue
		}
		for _, t := range u.dialTimes {
			if isWritten(b, t.Path...) {
				diags = append(diags, c.tooLong(u, b, t.Path, t.Value, "timeouts.dial", func(t Timeouts) time.Duration { return t.Dial })...)
			}
		}
		if u.Common.HalfClose != nil {
			diags = append(diags, c.tooLong(u, b, []string{"half_close"}, *u.Common.HalfClose, "timeouts.idle or timeouts.lifetime", Timeouts.silence)...)
		}
	}
	return diags
}

// silence is the longest that a tunnel stays open without a byte; 0: there is no limit.
func (t Timeouts) silence() time.Duration {
	if t.Idle == 0 || t.Lifetime > 0 && t.Lifetime < t.Idle {
		return t.Lifetime
	}
	return t.Idle
}

// tooLong warns of a time of an upstream that is longer than what each listener allows
// that leads to it.
func (c *Config) tooLong(u Upstream, b *hclsyntax.Block, path []string, value time.Duration, name string, allowed func(Timeouts) time.Duration) diag.Diagnostics {
	shorter := func(l Listener) bool { limit := allowed(l.Timeout); return limit > 0 && limit < value }
	if !slices.ContainsFunc(c.Listeners, shorter) {
		return nil
	}
	var leading []Listener
	for _, l := range c.Listeners {
		if slices.ContainsFunc(c.Routes, func(r Route) bool { return slices.Contains(r.Upstreams, u.ID()) && mayTake(r, l) }) {
			leading = append(leading, l)
		}
	}
	if len(leading) == 0 || slices.ContainsFunc(leading, func(l Listener) bool { return !shorter(l) }) {
		return nil
	}
	most := slices.MaxFunc(leading, func(a, b Listener) int { return cmp.Compare(allowed(a.Timeout), allowed(b.Timeout)) })
	return c.src.diagnostics([]hclbody.Problem{{
		Warning: true,
		Range:   locate(b, path...),
		Summary: fmt.Sprintf("%q cannot apply", strings.Join(path, ".")),
		Detail:  fmt.Sprintf("It is longer than %s of every listener that leads here, such as %s. Raise that, or lower this.", name, most.ID()),
	}})
}

// answerTime is the longest that a dial waits for an answer of the far end; 0: that is
// not known.
func answerTime(times []schema.DialTime) (longest time.Duration) {
	for _, t := range times {
		if t.Part == pluginv1.DialTime_DIAL_TIME_ANSWER {
			longest = max(longest, t.Value)
		}
	}
	return longest
}

// isWritten says whether a body has an attribute, which path leads to.
func isWritten(b *hclsyntax.Block, path ...string) bool {
	body := b.Body
	for _, name := range path[:len(path)-1] {
		i := slices.IndexFunc(body.Blocks, func(b *hclsyntax.Block) bool { return b.Type == name })
		if i < 0 {
			return false
		}
		body = body.Blocks[i].Body
	}
	return body.Attributes[path[len(path)-1]] != nil
}
