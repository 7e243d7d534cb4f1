package conformance

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tunneld/tunneld/internal/pluginwire"
)

// The groups of the report, in their order.
const (
	groupStart  = "start"
	groupConfig = "configuration"
	groupDial   = "dial"
	groupEnd    = "how a tunnel ends"
	groupLoad   = "load"
	groupLife   = "life"
	groupLeft   = "what is left behind"
)

// check is one check. Its run may raise the run's level and leave instances to
// be cleared up.
type check struct {
	id, group, title string
	// fix is what the plugin's author does about a failure; empty where the
	// check itself says it.
	fix string
	// needs is the level without which it is skipped.
	needs level
	// owned: it needs the run's own service at the target.
	owned bool
	// kills: it kills the far end, which has to be the run's own.
	kills bool
	// lacks names what the far end must not lack.
	lacks string
	// cannot is the capability that, where the plugin has it, makes of a failure
	// what it declares.
	cannot string
	// bound is how many of the step's timeouts it may take; 0: 6.
	bound int
	// run makes the check; fresh does with a process of its own, which it may end.
	run   func(r *run, ctx context.Context) outcome
	fresh func(r *run, ctx context.Context, i *instance) outcome
}

// outcome is what became of a check.
type outcome struct {
	result Result
	detail string
	// fix replaces the check's.
	fix string
}

func pass(format string, args ...any) outcome {
	return outcome{result: Pass, detail: fmt.Sprintf(format, args...)}
}

func fail(format string, args ...any) outcome {
	return outcome{result: Fail, detail: fmt.Sprintf(format, args...)}
}

func skip(format string, args ...any) outcome {
	return outcome{result: Skipped, detail: fmt.Sprintf(format, args...)}
}

func declare(format string, args ...any) outcome {
	return outcome{result: Declared, detail: fmt.Sprintf(format, args...)}
}

// fails turns a list of what is wrong into an outcome; none is a pass.
func fails(wrong []string, format string, args ...any) outcome {
	const most = 8
	if len(wrong) == 0 {
		return pass(format, args...)
	}
	if n := len(wrong) - most; n > 0 {
		wrong = append(slices.Clone(wrong[:most]), fmt.Sprintf("and %d more", n))
	}
	return fail("%s", strings.Join(wrong, "\n"))
}

// of makes the check, or says why it is not made.
func (c check) of(ctx context.Context, r *run) outcome {
	switch {
	case r.level < c.needs:
		return skip("%s", (r.level + 1).missing())
	case c.owned && r.target == nil:
		return skip("it needs the kit's own service at the target")
	case c.kills && r.farEnd == nil:
		return skip("the kit kills a far end that it has started: give its command after --")
	case c.lacks != "" && r.lacks(c.lacks):
		return skip("the far end lacks %s", c.lacks)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(cmp.Or(c.bound, 6))*r.opts.Timeout)
	defer cancel()
	got := c.with(ctx, r)
	if ended := r.farEnd.Ended(); ended != "" && c.needs >= levelDialed {
		r.level = levelValid
		return outcome{result: Fail, detail: strings.TrimSpace(ended + "\n" + got.detail), fix: farEndFix}
	}
	got = r.unlessDeclared(got, c.cannot)
	if got.result == Fail && got.fix == "" {
		got.fix = c.fix
	}
	return got
}

// with makes the check with the process that it is for.
func (c check) with(ctx context.Context, r *run) outcome {
	if c.fresh == nil {
		return c.run(r, ctx)
	}
	i, err := r.another(ctx)
	if err != nil {
		return fail("%v", err)
	}
	defer r.retire(i)
	return c.fresh(r, ctx, i)
}

// farEndFix is what to do about a far end that ended: what answers then is
// another one, or nothing.
const farEndFix = "keep the far end's command running, in the foreground, and its address free for it"

// unlessDeclared makes of a failure what the plugin declares, if it does.
func (r *run) unlessDeclared(got outcome, capability string) outcome {
	if got.result != Fail || !r.cannot(capability) {
		return got
	}
	return declare("%s; the plugin says that its protocol cannot do otherwise (%s)", got.detail, capability)
}

// patience is how long to wait for what a protocol that has the capability
// cannot do anyway.
func (r *run) patience(capability string) time.Duration {
	if r.cannot(capability) {
		return min(time.Second, r.opts.Timeout)
	}
	return r.opts.Timeout
}

// cannot says whether the plugin names a capability.
func (r *run) cannot(capability string) bool {
	return r.main != nil && slices.Contains(r.main.Info().GetCapabilities(), capability)
}

