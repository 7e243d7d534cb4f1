package conformance

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tunneld/tunneld/core/conformance/internal/secrets"
	"github.com/tunneld/tunneld/internal/plaintext"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// Result is how a check went.
type Result string

// The results.
const (
	// Pass: what was seen is what the protocol asks for.
	Pass Result = "pass"
	// Fail: it is not.
	Fail Result = "fail"
	// Declared: the plugin says that its protocol cannot.
	Declared Result = "declared"
	// Skipped: it could not be checked here, which is not the plugin's fault.
	Skipped Result = "skipped"
)

// Check is one check of a report.
type Check struct {
	// ID is stable: a released one is neither renamed nor used for another check.
	ID string `json:"id"`
	// Group is the heading that the check is under.
	Group string `json:"group"`
	// Title says in a line what holds where it passes.
	Title string `json:"title"`
	// Result is how it went.
	Result Result `json:"result"`
	// Detail is what was seen, or why it was skipped; may be empty.
	Detail string `json:"detail,omitempty"`
	// Fix is what to do about a failure.
	Fix string `json:"fix,omitempty"`
	// Seconds is how long it took.
	Seconds float64 `json:"seconds"`
}

// ReportVersion is the version of the report's JSON: fields are added within it,
// and nothing is renamed or removed.
const ReportVersion = 1

// Report is the outcome of a run.
type Report struct {
	// Version is ReportVersion.
	Version int `json:"version"`
	// Tunneld is the daemon's version; may be empty.
	Tunneld string `json:"tunneld,omitempty"`
	// OK says that no check failed.
	OK bool `json:"ok"`
	// Plugin is what was tested.
	Plugin Plugin `json:"plugin"`
	// Upstream and Target are those of the options.
	Upstream string `json:"upstream"`
	Target   string `json:"target"`
	// Started is when the run began.
	Started time.Time `json:"started"`
	// Seconds is how long it took.
	Seconds float64 `json:"seconds"`
	// Notes are what the reader has to know about the circumstances.
	Notes []string `json:"notes,omitempty"`
	// Checks are in the order in which they ran.
	Checks []Check `json:"checks"`
	// Summary is how many checks went each way.
	Summary map[Result]int `json:"summary"`
}

// Plugin is the plugin that was tested. All but Name and Source are empty where
// it did not start.
type Plugin struct {
	// Name is the type of its upstreams.
	Name string `json:"name"`
	// Source is "bundled" or the program's path.
	Source string `json:"source"`
	// Version and Summary are as the plugin gives them.
	Version string `json:"version,omitempty"`
	Summary string `json:"summary,omitempty"`
	// Path is "direct" or "relay", as its tunnels go.
	Path string `json:"path,omitempty"`
	// NoHalfClose says that its protocol cannot end one direction alone.
	NoHalfClose bool `json:"no_half_close"`
	// Capabilities are as the plugin names them.
	Capabilities []string `json:"capabilities,omitempty"`
}

func newReport(r *run) *Report {
	source := "bundled"
	if !r.spec.Bundled {
		source = r.spec.Command[0]
	}
	return &Report{
		Version:  ReportVersion,
		Tunneld:  r.opts.Version,
		Plugin:   Plugin{Name: r.spec.Name, Source: source},
		Upstream: r.opts.Upstream,
		Target:   r.opts.Target,
		Started:  time.Now().UTC().Truncate(time.Millisecond),
		Summary:  map[Result]int{Pass: 0, Fail: 0, Declared: 0, Skipped: 0},
	}
}

func (p *Report) add(c Check) {
	p.Checks = append(p.Checks, c)
	p.Summary[c.Result]++
}

