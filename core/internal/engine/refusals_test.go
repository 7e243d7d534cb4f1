package engine

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/tunneld/tunneld/core/internal/listen"
	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/pagetest"
	"github.com/tunneld/tunneld/internal/socks5"
)

const troubleshooting = "../../../docs/troubleshooting.md"

// caller is a client of a kind of listener: a column of the table of refusals.
type caller struct {
	kind string
	name string // in the table; empty: the kind's
	// asks is what the client sends at once to be connected to target, as a user unless
	// that is "".
	asks func(t *testing.T, target, user, password string) string
	// hears is the client's word for what it has read, until the connection's end.
	hears func(heard []byte) string
	// noLogin says that its protocol has no password: it never comes in where one is wanted.
	noLogin bool
	// redirect has clients that connect to target reach the listener's port instead; nil:
	// they connect to the listener.
	redirect func(t *testing.T, port, target string)
	// always is all that it ever hears, which another test provokes, in a network of its own;
	// empty: this one does.
	always string
}

// callers are the clients of all kinds.
var callers = []caller{
	{kind: listen.KindTCP, asks: asksTCP, hears: hearsTCP},
	{kind: listen.KindSOCKS5, asks: asksSOCKS5, hears: hearsSOCKS5},
	{kind: listen.KindHTTP, asks: asksHTTP, hears: hearsHTTP},
	{kind: listen.KindMixed, name: "`mixed`, SOCKS4", asks: asksSOCKS4, hears: hearsSOCKS4, noLogin: true},
	{kind: listen.KindMixed, name: "`mixed`, SOCKS5", asks: asksSOCKS5, hears: hearsSOCKS5},
	{kind: listen.KindMixed, name: "`mixed`, HTTP", asks: asksHTTP, hears: hearsHTTP},
	{kind: listen.KindSNI, asks: asksSNI, hears: hearsAlert},
	{kind: listen.KindRedirect, asks: asksTCP, hears: hearsTCP, always: "a reset"},
}

func (c caller) title() string { return cmp.Or(c.name, "`"+c.kind+"`") }

func asksTCP(*testing.T, string, string, string) string { return "" }

func hearsTCP(heard []byte) string { return fmt.Sprintf("%q", heard) }

func asksSOCKS5(t *testing.T, target, user, password string) string {
	t.Helper()
	host, port := splitTarget(t, target)
	method := socks5.MethodNone
	if user != "" {
		method = socks5.MethodUserPass
	}
	b, err := socks5.AppendGreeting(nil, method)
	if err == nil && user != "" {
		b, err = socks5.AppendUserPass(b, socks5.UserPass{Username: user, Password: password})
	}
	if err == nil {
		b, err = socks5.AppendRequest(b, socks5.Request{Command: socks5.Connect, Address: socks5.Address{Host: host, Port: port}})
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func splitTarget(t *testing.T, target string) (host string, port uint16) {
	t.Helper()
	host, digits, err := net.SplitHostPort(target)
	if err == nil {
		_, err = fmt.Sscan(digits, &port)
	}
	if err != nil {
		t.Fatal(err)
	}
	return host, port
}

// hearsSOCKS5 reads methods, the status of the login, and the reply (RFC 1928, sections 3
// and 6; RFC 1929, section 2).
func hearsSOCKS5(heard []byte) string {
	switch {
	case bytes.HasPrefix(heard, []byte{5, 0xff}):
		return "no acceptable method (ff)"
	case len(heard) == 4 && bytes.HasPrefix(heard, []byte{5, 2, 1, 1}):
		return "login refused (01)"
	case bytes.HasPrefix(heard, []byte{5, 2, 1, 0}):
		heard = heard[4:]
	case bytes.HasPrefix(heard, []byte{5, 0}):
		heard = heard[2:]
	}
	if len(heard) != 10 {
		return fmt.Sprintf("% x", heard)
	}
	return fmt.Sprintf("reply %02x, %s", heard[1], socks5.Code(heard[1]).Text())
}

func asksSOCKS4(t *testing.T, target, user, _ string) string {
	t.Helper()
	host, port := splitTarget(t, target)
	ip := netip.MustParseAddr(host).As4()
	return fmt.Sprintf("\x04\x01%s%s%s\x00", []byte{byte(port >> 8), byte(port)}, ip[:], user)
}

// hearsSOCKS4 reads the reply of SOCKS4's document.
func hearsSOCKS4(heard []byte) string {
	if len(heard) != 8 || heard[0] != 0 {
		return fmt.Sprintf("% x", heard)
	}
	return fmt.Sprintf("reply %d", heard[1])
}

func asksHTTP(_ *testing.T, target, user, password string) string {
	field := ""
	if user != "" {
		field = "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password)) + "\r\n"
	}
	return fmt.Sprintf("CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\n%s\r\n", target, field)
}

func hearsHTTP(heard []byte) string {
	res, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(heard)), &http.Request{Method: http.MethodConnect})
	if err != nil {
		return fmt.Sprintf("%q", heard)
	}
	_ = res.Body.Close() // it is in memory
	said := fmt.Sprint(res.StatusCode)
	if _, name, found := strings.Cut(res.Header.Get("Proxy-Status"), "error="); found {
		name, _, _ = strings.Cut(name, ";")
		said += ", " + name
	}
	return said
}

