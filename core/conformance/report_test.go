package conformance

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func sample() *Report {
	r := &Report{
		Version: ReportVersion, Tunneld: "1.2.3", Upstream: "acme.kit", Target: "127.0.0.1:7007",
		Plugin:  Plugin{Name: "acme", Source: "/opt/acme", Version: "1.0", Summary: "through ACME's proxy", Path: "relay", NoHalfClose: true},
		Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Seconds: 2.34,
		Notes:   []string{"the far end lacks reset"},
		Summary: map[Result]int{Pass: 0, Fail: 0, Declared: 0, Skipped: 0},
	}
	r.add(Check{ID: "handshake", Group: groupStart, Title: "It starts", Result: Pass, Detail: "ready after 7ms", Seconds: 0.007})
	r.add(Check{ID: "echo", Group: groupDial, Title: "Bytes come back", Result: Fail, Detail: "byte 3\x1b[31m\nand more", Fix: "carry them", Seconds: 0.5})
	r.add(Check{ID: "end", Group: groupEnd, Title: "It announces a clean end", Result: Skipped, Detail: "no tunnel", Seconds: 0})
	return r
}

func TestReportForPeople(t *testing.T) {
	var b strings.Builder
	if err := sample().Write(&b); err != nil {
		t.Fatal(err)
	}
	want := `plugin acme 1.0 (/opt/acme)
  through ACME's proxy
  upstream acme.kit, target 127.0.0.1:7007, path relay
  note: the far end lacks reset

start
  pass      handshake           It starts (0.01s)
            ready after 7ms

dial
  FAIL      echo                Bytes come back (0.50s)
            byte 3 [31m
            and more
            → carry them

how a tunnel ends
  skipped   end                 It announces a clean end (0.00s)
            no tunnel

acme does NOT conform: 1 passed, 1 failed, 0 declared, 1 skipped, in 2.3s
`
	if b.String() != want {
		t.Errorf("got\n%s", b.String())
	}
}

// TestReportFolds: what is skipped for one cause is one line for people.
func TestReportFolds(t *testing.T) {
	r := &Report{Version: ReportVersion, Upstream: "acme.kit", Target: "127.0.0.1:7007", Plugin: Plugin{Name: "acme", Source: "/opt/acme"}, Summary: map[Result]int{}}
	r.add(Check{ID: "handshake", Group: groupStart, Title: "It starts", Result: Fail, Detail: "start plugin:\n\tits words"})
	for _, id := range []string{"info", "schema", "validate", "dial"} {
		r.add(Check{ID: id, Group: groupConfig, Title: "Title", Result: Skipped, Detail: "the plugin does not start"})
	}
	r.add(Check{ID: "secrets", Group: groupLeft, Title: "Title", Result: Skipped, Detail: "no attribute"})
	var b strings.Builder
	if err := r.Write(&b); err != nil {
		t.Fatal(err)
	}
	want := `plugin acme  (/opt/acme)
  upstream acme.kit, target 127.0.0.1:7007

start
  FAIL      handshake           It starts (0.00s)
            start plugin:
             its words

what is left behind
  skipped   secrets             Title (0.00s)
            no attribute

skipped, as the plugin does not start: info, schema, validate, dial

acme does NOT conform: 0 passed, 1 failed, 0 declared, 5 skipped, in 0.0s
`
	if b.String() != want {
		t.Errorf("got\n%s", b.String())
	}
}

// TestReportForPrograms: the names of the JSON are promised.
func TestReportForPrograms(t *testing.T) {
	b, err := json.Marshal(sample())
	if err != nil {
		t.Fatal(err)
	}
	want := `{"version":1,"tunneld":"1.2.3","ok":false,"plugin":{"name":"acme","source":"/opt/acme","version":"1.0","summary":"through ACME's proxy","path":"relay","no_half_close":true},"upstream":"acme.kit","target":"127.0.0.1:7007","started":"2026-01-02T03:04:05Z","seconds":2.34,"notes":["the far end lacks reset"],"checks":[{"id":"handshake","group":"start","title":"It starts","result":"pass","detail":"ready after 7ms","seconds":0.007},{"id":"echo","group":"dial","title":"Bytes come back","result":"fail","detail":"byte 3\u001b[31m\nand more","fix":"carry them","seconds":0.5},{"id":"end","group":"how a tunnel ends","title":"It announces a clean end","result":"skipped","detail":"no tunnel","seconds":0}],"summary":{"declared":0,"fail":1,"pass":1,"skipped":1}}`
	if string(b) != want {
		t.Errorf("got\n%s", b)
	}
}

// TestPageNamesTheChecks: docs/conformance.md has every check, with its title,
// in order.
func TestPageNamesTheChecks(t *testing.T) {
	page, err := os.ReadFile("../../docs/conformance.md")
	if err != nil {
		t.Fatal(err)
	}
	var got [][2]string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\| ([^|]+?) \\|").FindAllStringSubmatch(string(page), -1) {
		got = append(got, [2]string{m[1], m[2]})
	}
	var want [][2]string
	for _, c := range checks {
		want = append(want, [2]string{c.id, c.title})
	}
	if i := slices.IndexFunc(want, func(w [2]string) bool { return !slices.Contains(got, w) }); i >= 0 {
		t.Errorf("the page does not have %q", want[i])
	}
}
