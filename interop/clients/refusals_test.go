//go:build interop

package clients

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/proxy"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/pagetest"
	"github.com/tunneld/tunneld/internal/proctest"
)

const (
	page      = "../../docs/troubleshooting.md"
	rightUser = "alice"
	password  = "right"
	nowhere   = "192.0.2.1:1" // a target that no route takes
)

// refusal is a way to get no tunnel, as the page's table of refusals has it: a row.
type refusal struct {
	what    string
	version string   // of TLS, where there is a row for another one
	lines   string   // in the listener's block
	on      string   // the listener's kind, where it is not the client's
	kinds   []string // of clients; nil: all
	target  string   // empty: a server that answers
	closed  bool     // the target refuses the connection
	first   bool     // another client has its tunnel before
	// user and password of the client. Not all can have some.
	user, password string
	tls            clientTLS
	log            string // what the daemon says then, a regular expression
}

const asks = " auth {\n  users = { alice = \"right\" }\n }\n"

var (
	naming  = []string{"socks5", "http", "mixed"}
	proxies = []string{"socks5", "http"}
)

// refusals are all rows but those for clients that speak nothing that tunneld knows, or
// nothing at all.
var refusals = []refusal{
	{what: "its address is in `deny`, or not in `allow`", lines: " deny = [\"127.0.0.1\"]\n", log: "client may not come in"},
	{what: "`max_connections` or `max_per_source` is reached", lines: " limits {\n  max_per_source = 1\n }\n", first: true, log: "limits.max_per_source: 1 connections are open"},
	{what: "`max_per_user` is reached", lines: asks + " limits {\n  max_per_user = 1\n }\n", first: true, kinds: proxies, user: rightUser, password: password, log: "limits.max_per_user: 1 connections"},
	{what: "it sends no user and password, and `auth` wants some", lines: asks, kinds: naming,
		log: "does not offer to send a password|client asked for user and password|SOCKS4, which has no password|wrong user or password"},
	{what: "its user or password is wrong", lines: asks, kinds: proxies, user: rightUser, password: "wrong", log: "wrong user or password"},
	{what: "no route takes it", kinds: naming, target: nowhere, log: "no route matches"},
	{what: "`allow_targets` or `deny_targets` refuse the target", lines: " deny_targets = [\"127.0.0.0/8\"]\n", kinds: naming, log: "of deny_targets"},
	{what: "the target refuses the connection", closed: true, log: "connection refused"},
}

// strays are rows of this test alone: the page's table has them in other words. within are
// the lines of a listener that speaks TLS.
func strays(within string) []refusal {
	return []refusal{
		{what: "the listener is of kind `http`", on: "http", kinds: []string{"socks5", "mixed"}, log: "on a listener of kind http"},
		{what: "the listener is of kind `socks5`", on: "socks5", kinds: []string{"http", "mixed"}, log: "on a listener of kind socks5"},
		{what: "the listener speaks TLS, and the client does not", lines: within, log: "the client speaks .* without TLS|the client begins with PostgreSQL's own protocol"},
	}
}

// place is where a client finds a listener, and what it asks for there.
type place struct {
	listener, target, user, password string
	tls                              clientTLS
}

// foreign is a client that was not written here: a column.
type foreign struct {
	name string // in the table
	kind string // of the listeners that it comes to
	also string // another kind, where it reads the same
	// argv is the command.
	argv func(place) []string
	// anonymous says that it cannot be given a user and a password.
	anonymous bool
	// besides are lines that it adds, whatever has happened.
	besides []string
	// reads finds in its output what it has to say, a group; nil: all is.
	reads *regexp.Regexp
	// resets are what it prints where it is reset: which of these is a matter of moments.
	resets []string
}

// reset is in what most clients print where they are reset, and in nothing else.
var reset = regexp.MustCompile(`(?i)connection reset|broken pipe|ECONNRESET|EPIPE|errno=(104|32)`)

// varying are numbers behind these words.
var varying = regexp.MustCompile(`(after |_ssl\.c:|OpenSSL/)[\d.]+`)