// asksSNI has a name in place of an address; no name for no target. The port is the
// listener's.
func asksSNI(t *testing.T, target, _, _ string) string {
	t.Helper()
	config := &tls.Config{InsecureSkipVerify: true}
	if target != "" {
		host, _ := splitTarget(t, target)
		config.ServerName = map[string]string{"127.0.0.1": "localhost"}[host]
		if config.ServerName == "" {
			config.ServerName = "elsewhere.test"
		}
	}
	return nettest.ClientHello(t, config)
}

// hearsAlert reads an unencrypted alert (RFC 8446, section 6).
func hearsAlert(heard []byte) string {
	if len(heard) != 7 || heard[0] != 0x15 {
		return fmt.Sprintf("% x", heard)
	}
	return "alert " + tls.AlertError(heard[6]).Error()[len("tls: "):]
}

// refused is a way to get no tunnel: a row of the table.
type refused struct {
	what  string
	lines string // in the listener's block
	// first says that another client has its tunnel before.
	first bool
	// garbage says that the client speaks no protocol that tunneld knows, silent that it
	// says nothing and waits. header is a PROXY header that comes before all else, and wanted
	// that the listener wants one.
	garbage, silent bool
	header          string
	wanted          bool
	passwords       bool   // for the kinds that ask for some
	nameless        bool   // for the kinds whose clients name the target by TLS: this one does not
	astray          bool   // for the kinds whose clients do not connect to the listener: this one does
	target          string // empty: the echo service
	named           bool   // for the kinds whose clients name the target
	user            string // and with it the right password, but for stranger's
}

const (
	rightUser = "alice"
	stranger  = "mallory"
	// daemonsAddress is where the daemon's connections come from, and no client's, where
	// clients are redirected and the daemon is not.
	daemonsAddress = "127.0.0.9"
)

// headerUnknown is a PROXY header that does not say where the client is.
const headerUnknown = "PROXY UNKNOWN\r\n"

// refusals are all rows.
func refusals(t *testing.T) []refused {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(canaryPassword), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	file := t.TempDir() + "/users"
	put(t, file, rightUser+":"+string(hash)+"\n")
	asks := fmt.Sprintf(" auth {\n  htpasswd_file = %q\n }\n", file)
	return []refused{
		{what: "its address is in `deny`, or not in `allow`", lines: " deny = [\"127.0.0.1\"]\n"},
		{what: "`max_connections` or `max_per_source` is reached", lines: " limits {\n  max_per_source = 1\n }\n", first: true},
		{what: "`max_per_user` is reached", lines: asks + " limits {\n  max_per_user = 1\n }\n", first: true, passwords: true, user: rightUser},
		{what: "it sends no user and password, and `auth` wants some", lines: asks, passwords: true},
		{what: "its user or password is wrong", lines: asks, passwords: true, user: stranger},
		{what: "it speaks another protocol, which tunneld does not know", lines: "", garbage: true},
		{what: "it names no server in TLS (SNI)", nameless: true},
		{what: "it connects to the listener itself, and was not redirected", astray: true},
		{what: "it is silent until `timeouts.handshake`", lines: " timeouts {\n  handshake = \"100ms\"\n }\n", silent: true},
		{what: "it has to begin with a PROXY header, and does not, or with a wrong one", lines: " proxy_protocol { accept_from = [\"127.0.0.1\"] }\n", header: "PROXY nonsense\r\n", wanted: true},
		{what: "it begins with a PROXY header, and is not in `accept_from`", lines: "", header: headerUnknown},
		{what: "no route takes it", lines: "", target: "192.0.2.1:1", named: true},
		{what: "`allow_targets` or `deny_targets` refuse the target", lines: " deny_targets = [\"127.0.0.0/8\"]\n", named: true},
		{what: "the target refuses the connection", lines: "", target: "closed"},
	}
}

