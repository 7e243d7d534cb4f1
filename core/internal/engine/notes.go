package engine

import (
	"fmt"
	"slices"
	"time"

	"github.com/tunneld/tunneld/core/diag"
	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/core/internal/targets"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// defaultNotes name the common attributes that an upstream's block leaves out and
// for which its plugin has a default. They had none in the first version.
func defaultNotes(cfg *config.Config, u config.Upstream, d *pluginv1.CommonDefaults) (notes diag.Diagnostics) {
	note := func(summary, detail string) {
		one := cfg.BlockDiagnostic("upstream."+u.ID(), "", summary, detail)
		one.Warning, one.Note = true, true
		notes = append(notes, one)
	}
	chosen := u.Common.Or(d)
	if n := chosen.MaxConnections; u.Common.MaxConnections == nil && n != nil {
		note(fmt.Sprintf("max_connections is %d by default", *n),
			"A dial beyond it waits within its time, and then fails. Set what the far end can serve; max_connections = 0 is no limit, as before.")
	}
	if t := chosen.HalfClose; u.Common.HalfClose == nil && t != nil {
		note(fmt.Sprintf("half_close is %s by default", *t),
			fmt.Sprintf("The tunnel ends once the far end has been silent for that long after the client's end of file. Write half_close = %q for the old default.", time.Minute))
	}
	return notes
}

// targetNotes are TargetNotes, and a warning where nothing can be allowed: whether an address
// is this machine's own has to be known.
func targetNotes(cfg *config.Config, list targets.Lister) diag.Diagnostics {
	notes := cfg.TargetNotes()
	i := slices.IndexFunc(cfg.Listeners, cfg.ChecksTargets)
	if i < 0 {
		return notes
	}
	if err := targets.NewOwn(list).Check(); err != nil {
		id := cfg.Listeners[i].ID()
		one := cfg.BlockDiagnostic("listener."+id, "", "This machine's addresses cannot be listed",
			fmt.Sprintf("The reason: %v. Clients that name their target get no direct connection, but to addresses that allow_targets has by themselves. Under systemd, RestrictAddressFamilies has to have AF_NETLINK.", err))
		one.Warning, one.Machine = true, true
		notes = append(notes, one)
	}
	return notes
}