// says runs the client and returns what it has to say, without what differs from run to run.
func (f foreign) says(t *testing.T, p place) string {
	t.Helper()
	argv := f.argv(p)
	out := said(t, argv[0], argv[1:]...)
	if f.reads != nil {
		m := f.reads.FindStringSubmatch(out)
		if m == nil {
			t.Fatalf("%s says nothing that is known:\n%s", f.name, out)
		}
		out = strings.Join(m[1:], "")
	}
	host, port, err := net.SplitHostPort(p.listener)
	if err != nil {
		t.Fatal(err)
	}
	asked, _, _ := strings.Cut(p.target, ":")
	out = strings.NewReplacer(host, "HOST", asked, "HOST", port, "PORT", "nc.openbsd: ", "nc: ").Replace(out)
	out = varying.ReplaceAllString(out, "${1}N")
	var lines []string
	for line := range strings.Lines(out) {
		lines = append(lines, strings.TrimSpace(line))
	}
	if own := slices.DeleteFunc(slices.Clone(lines), func(line string) bool { return slices.Contains(f.besides, line) }); len(own) > 0 {
		lines = own
	}
	text := strings.Join(lines, "; ")
	if len(f.resets) > 0 && (reset.MatchString(text) || slices.Contains(f.resets, text)) {
		return "`" + strings.Join(f.resets, "`, or `") + "`"
	}
	return "`" + text + "`"
}

// gate is a daemon with a listener for each refusal of one client.
type gate struct {
	daemon *proctest.Process
	places map[string]place // by the listener's name
	config strings.Builder
}

// add writes a listener.
func (g *gate) add(t *testing.T, name, kind, lines string, p place) {
	t.Helper()
	p.listener = nettest.FreeAddress(t)
	switch {
	case kind == "tcp":
		lines += fmt.Sprintf(" target = %q\n", p.target)
	case !strings.Contains(lines, "_targets"):
		lines += nettest.OpenTargets
	}
	g.places[name] = p
	fmt.Fprintf(&g.config, "listener %q %q {\n address = %q\n%s}\n", kind, name, p.listener, lines)
}

// open starts the daemon.
func (g *gate) open(t *testing.T) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tunneld.hcl")
	const rest = "log {\n level = \"debug\"\n}\nupstream \"direct\" \"d\" {}\nroute \"r\" {\n match {\n  hosts = [\"127.0.0.1\"]\n }\n upstreams = [upstream.direct.d]\n}\n"
	if err := os.WriteFile(file, []byte(rest+g.config.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	g.daemon = proctest.Start(t, exec.Command(proctest.Tunneld(t), "run", "-c", file))
	g.logs(t, len(g.places), "msg=listening")
}

// logs waits until the log has so many lines with a text.
func (g *gate) logs(t *testing.T, n int, text string) {
	t.Helper()
	pattern := regexp.MustCompile(text)
	for deadline := time.Now().Add(patience); len(pattern.FindAllString(g.daemon.Output(), -1)) < n; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the log has not %d times %s", n, pattern)
		}
	}
}