// applies says whether the client can be refused so.
func (f refused) applies(c caller) bool {
	k, _ := listen.FindKind(c.kind)
	switch {
	case f.passwords:
		return k.Passwords && !(f.first && c.noLogin)
	case f.nameless:
		return k.ThroughTLS
	case f.astray:
		return c.kind == listen.KindRedirect
	case f.named:
		return k.NamesTarget
	case f.garbage, f.silent, f.header != "" && !f.wanted:
		return k.Foreign != nil
	}
	return true
}

// provoke has a client refused, and says what it hears.
func (f refused) provoke(t *testing.T, c caller, closed string) string {
	t.Helper()
	r := start(t, nil, func(echo string) string {
		lines, to, bind := f.lines, echo, ""
		if f.target != "" {
			to = closed
		}
		kind, _ := listen.FindKind(c.kind)
		if kind.NamesTarget && !strings.Contains(lines, "_targets") {
			lines += nettest.OpenTargets
		}
		if !kind.NamesTarget {
			lines += fmt.Sprintf(" target = %q\n", to)
		}
		if kind.ThroughTLS {
			_, port := splitTarget(t, to)
			lines += fmt.Sprintf(" port = %d\n", port)
		}
		if c.redirect != nil {
			bind = fmt.Sprintf("bind = %q", daemonsAddress)
		}
		return fmt.Sprintf("upstream \"direct\" \"x\" { %s }\nroute \"all\" {\n match {\n  hosts = [\"127.0.0.1\", \"localhost\"]\n }\n upstreams = [upstream.direct.x]\n}\nlistener %q \"a\" {\n address = \"127.0.0.1:0\"\n%s}\n", bind, c.kind, lines)
	})
	target := cmp.Or(f.target, r.echo)
	if target == "closed" {
		target = closed
	}
	password := canaryPassword
	if f.user == stranger {
		password = "wrong"
	}
	asks := c.asks(t, target, f.user, password)
	switch {
	case f.garbage:
		asks = "\x00\x00\x00\x00"
	case f.nameless:
		asks = c.asks(t, "", "", "")
	case f.silent:
		asks = ""
	}
	asks = f.header + asks
	at, digits := r.at(t, c.kind+".a")
	address := at[0]
	if c.redirect != nil {
		c.redirect(t, digits, target)
		if !f.astray {
			address = target
		}
	}
	if f.first {
		other := dialFrom(t, "127.0.0.1", address)
		if _, err := io.WriteString(other, asks+"hello"); err != nil {
			t.Fatal(err)
		}
		for heard := []byte(nil); !bytes.HasSuffix(heard, []byte("hello")); {
			b := make([]byte, 512)
			n, err := other.Read(b)
			if heard = append(heard, b[:n]...); err != nil {
				t.Fatalf("%q, %v", heard, err)
			}
		}
	}
	// It may be reset so soon that already the connect is told of it.
	conn, err := connect(t.Context(), "127.0.0.1", address)
	var heard []byte
	if err == nil {
		defer conn.Close()
		if _, err = io.WriteString(conn, asks); err == nil {
			heard, err = io.ReadAll(conn)
		}
	}
	switch {
	case len(heard) == 0 && (errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)):
		return "a reset"
	case err != nil:
		t.Fatalf("%q, %v", heard, err)
	case len(heard) == 0:
		return "the end, without a word"
	case f.garbage && bytes.HasPrefix(heard, []byte("HTTP/")):
		return hearsHTTP(heard) // who spoke no protocol is not answered in it
	}
	return c.hears(heard)
}

// TestTableOfRefusals: what clients see of each refusal is what the page says. A kind
// without a column is an error.
func TestTableOfRefusals(t *testing.T) {
	for _, k := range listen.Kinds() {
		if !slices.ContainsFunc(callers, func(c caller) bool { return c.kind == k.Name }) {
			t.Errorf("no client of kind %s is refused here", k.Name)
		}
	}
	var table strings.Builder
	header, rule := "| the client gets no tunnel, since |", "|---|"
	for _, c := range callers {
		header, rule = header+" "+c.title()+" |", rule+"---|"
	}
	table.WriteString(header + "\n" + rule + "\n")
	closed := nettest.FreeAddress(t)
	for _, f := range refusals(t) {
		row := "| " + f.what + " |"
		for _, c := range callers {
			saw := "–"
			switch {
			case !f.applies(c):
			case c.always != "":
				saw = c.always
			default:
				t.Run(c.title()+" "+f.what, func(t *testing.T) { saw = f.provoke(t, c, closed) })
			}
			row += " " + saw + " |"
		}
		table.WriteString(row + "\n")
	}
	pagetest.Generated(t, troubleshooting, "refusals", table.String())
}