func (p *Report) finish(r *run, took time.Duration) {
	p.OK = p.Summary[Fail] == 0 && len(p.Checks) == len(checks)
	p.Seconds = took.Seconds()
	if r.target == nil {
		p.Notes = append(p.Notes, fmt.Sprintf("an echo service is assumed at %s (%s): checks that need more are skipped", p.Target, r.assumed))
	}
	for _, lack := range r.opts.Lacks {
		p.Notes = append(p.Notes, "the far end lacks "+lack+", by --far-end-lacks: checks that need it are skipped")
	}
	if r.unseen != nil {
		p.Notes = append(p.Notes, fmt.Sprintf("what the plugin leaves open is not checked, since its descriptors cannot be inspected: %v", r.unseen))
	}
	if len(r.unsought) > 0 {
		p.Notes = append(p.Notes, fmt.Sprintf("not looked for in what the plugin says, since shorter than %d bytes: %s", secrets.Shortest, strings.Join(slices.Sorted(slices.Values(r.unsought)), ", ")))
	}
	if r.main == nil {
		return
	}
	info := r.main.Info()
	p.Plugin.Version, p.Plugin.Summary, p.Plugin.NoHalfClose = info.GetVersion(), info.GetSummary(), info.GetNoHalfClose()
	p.Plugin.Capabilities = info.GetCapabilities()
	if r.level >= levelDialed {
		p.Plugin.Path = pluginv1.DataPath_DATA_PATH_DIRECT.Text()
		if r.relay {
			p.Plugin.Path = pluginv1.DataPath_DATA_PATH_RELAY.Text()
		}
	}
}

// Failed returns the ids of the checks that failed.
func (p *Report) Failed() []string {
	var ids []string
	for _, c := range p.Checks {
		if c.Result == Fail {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

// Write prints the report for people.
func (p *Report) Write(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "plugin %s %s (%s)\n", p.Plugin.Name, plaintext.Shown(p.Plugin.Version), p.Plugin.Source)
	if p.Plugin.Summary != "" {
		fmt.Fprintf(&b, "  %s\n", plaintext.Shown(p.Plugin.Summary))
	}
	fmt.Fprintf(&b, "  upstream %s, target %s", p.Upstream, p.Target)
	if p.Plugin.Path != "" {
		fmt.Fprintf(&b, ", path %s", p.Plugin.Path)
	}
	b.WriteString("\n")
	for _, n := range p.Notes {
		fmt.Fprintf(&b, "  note: %s\n", plaintext.Shown(n))
	}
	group := ""
	folded, causes := p.folded()
	for _, c := range p.Checks {
		if c.Result == Skipped && folded[c.Detail] != nil {
			continue
		}
		if c.Group != group {
			group = c.Group
			fmt.Fprintf(&b, "\n%s\n", group)
		}
		c.write(&b)
	}
	for _, cause := range causes {
		fmt.Fprintf(&b, "\nskipped, as %s: %s\n", plaintext.Shown(cause), strings.Join(folded[cause], ", "))
	}
	verdict := "conforms"
	if !p.OK {
		verdict = "does NOT conform"
	}
	fmt.Fprintf(&b, "\n%s %s: %d passed, %d failed, %d declared, %d skipped, in %.1fs\n", p.Plugin.Name, verdict,
		p.Summary[Pass], p.Summary[Fail], p.Summary[Declared], p.Summary[Skipped], p.Seconds)
	_, err := io.WriteString(w, b.String())
	return err
}

// folded returns the ids of the checks that were skipped for one cause, where
// there are many of them, and the causes in their order.
func (p *Report) folded() (ids map[string][]string, causes []string) {
	const many = 4
	ids = map[string][]string{}
	for _, c := range p.Checks {
		if c.Result != Skipped {
			continue
		}
		if ids[c.Detail] == nil {
			causes = append(causes, c.Detail)
		}
		ids[c.Detail] = append(ids[c.Detail], c.ID)
	}
	maps.DeleteFunc(ids, func(_ string, of []string) bool { return len(of) < many })
	causes = slices.DeleteFunc(causes, func(cause string) bool { return ids[cause] == nil })
	return ids, causes
}

func (c Check) write(b *strings.Builder) {
	mark := string(c.Result)
	if c.Result == Fail {
		mark = "FAIL"
	}
	fmt.Fprintf(b, "  %-8s  %-18s  %s (%.2fs)\n", mark, c.ID, c.Title, c.Seconds)
	if c.Detail != "" {
		for line := range strings.Lines(c.Detail) {
			fmt.Fprintf(b, "            %s\n", plaintext.Shown(strings.TrimRight(line, "\n")))
		}
	}
	if c.Fix != "" {
		fmt.Fprintf(b, "            → %s\n", c.Fix)
	}
}
