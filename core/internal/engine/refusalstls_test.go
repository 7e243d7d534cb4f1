package engine

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"syscall"
	"testing"

	"github.com/tunneld/tunneld/core/internal/listen"
	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/pagetest"
)

// TestTableOfRefusalsWithinTLS: what clients see of a listener that speaks TLS, whatever its
// kind, is what the page says.
func TestTableOfRefusalsWithinTLS(t *testing.T) {
	d := newTLSDoor(t)
	const alice = "spiffe://corp/alice"
	foreign := nettest.NewAuthority(t, "another authority")
	u, err := url.Parse(alice)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := tls.X509KeyPair(foreign.Issue(t, &x509.Certificate{URIs: []*url.URL{u}}))
	if err != nil {
		t.Fatal(err)
	}
	table := "| the client gets no tunnel, since | TLS 1.2 | TLS 1.3 |\n|---|---|---|\n"
	for _, row := range []struct {
		what         string
		lines, after string // in the tls block, and behind it
		user         string
		change       func(*tls.Config)
		only         uint16 // the version of such a client; 0: any
	}{
		{what: "it sends no certificate, and `client_ca_file` wants one"},
		{what: "its certificate is by none of the authorities in `client_ca_file`", change: func(c *tls.Config) {
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &stranger, nil }
		}},
		{what: "no name of its certificate is in `allow_san`", user: "spiffe://other/bob"},
		{what: "it sends certificates of more than 16 KiB", user: alice, change: d.shows(60)},
		{what: "its certificates take more than 64 KiB of memory", user: alice, change: d.shows(25)},
		{what: "it speaks none of the versions from `min_version` on", user: alice, lines: "  min_version = \"1.3\"\n", only: tls.VersionTLS12},
		{what: "it speaks none of the versions up to `max_version`", user: alice, lines: "  max_version = \"1.2\"\n", only: tls.VersionTLS13},
		{what: "it shares no protocol of `alpn`", user: alice, lines: "  alpn = [\"h2\"]\n", change: func(c *tls.Config) { c.NextProtos = []string{"imap"} }},
		{what: "its address may not come in, or a limit is reached", user: alice, after: " deny = [\"127.0.0.1\"]\n"},
	} {
		table += "| " + row.what + " |"
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			saw := "–"
			if row.only == 0 || row.only == version {
				r := start(t, nil, func(echo string) string {
					return d.config(echo, d.mutual("spiffe://corp/*")+row.lines, row.after)
				})
				c := d.client(row.user)
				c.MinVersion, c.MaxVersion = version, version
				if row.change != nil {
					row.change(c)
				}
				saw = d.refusal(r, c)
			}
			table += " " + saw + " |"
		}
		table += "\n"
	}
	r := start(t, nil, func(echo string) string { return d.config(echo, d.mutual("spiffe://corp/*"), "") })
	for _, c := range callers {
		k, _ := listen.FindKind(c.kind)
		if k.ThroughTLS || c.name != "" && !c.noLogin {
			continue // it does, or it is the same as the kind's that has the protocol alone
		}
		if asks := c.asks(t, r.echo, "", ""); asks != "" {
			table += fmt.Sprintf("| it speaks no TLS, but what %s wants | %s, unencrypted | |\n", c.title(), d.plain(r, c, asks))
		}
	}
	table += fmt.Sprintf("| it speaks no TLS, but PostgreSQL's protocol | %s, unencrypted | |\n",
		d.plain(r, caller{hears: func(heard []byte) string {
			_, text, _ := strings.Cut(string(heard), "\x00M")
			text, _, _ = strings.Cut(text, "\x00")
			return fmt.Sprintf("ErrorResponse %q", text)
		}}, "\x00\x00\x00\x08\x04\xd2\x16\x2f"))
	for _, row := range []struct{ what, asks string }{
		{"it begins as SSL 2.0", "\x80\x1c\x01\x03\x01\x00\x03\x00\x00\x00\x10\x00\x00\x2f" + strings.Repeat("r", 16)},
		{"it speaks SSL 3.0 at most", "\x16\x03\x00\x00\x2d\x01\x00\x00\x29\x03\x00" + strings.Repeat("r", 32) + "\x00\x00\x02\x00\x2f\x01\x00"},
		{"it speaks no TLS, and nothing that tunneld knows", "\x00\x00\x00\x00"},
	} {
		table += fmt.Sprintf("| %s | %s, unencrypted | |\n", row.what, d.plain(r, caller{hears: hearsAlert}, row.asks))
	}
	pagetest.Generated(t, troubleshooting, "refusals within TLS", table)
}

// shows has a client send that many certificates behind its own.
func (d *tlsDoor) shows(many int) func(*tls.Config) {
	return func(c *tls.Config) {
		for range many {
			c.Certificates[0].Certificate = append(c.Certificates[0].Certificate, d.authority.Certificate.Raw)
		}
	}
}

// refusal is what a client of every kind of listener hears, in words.
func (d *tlsDoor) refusal(r *rig, c *tls.Config) (saw string) {
	d.t.Helper()
	for _, id := range []string{"tcp.t", "socks5.s", "http.h"} {
		at, _ := r.at(d.t, id)
		raw, err := connect(d.t.Context(), "127.0.0.1", at[0])
		if err == nil {
			defer raw.Close()
			conn := tls.Client(raw, c)
			if err = conn.Handshake(); err == nil {
				_, err = bufio.NewReader(conn).ReadByte() // TLS 1.3 tells the client later
			}
		}
		var op *net.OpError
		now := "a reset"
		switch {
		case errors.As(err, &op) && op.Op == "remote error":
			now = "alert " + strings.TrimPrefix(op.Err.Error(), "tls: ")
		case !errors.Is(err, syscall.ECONNRESET):
			d.t.Fatalf("%s: %v", id, err)
		}
		if saw != "" && saw != now {
			d.t.Fatalf("%s: %s, and another kind %s", id, now, saw)
		}
		saw = now
	}
	return saw
}

// plain is what a client without TLS hears that asks.
func (d *tlsDoor) plain(r *rig, c caller, asks string) string {
	d.t.Helper()
	at, _ := r.at(d.t, "tcp.t")
	conn := dialFrom(d.t, "127.0.0.1", at[0])
	if _, err := io.WriteString(conn, asks); err != nil {
		d.t.Fatal(err)
	}
	heard, err := io.ReadAll(conn)
	if err != nil {
		d.t.Fatalf("%q, %v", heard, err)
	}
	return c.hears(heard)
}
