//go:build interop

package clients

import (
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/pagetest"
	"github.com/tunneld/tunneld/internal/proctest"
)

// clientTLS is how a client speaks TLS.
type clientTLS struct {
	version   string // "1.2" or "1.3"
	alpn      string // empty: none
	ca        string // a file
	cert, key string // files; empty: no certificate
}

// certificates are the files of the test.
type certificates struct {
	server string // lines of a tls block with the listener's certificate
	ca     string // by which it is, and clients have to be
	// clients are certificate and key of a client that may come in, of one by another
	// authority, and of one without a name that may.
	alice, stranger, bob [2]string
}

func newCertificates(t *testing.T) certificates {
	t.Helper()
	a, other := nettest.NewAuthority(t, "authority"), nettest.NewAuthority(t, "another authority")
	cert, key := a.Files(t, &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	client := func(of *nettest.Authority, host, path string) [2]string {
		t.Helper()
		cert, key := of.Files(t, &x509.Certificate{URIs: []*url.URL{{Scheme: "spiffe", Host: host, Path: path}}})
		return [2]string{cert, key}
	}
	return certificates{
		server:   fmt.Sprintf("  cert_file = %q\n  key_file = %q\n", cert, key),
		ca:       a.File(t),
		alice:    client(a, "corp", "/alice"),
		stranger: client(other, "corp", "/alice"),
		bob:      client(a, "elsewhere", "/bob"),
	}
}

// refusals are the rows of the page's table of refusals within TLS, for each version of TLS.
func (c certificates) refusals() (all []refusal) {
	for _, r := range []struct {
		what         string
		lines, after string // in the tls block, and behind it
		client       [2]string
		alpn         string
		only         string // a version
		log          string
	}{
		{what: "its address may not come in, or a limit is reached", client: c.alice, after: " deny = [\"127.0.0.1\"]\n", log: "client may not come in"},
		{what: "it sends no certificate, and `client_ca_file` wants one", log: "didn't provide a certificate"},
		{what: "its certificate is by none of the authorities in `client_ca_file`", client: c.stranger, log: "unknown authority|didn't provide a certificate"},
		{what: "no name of its certificate is in `allow_san`", client: c.bob, log: "spiffe://elsewhere/bob"},
		{what: "it speaks none of the versions from `min_version` on", client: c.alice, lines: "  min_version = \"1.3\"\n", only: "1.2", log: "unsupported versions"},
		{what: "it speaks none of the versions up to `max_version`", client: c.alice, lines: "  max_version = \"1.2\"\n", only: "1.3", log: "unsupported versions"},
		{what: "it shares no protocol of `alpn`", client: c.alice, lines: "  alpn = [\"postgresql\"]\n", alpn: "http/1.1", log: "unsupported application protocols"},
	} {
		for _, version := range []string{"1.2", "1.3"} {
			if r.only != "" && r.only != version {
				continue
			}
			block := fmt.Sprintf(" tls {\n%s  client_ca_file = %q\n  allow_san = [\"spiffe://corp/*\"]\n%s }\n", c.server, c.ca, r.lines)
			shown := version
			if r.only != "" {
				shown = ""
			}
			all = append(all, refusal{
				what: r.what, version: shown, lines: r.after + block, log: r.log,
				tls: clientTLS{version: version, alpn: r.alpn, ca: c.ca, cert: r.client[0], key: r.client[1]},
			})
		}
	}
	return append(all, refusal{what: "the listener speaks no TLS, but what `http` wants", on: "http", tls: clientTLS{version: "1.3", ca: c.ca}, log: "speaks TLS on a listener of kind http"})
}

// TestRefusalsWithinTLS is TestRefusals for clients that speak TLS.
func TestRefusalsWithinTLS(t *testing.T) {
	c := newCertificates(t)
	all := c.refusals()
	for _, what := range whats(pagetest.Part(t, page, "refusals within TLS")) {
		if !strings.HasPrefix(what, "it speaks no TLS, ") && !slices.ContainsFunc(all, func(r refusal) bool { return r.what == what }) {
			t.Errorf("nobody is refused here since %s", what)
		}
	}
	compare(t, tlsClients(t), all)
}

func tlsClients(t *testing.T) group {
	t.Helper()
	curl, openssl, py, js, java := proctest.Tool(t, "curl"), proctest.Tool(t, "openssl"), python(t), node(t), openJDK(t)
	script := func(command ...string) func(place) []string {
		return func(p place) []string {
			argv := append(slices.Clone(command), p.listener, "TLSv"+p.tls.version, p.tls.alpn, p.tls.ca)
			if p.tls.cert != "" {
				argv = append(argv, p.tls.cert, p.tls.key)
			}
			return argv
		}
	}
	return group{"clients within TLS", []foreign{
		{name: "`openssl s_client`", kind: "tcp", argv: func(p place) []string {
			argv := []string{openssl, "s_client", "-connect", p.listener, "-CAfile", p.tls.ca, "-quiet", "-tls" + strings.ReplaceAll(p.tls.version, ".", "_")}
			if p.tls.alpn != "" {
				argv = append(argv, "-alpn", p.tls.alpn)
			}
			if p.tls.cert != "" {
				argv = append(argv, "-cert", p.tls.cert, "-key", p.tls.key)
			}
			return argv
		}, reads: regexp.MustCompile(`SSL routines:[^:]*:([^:\n]+)|(\w+:errno=\d+)`), resets: []string{"write:errno=104", "connect:errno=104"}},
		{name: "`curl https://…`", kind: "tcp", argv: func(p place) []string {
			argv := []string{curl, "-q", "-sS", "--max-time", "20", "https://" + p.listener, "--cacert", p.tls.ca, "--http1.1", "--tlsv" + p.tls.version, "--tls-max", p.tls.version}
			if p.tls.alpn == "" {
				argv = append(argv, "--no-alpn")
			}
			if p.tls.cert != "" {
				argv = append(argv, "--cert", p.tls.cert, "--key", p.tls.key)
			}
			return argv
		}, resets: curlResets("35")},
		{name: "Python's `ssl`", kind: "tcp", argv: script(py, "sockets.py", "tls")},
		{name: "Node's `tls`", kind: "tcp", argv: script(js, "tls.mjs"), reads: regexp.MustCompile(`SSL routines:[^:]*:([^:\n]+)|^([a-z]+ ECONNRESET.*)`), resets: nodeResets},
		{name: "OpenJDK", kind: "tcp", argv: script(append(java, "Client", "tls")...), resets: javaResets},
	}}
}
