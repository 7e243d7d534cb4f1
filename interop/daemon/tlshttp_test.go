//go:build interop

package daemon

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/proctest"
)

// TestHTTPSInFrontOfHTTP: a tcp listener does the TLS of a web server that has none. curl
// takes either end for that of a page which goes on up to the end of file.
func TestHTTPSInFrontOfHTTP(t *testing.T) {
	curl := proctest.Tool(t, "curl")
	measured := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }))
	defer measured.Close()
	unmeasured := nettest.Serve(t, func(c *net.TCPConn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			_, _ = io.WriteString(c, "HTTP/1.0 200 OK\r\n\r\nhello")
		}
	})
	for _, mode := range []string{"close_notify", "fin"} {
		for name, server := range map[string]struct{ address, reason string }{
			"with a length":         {measured.Listener.Addr().String(), "client_eof"},
			"up to the end of file": {unmeasured, "upstream_eof"},
		} {
			t.Run(name+" "+mode, func(t *testing.T) {
				d, _ := open(t, "tcp", fmt.Sprintf(" target = %q\n", server.address), fmt.Sprintf("  half_close = %q\n", mode)+mutual)
				for _, version := range []string{"1.2", "1.3"} {
					got := says(t, nil, curl, "-sS", "--max-time", "20", "--tls-max", version, "--cacert", d.ca, "--cert", d.cert, "--key", d.key, "https://"+d.address+"/")
					if got != "hello" {
						t.Errorf("TLS %s: %q", version, got)
					}
				}
				d.logs(t, "msg=connection ", "user=spiffe://corp/alice", "reason="+server.reason)
				if got := says(t, nil, curl, "-sS", "--max-time", "20", "--cacert", d.ca, "https://"+d.address+"/"); !strings.Contains(got, "alert certificate required") {
					t.Errorf("without a certificate: %q", got)
				}
			})
		}
	}
}

// TestNodeProxyAgent: https-proxy-agent speaks TLS with a proxy, too.
func TestNodeProxyAgent(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }))
	defer web.Close()
	d, a := open(t, "http", nettest.OpenTargets, mutual)
	get := func(cert, key string) string {
		t.Helper()
		return says(t, nil, proctest.Node(t), "tls.mjs", "proxy", d.address, d.ca, cert, key, web.Listener.Addr().String())
	}
	if got := get(d.cert, d.key); got != "hello200" {
		t.Errorf("%q", got)
	}
	d.logs(t, "msg=connection ", "user=spiffe://corp/alice")
	if got := get(identity(t, a, "spiffe://elsewhere/alice")); !strings.Contains(got, "bad certificate") {
		t.Errorf("a stranger: %q", got)
	}
	d.logs(t, "spiffe://elsewhere/alice")
}
