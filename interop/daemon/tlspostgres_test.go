//go:build interop

package daemon

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/proctest"
)

// psql runs SQL by way of an address.
func psql(t *testing.T, address, sslmode, sql string) string {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return says(t, []string{"PGCONNECT_TIMEOUT=20", "PGSSLMODE=" + sslmode}, proctest.Tool(t, "psql"),
		"-X", "-q", "-A", "-t", "-h", host, "-p", port, "-U", "postgres", "-d", "postgres", "-c", sql)
}

// TestPostgreSQLWithinTLS: a listener does the TLS of a server that has none, for clients that begin
// with TLS and for those behind stunnel. psql, which asks for TLS in PostgreSQL's own way, is
// told what is wrong.
func TestPostgreSQLWithinTLS(t *testing.T) {
	server := postgres(t)
	for _, mode := range []string{"close_notify", "fin"} {
		t.Run(mode, func(t *testing.T) {
			d, _ := open(t, "tcp", fmt.Sprintf(" target = %q\n", server), fmt.Sprintf("  half_close = %q\n  alpn = [\"postgresql\"]\n", mode)+mutual)
			for sslmode, want := range map[string]string{
				"disable": "FATAL:  this port speaks TLS from the first byte\nHINT:  Set sslnegotiation=direct (libpq 17 or later)",
				"prefer":  "server sent an error response during SSL exchange",
				"require": "server sent an error response during SSL exchange",
			} {
				if got := psql(t, d.address, sslmode, "select 1"); !strings.Contains(got, want) {
					t.Errorf("psql with sslmode=%s says %q, want %q", sslmode, got, want)
				}
			}
			d.logs(t, "client handshake failed", "the client begins with PostgreSQL's own protocol", "sslnegotiation=direct")

			address := stunnel(t, d)
			if got := psql(t, address, "disable", "select 6*7"); got != "42" {
				t.Errorf("psql behind stunnel: %q", got)
			}
			const size = 5000000
			if got := psql(t, address, "disable", fmt.Sprintf("select repeat('x', %d)", size)); len(got) != size {
				t.Errorf("a large result has %d bytes", len(got))
			}
			d.logs(t, "msg=connection ", "user=spiffe://corp/alice", "reason=client_eof")

			if got := says(t, nil, proctest.Node(t), "tls.mjs", "sql", d.address, d.ca, d.cert, d.key); got != "421000000" {
				t.Errorf("Node's pg, which begins with TLS: %q", got)
			}
		})
	}
}
