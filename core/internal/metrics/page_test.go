package metrics

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"

	"github.com/tunneld/tunneld/internal/pagetest"
)

const page = "../../../docs/metrics.md"

// TestPage holds the table of docs/metrics.md against the metrics.
func TestPage(t *testing.T) {
	var table strings.Builder
	table.WriteString("| metric | type | labels | what |\n|---|---|---|---|\n")
	for _, f := range families(t) {
		labels := map[string]bool{}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				labels["`"+l.GetName()+"`"] = true
			}
		}
		var names []string
		for l := range labels {
			names = append(names, l)
		}
		slices.Sort(names)
		fmt.Fprintf(&table, "| `%s` | %s | %s | %s |\n", f.GetName(), strings.ToLower(f.GetType().String()), strings.Join(names, ", "), f.GetHelp())
	}
	pagetest.Generated(t, page, "metrics", table.String())
}

// TestDashboardAndAlerts: they name metrics that there are.
func TestDashboardAndAlerts(t *testing.T) {
	known := map[string]bool{}
	for _, f := range families(t) {
		known[f.GetName()] = true
		if f.GetType() == dto.MetricType_HISTOGRAM {
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				known[f.GetName()+suffix] = true
			}
		}
	}
	used := map[string]bool{}
	for _, file := range []string{"dashboard.json", "alerts.yml"} {
		text, err := os.ReadFile("../../../examples/grafana/" + file)
		if err != nil {
			t.Fatal(err)
		}
		found := regexp.MustCompile(`tunneld_[a-z_]+`).FindAllString(string(text), -1)
		if len(found) == 0 {
			t.Errorf("%s uses no metric", file)
		}
		for _, name := range found {
			used[name] = true
			if !known[name] {
				t.Errorf("%s: there is no metric %s", file, name)
			}
		}
	}
	if len(used) < 15 {
		t.Errorf("only %d metrics are shown", len(used))
	}
}
