package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/core"
	"github.com/tunneld/tunneld/core/status"
)

func statusCommand() *cobra.Command {
	var f daemonFlags
	var ready bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the state of the running daemon",
		Long: `status shows the configuration in force, the last reload, listeners, upstreams and
plugins of the running daemon. It finds the daemon by its configuration, or by
--control.

With --ready it says only whether the daemon should get new clients, like /readyz:
it should not while it stops, or while a plugin keeps dying. That is for probes that
run a command.

Exit status: 0, or 1 if the daemon could not be reached or, with --ready, is not
ready.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.ask(cmd, func(ctx context.Context, address string) error {
				s, err := core.AskStatus(ctx, address)
				if err != nil {
					return err
				}
				switch {
				case f.json:
					err = writeJSON(cmd.OutOrStdout(), s)
				case ready:
					_, err = io.WriteString(cmd.OutOrStdout(), cmp.Or(notReady(s), "ready\n"))
				default:
					err = writeStatus(cmd.OutOrStdout(), s, time.Now())
				}
				if err == nil && ready && len(s.NotReady()) > 0 {
					return statusError(exitFailed)
				}
				return err
			})
		},
	}
	f.add(cmd, 10*time.Second)
	cmd.Flags().BoolVar(&ready, "ready", false, "say only whether the daemon is ready for new clients: exit status 0, or 1 with the reasons")
	return cmd
}

// writeStatus prints for a reader. now says what "ago" and the time zone are.
func writeStatus(to io.Writer, s status.Status, now time.Time) error {
	// The writer keeps the first error for the end.
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "tunneld %s, process %d, up %s, since %s\n", printable(s.Version), s.PID, short(now.Sub(s.Started)), clock(s.Started, now))
	watched := ""
	if s.Watched {
		watched = ", reloaded when it changes"
	}
	fmt.Fprintf(w, "configuration %s, generation %d in force%s\n", printable(s.Config), s.Generation, watched)
	writeLastReload(w, s, now)
	fmt.Fprint(w, notReady(s))
	if s.LogDropped > 0 {
		fmt.Fprintf(w, "LOG: %s dropped since the start: they could not be written\n", count(s.LogDropped, "line"))
	}
	writeListeners(w, s.Listeners, now)
	writeUpstreams(w, s.Upstreams, now)
	writePluginStatus(w, s.Plugins, now)
	writePump(w, s)
	return w.Flush()
}

// notReady has a line for each reason why the daemon should get no new clients.
func notReady(s status.Status) string {
	var b strings.Builder
	for _, why := range s.NotReady() {
		fmt.Fprintf(&b, "NOT READY: %s\n", printable(why))
	}
	return b.String()
}

func writeLastReload(w io.Writer, s status.Status, now time.Time) {
	r := s.Reload
	if r == nil {
		fmt.Fprintln(w, "no reload since the start")
		return
	}
	how := "succeeded"
	if r.Error != "" {
		how = "FAILED"
	}
	fmt.Fprintf(w, "last reload %s at %s in %s; %s since the start, %d failed\n", how, moment(r.At, now), short(r.Duration), count(s.Reloads, "reload"), s.FailedReloads)
	if r.Error != "" {
		fmt.Fprintf(w, "  %s\n", printable(r.Error))
	}
	for line := range strings.Lines(r.Diagnostics) {
		if line = printableLines(line); strings.TrimSpace(line) != "" {
			fmt.Fprintf(w, "  %s\n", line)
		}
	}
}

func writeListeners(w io.Writer, listeners []status.Listener, now time.Time) {
	fmt.Fprintln(w, "\nLISTENER\tADDRESS\tTARGET\tCONNECTIONS\tTUNNELS\tCERTIFICATE")
	for _, l := range listeners {
		var tunnels []string
		for _, path := range slices.Sorted(maps.Keys(l.Tunnels)) {
			if n := l.Tunnels[path]; n > 0 {
				tunnels = append(tunnels, fmt.Sprintf("%s %d", path, n))
			}
		}
		row(w, l.ID, strings.Join(l.Addresses, ", "), l.Target, fmt.Sprint(l.Connections), strings.Join(tunnels, ", "), firstToEnd(l.Certificates, now))
	}
	for _, l := range listeners {
		writeFileProblem(w, "listener "+l.ID, l.FileProblem)
	}
}

func writeFileProblem(w io.Writer, block, problem string) {
	if problem != "" {
		fmt.Fprintf(w, "%s, FILE NOT USABLE, its old content stays in use: %s\n", block, printable(problem))
	}
}

func writeUpstreams(w io.Writer, upstreams []status.Upstream, now time.Time) {
	fmt.Fprintln(w, "\nUPSTREAM\tHEALTH\tCONNECTIONS\tCREDENTIAL\tMESSAGE")
	for _, u := range upstreams {
		var credential []string
		if !u.CredentialExpires.IsZero() {
			credential = append(credential, ends(u.CredentialExpires, now))
		}
		if !u.CredentialRenewed.IsZero() {
			credential = append(credential, "renewed "+moment(u.CredentialRenewed, now))
		}
		for _, c := range u.Certificates {
			credential = append(credential, "certificate "+ends(c.NotAfter, now))
		}
		health, message := u.Health, u.Message
		if out := u.Unusable; out != nil {
			health += ", passed over: " + out.Reason
			if !out.Until.IsZero() {
				health += ", until " + moment(out.Until, now)
			}
			message = cmp.Or(message, out.Message)
		}
		row(w, u.ID, health, upstreamConnections(u), strings.Join(credential, ", "), message)
	}
	for _, u := range upstreams {
		writeFileProblem(w, "upstream "+u.ID, u.FileProblem)
	}
}

// firstToEnd says when the first of a listener's certificates does, or did.
func firstToEnd(all []status.Certificate, now time.Time) string {
	if len(all) == 0 {
		return ""
	}
	first := slices.MinFunc(all, func(a, b status.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
	text := ends(first.NotAfter, now)
	if len(all) > 1 {
		text += fmt.Sprintf(", the first of %d", len(all))
	}
	return text
}

// ends says when something does, or did.
func ends(at, now time.Time) string {
	verb := "ends "
	if at.Before(now) {
		verb = "ENDED "
	}
	return verb + moment(at, now)
}

func upstreamConnections(u status.Upstream) string {
	s := fmt.Sprint(u.Connections)
	if u.MaxConnections > 0 {
		s += fmt.Sprintf(" of %d", u.MaxConnections)
	}
	if u.Waiting > 0 {
		s += fmt.Sprintf(", %d waiting", u.Waiting)
	}
	if u.Unreleased > 0 {
		s += fmt.Sprintf(", %d not released by the far end", u.Unreleased)
	}
	return s
}

func writePluginStatus(w io.Writer, plugins []status.Plugin, now time.Time) {
	if len(plugins) == 0 {
		return
	}
	fmt.Fprintln(w, "\nPLUGIN\tVERSION\tSTATUS\tPROCESS\tRESTARTS\tOPEN\tSOURCE")
	for _, p := range plugins {
		state := p.Status + " for " + short(now.Sub(p.Since))
		if p.Retired {
			state += ", retired"
		}
		if !p.NextStart.IsZero() {
			state += ", next start " + moment(p.NextStart, now)
		}
		process := ""
		if p.PID != 0 {
			process = fmt.Sprint(p.PID)
		}
		row(w, p.Name, p.Version, state, process, fmt.Sprint(p.Restarts), fmt.Sprint(p.Open), p.Source)
	}
	for _, p := range plugins {
		if p.LastExit == "" {
			continue
		}
		fmt.Fprintf(w, "plugin %s, last exit: %s\n", printable(p.Name), printable(p.LastExit))
		for line := range strings.Lines(p.LastOutput) {
			fmt.Fprintf(w, "  | %s\n", printableLines(line))
		}
	}
}

func writePump(w io.Writer, s status.Status) {
	p := s.Pump
	fmt.Fprintf(w, "\npump: %s", count(uint64(p.Tunnels), "tunnel"))
	if p.Workers == 0 {
		fmt.Fprintln(w, ", through buffers: this system has no kernel pump")
	} else {
		fmt.Fprintf(w, ", %s\n", count(uint64(p.Workers), "worker"))
		fmt.Fprintf(w, "  pipes: %d in use, %d idle, %d made, %d refused, %d small\n", p.PipesInUse, p.PipesIdle, p.PipesMade, p.PipesRefused, p.PipesSmall)
	}
	if p.Paused > 0 {
		fmt.Fprintf(w, "  waiting for bandwidth: %s\n", count(uint64(p.Paused), "direction"))
	}
	fmt.Fprintf(w, "  buffers: %d in use, %d made\n", p.BuffersInUse, p.BuffersMade)
}

// row writes the cells of a table's row; an empty one is a dash.
func row(w io.Writer, cells ...string) {
	for i, c := range cells {
		cells[i] = cmp.Or(printable(c), "-")
	}
	fmt.Fprintln(w, strings.Join(cells, "\t"))
}

func count(n uint64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// moment is a time and how far away it is: "05:42:00 (in 42m)".
func moment(t, now time.Time) string {
	if d := t.Sub(now); d > 0 {
		return fmt.Sprintf("%s (in %s)", clock(t, now), short(d))
	}
	return fmt.Sprintf("%s (%s ago)", clock(t, now), short(now.Sub(t)))
}

// clock is a time in the zone of now, with its date where that is another.
func clock(t, now time.Time) string {
	t = t.In(now.Location())
	if t.Format(time.DateOnly) == now.Format(time.DateOnly) {
		return t.Format(time.TimeOnly)
	}
	return t.Format(time.DateTime)
}

// short is a duration in its largest unit, or two where one says little.
func short(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Truncate(time.Second).String()
	case d < 10*time.Minute:
		return fmt.Sprintf("%dm%ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%dh", int(d.Hours())/24, int(d.Hours())%24)
}