// occupy has another client's tunnel through a listener.
func occupy(t *testing.T, kind string, p place) {
	t.Helper()
	var conn net.Conn
	var err error
	switch kind {
	case "socks5", "mixed":
		var login *proxy.Auth
		if p.user != "" {
			login = &proxy.Auth{User: p.user, Password: p.password}
		}
		var d proxy.Dialer
		if d, err = proxy.SOCKS5("tcp", p.listener, login, proxy.Direct); err == nil {
			conn, err = d.Dial("tcp", p.target)
		}
	case "http":
		if conn, err = net.Dial("tcp", p.listener); err == nil {
			req := &http.Request{Method: http.MethodConnect, Host: p.target, URL: &url.URL{Opaque: p.target}, Header: http.Header{}}
			if p.user != "" {
				req.SetBasicAuth(p.user, p.password)
				req.Header.Set("Proxy-Authorization", req.Header.Get("Authorization"))
			}
			if err = req.Write(conn); err == nil {
				_, err = http.ReadResponse(bufio.NewReader(conn), req)
			}
		}
	default:
		conn, err = net.Dial("tcp", p.listener)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	b := []byte("hello")
	if _, err = conn.Write(b); err == nil {
		_, err = io.ReadFull(conn, b)
	}
	if err != nil || string(b) != "hello" {
		t.Fatalf("another client's tunnel: %q, %v", b, err)
	}
}

// row is what each client says of a refusal; empty: it cannot be refused so.
type row struct {
	of    []refusal
	cells []string
}

// title has a version of TLS only where the other one has a row of its own.
func (r row) title() string {
	var parts []string
	for _, one := range r.of {
		part := one.what
		if one.version != "" && !slices.ContainsFunc(r.of, func(o refusal) bool { return o.what == one.what && o.version != one.version }) {
			part += ", TLS " + one.version
		}
		if !slices.Contains(parts, part) {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, "; ")
}

// joins says whether no client tells the two apart, and some client has met both.
func (r row) joins(other row) bool {
	both := false
	for i, cell := range r.cells {
		if cell != "" && other.cells[i] != "" {
			if cell != other.cells[i] {
				return false
			}
			both = true
		}
	}
	return both
}

// table has the rows that no client tells apart in one.
func table(clients []foreign, rows []row) string {
	var joined []row
	for _, r := range rows {
		i := slices.IndexFunc(joined, r.joins)
		if i < 0 {
			joined = append(joined, r)
			continue
		}
		joined[i].of = append(joined[i].of, r.of...)
		for j, cell := range r.cells {
			joined[i].cells[j] = cmp.Or(joined[i].cells[j], cell)
		}
	}
	var b strings.Builder
	b.WriteString("| the client gets no tunnel, since |")
	for _, f := range clients {
		b.WriteString(" " + f.name + " |")
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(clients)) + "\n")
	for _, r := range joined {
		b.WriteString("| " + r.title() + " |")
		for _, cell := range r.cells {
			b.WriteString(" " + cmp.Or(cell, "–") + " |")
		}
		b.WriteString("\n")
	}
	return b.String()
}

// meets says whether the client can be refused so.
func (f foreign) meets(r refusal) bool {
	return (r.kinds == nil || slices.Contains(r.kinds, f.kind)) && !(f.anonymous && r.user != "")
}

// cells are what the client says of each refusal.
func (f foreign) cells(t *testing.T, all []refusal) []string {
	t.Helper()
	echo, closed := nettest.Serve(t, nettest.Echo), nettest.FreeAddress(t)
	g := &gate{places: map[string]place{}}
	each := func(do func(i int, name, kind string, r refusal)) {
		for i, r := range all {
			if !f.meets(r) {
				continue
			}
			do(i, fmt.Sprintf("l%d", i), cmp.Or(r.on, f.kind), r)
			if f.also != "" && r.on == "" {
				do(i, fmt.Sprintf("also%d", i), f.also, r)
			}
		}
	}
	each(func(_ int, name, kind string, r refusal) {
		p := place{target: cmp.Or(r.target, echo), user: r.user, password: r.password, tls: r.tls}
		if r.closed {
			p.target = closed
		}
		g.add(t, name, kind, r.lines, p)
	})
	g.open(t)
	cells := make([]string, len(all))
	each(func(i int, name, kind string, r refusal) {
		p := g.places[name]
		if r.first {
			occupy(t, kind, p)
		}
		cell := f.says(t, p)
		if cells[i] != "" && cells[i] != cell {
			t.Errorf("%s, %s: %s on a listener of kind %s, and %s on one of kind %s", f.name, r.what, cells[i], f.kind, cell, kind)
		}
		cells[i] = cell
		id := `listener=` + kind + `\.` + name + `\b`
		g.logs(t, 1, fmt.Sprintf("(%s).*%s|%[2]s.*(%[1]s)", r.log, id))
	})
	return cells
}

// TestRefusals: what each client says of each refusal is what the page says. A refusal of
// the page's table that nobody tries here is an error.
func TestRefusals(t *testing.T) {
	untried := []string{"it speaks another protocol, which tunneld does not know", "it is silent until `timeouts.handshake`"}
	for _, what := range whats(pagetest.Part(t, page, "refusals")) {
		if !slices.ContainsFunc(refusals, func(r refusal) bool { return r.what == what }) && !slices.Contains(untried, what) {
			t.Errorf("nobody is refused here since %s", what)
		}
	}
	within := " tls {\n" + newCertificates(t).server + " }\n"
	all := slices.Concat(refusals, strays(within))
	for _, g := range foreigners(t) {
		compare(t, g, all)
	}
}

// whats are the rows of a table, but its head.
func whats(table string) (all []string) {
	for line := range strings.Lines(table) {
		what, _, _ := strings.Cut(strings.TrimPrefix(line, "| "), " |")
		all = append(all, what)
	}
	return all[2:]
}

// compare has the clients of a group refused, and compares their table with the page's.
func compare(t *testing.T, g group, all []refusal) {
	t.Helper()
	cells := make([][]string, len(g.clients))
	tried := t.Run(g.name, func(t *testing.T) {
		for i, f := range g.clients {
			t.Run(f.name, func(t *testing.T) {
				t.Parallel()
				cells[i] = f.cells(t, all)
			})
		}
	})
	if !tried {
		return
	}
	var rows []row
	for i, r := range all {
		now := row{of: []refusal{r}}
		for _, c := range cells {
			now.cells = append(now.cells, c[i])
		}
		if slices.ContainsFunc(now.cells, func(c string) bool { return c != "" }) {
			rows = append(rows, now)
		}
	}
	pagetest.Generated(t, page, g.name, table(g.clients, rows))
}