// checks are all checks, in the order in which they are made.
var checks = []check{
	{
		id: "handshake", group: groupStart, title: "It starts, and says who it is", run: (*run).handshake,
	},
	{
		id: "info", group: groupStart, title: "It gives its name, version and summary, always the same", needs: levelStarted, run: (*run).information,
		fix: "give GetInfo a version and a one-line summary, and the same answer each time",
	},
	{
		id: "schema", group: groupStart, title: "The schema is sane", needs: levelStarted, run: (*run).schema,
		fix: "fix names, types and defaults of the schema, and give each attribute and block a doc",
	},
	{
		id: "validate", group: groupConfig, title: "It accepts the configuration, each time", needs: levelDecoded, run: (*run).validate,
		fix: "if the configuration is wrong, fix it; otherwise ValidateConfig must find no error in it, and answer the same each time",
	},
	{
		id: "missing", group: groupConfig, title: "It names a missing required attribute", needs: levelValid, run: (*run).missing,
		fix: "answer with an error diagnostic whose path is the attribute's",
	},
	{
		id: "types", group: groupConfig, title: "It refuses wrong types, values beyond their limits, and unknown names", needs: levelValid, run: (*run).types,
		fix: "decode strictly: an unknown name, a null and a wrong type are each an error diagnostic with its path (docs/plugin-protocol.md, section 4)",
	},
	{
		id: "dial", group: groupDial, title: "The target is reached", needs: levelValid, bound: 8, run: (*run).dial,
		fix: "check that the far end runs and leads to the target, then the dial's stage",
	},
	{
		id: "echo", group: groupDial, title: "Bytes come back as they were sent", needs: levelDialed, run: (*run).echo,
		fix: "carry every byte value and any size of write unchanged, in order, at once",
	},
	{
		id: "greeting", group: groupDial, title: "A target that speaks first is heard", needs: levelDialed, owned: true, cannot: pluginwire.NoGreeting, run: (*run).greeting,
		fix: "what the handshake read past its own end goes into prefetched, or first down the relay",
	},
	{
		id: "refused", group: groupDial, title: "A target that refuses is a typed error", needs: levelDialed, bound: 8, run: (*run).refuse,
		fix: "return once the target answers and not before; where it does not, close what the dial had opened, and return a DialError with stage, reason and message (docs/plugin-protocol.md, section 5)",
	},
	{
		id: "cancel", group: groupDial, title: "A cancelled dial ends, and leaves nothing behind", needs: levelDialed, bound: 10, run: (*run).cancel,
		fix: "end what a dial does when its call is cancelled, and close what it had opened; a Read does not know of ctx: set a deadline when it is done, then close (docs/writing-a-plugin.md, section 3)",
	},
	{
		id: "first-dials", group: groupDial, title: "A cancelled first dial takes no other with it", needs: levelDialed, bound: 10, run: (*run).firstDials,
		fix: "let no dial's context end what other dials wait for: a login or a connection that they share needs its own context and timeout (docs/writing-a-plugin.md, section 3)",
	},
	{
		id: "pure", group: groupDial, title: "ValidateConfig has no side effects", needs: levelDialed, run: (*run).pure,
		fix: "only look at the values in ValidateConfig: no connection, no open file, nothing kept",
	},
	{
		id: "half-close-client", group: groupEnd, title: "The client's end of file reaches the target, whose answer still arrives", needs: levelDialed, lacks: LackHalfClose, run: (*run).halfCloseClient,
		fix: "pass the client's end of file on and go on reading; if the protocol cannot, declare no_half_close (docs/plugin-protocol.md, section 7); if only the far end cannot, use --far-end-lacks half-close",
	},
	{
		id: "half-close-target", group: groupEnd, title: "The target's end of file reaches the client, whose bytes still arrive", needs: levelDialed, owned: true, lacks: LackHalfClose, run: (*run).halfCloseTarget,
		fix: "announce EOF, shut the write side down and go on reading; if the protocol cannot, declare no_half_close (docs/plugin-protocol.md, section 7); if only the far end cannot, use --far-end-lacks half-close",
	},
	{
		id: "end", group: groupEnd, title: "It announces a clean end", needs: levelDialed, run: (*run).end,
		fix: "send END, clean, once both directions have ended and before closing (docs/plugin-protocol.md, section 7)",
	},
	{
		id: "abort", group: groupEnd, title: "A broken-off client is not a clean end for the target", needs: levelDialed, owned: true, lacks: LackReset, run: (*run).abort,
		fix: "on ABORT end the connection so that the far end can tell it from a clean end: a reset, or the protocol's own mark; without one, declare no_abort; if the far end hides it, use --far-end-lacks reset",
	},
	{
		id: "target-reset", group: groupEnd, title: "A broken-off target is not a clean end for the client", needs: levelDialed, owned: true, lacks: LackReset, run: (*run).targetReset,
		fix: "send END with an error, and no EOF, when the far end broke off; if the protocol does not tell, declare no_reset",
	},
	{
		id: "bulk", group: groupLoad, title: "Many bytes go both ways at once", needs: levelDialed, bound: 30, run: (*run).bulk,
		fix: "read while writing, keep order, drop nothing, and write until all bytes are taken",
	},
	{
		id: "dials", group: groupLoad, title: "Many dials at once all succeed", needs: levelDialed, run: (*run).dials,
		fix: "hold no lock during a dial or a tunnel",
	},
	{
		id: "descriptors", group: groupLoad, title: "No descriptors are left", needs: levelDialed, run: (*run).descriptors,
		fix: "close the copy of what was handed over, and everything else of a tunnel that has ended",
	},
	{
		id: "status", group: groupLife, title: "The status names the configured upstreams", needs: levelValid, run: (*run).status,
		fix: "send the state of all upstreams at once when WatchStatus is called, each once",
	},
	{
		id: "generations", group: groupLife, title: "Generations live beside each other, and end by their release", needs: levelDialed, fresh: (*run).generations,
		fix: "Configure adds, Release drops, an unknown generation is NOT_FOUND, an existing one ALREADY_EXISTS (docs/plugin-protocol.md, section 3)",
	},
	{
		id: "release", group: groupLife, title: "Tunnels outlive the upstream that they were made through", needs: levelDialed, fresh: (*run).release,
		fix: "when an upstream closes, close nothing that a tunnel uses, such as a pooled connection: its last tunnel closes it (docs/writing-a-plugin.md, section 2)",
	},
	{
		id: "configure-whole", group: groupLife, title: "A generation with an error is not kept", needs: levelValid, run: (*run).configureWhole,
		fix: "on an error diagnostic keep nothing of the generation",
	},
	{
		id: "drain", group: groupLife, title: "Drain refuses new dials and lets tunnels end", needs: levelDialed, fresh: (*run).drain,
		fix: "after Drain answer dials with UNAVAILABLE, leave tunnels alone, and return once no relay is left or shortly before the deadline",
	},
	{
		id: "kill", group: groupLife, title: "A killed plugin ends its relays with an error, but no direct tunnel", needs: levelDialed, fresh: (*run).kill,
		fix: "announce EOF and END only when they are due; on the direct path hand over a socket that no process of the plugin serves",
	},
	{
		id: "kill-target", group: groupLife, title: "A killed plugin is not a clean end for the target", needs: levelDialed, owned: true, lacks: LackReset, cannot: pluginwire.NoAbort, fresh: (*run).killTarget,
		fix: "set SO_LINGER to zero on the connection to the far end until it is closed cleanly (docs/plugin-protocol.md, section 7)",
	},
	{
		id: "lifeline", group: groupLife, title: "It ends when the daemon is gone", needs: levelStarted, fresh: (*run).lifeline,
		fix: "read the descriptor channel continuously; at its end of file abort the relays and exit within two seconds (docs/plugin-protocol.md, section 1)",
	},
	{
		id: "stop", group: groupLife, title: "It ends on SIGTERM", needs: levelStarted, run: (*run).stop,
		fix: "on SIGTERM abort the relays and exit within two seconds (docs/plugin-protocol.md, section 1)",
	},
	{
		id: "far-end-death", group: groupLife, title: "A dead far end is not a clean end for the client", needs: levelDialed, owned: true, kills: true, fresh: (*run).farEndDeath,
		fix: "treat only the protocol's own mark as a clean end, and an end of file without it as an error; without such a mark, declare no_reset (docs/plugin-protocol.md, section 7)",
	},
	{
		id: "records", group: groupLeft, title: "The descriptor channel carried nothing wrong", needs: levelDialed, run: (*run).channel,
		fix: "send records of 256 bytes as in docs/plugin-protocol.md, section 6, and at most one END for each relay, as the last",
	},
	{
		id: "processes", group: groupLeft, title: "No processes are left", needs: levelStarted, run: (*run).processes,
		fix: "stop what the plugin started, and wait for it, before the plugin exits",
	},
	{
		id: "secrets", group: groupLeft, title: "No sensitive value was printed", needs: levelDecoded, run: (*run).secrets,
		fix: "keep secrets out of logs, errors, diagnostics and statuses, in any encoding, at level debug too",
	},
}
