//go:build interop

package clients

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/proctest"
)

// What clients print where they are reset.
const curlConnect = "curl: (7) Failed to connect to HOST port PORT after N ms: Couldn't connect to server"

var (
	nodeResets = []string{"read ECONNRESET", "write ECONNRESET", "connect ECONNRESET HOST:PORT"}
	javaResets = []string{"java.net.SocketException: Connection reset by peer", "java.net.SocketException: Connection reset"}
)

func curlResets(code string) []string {
	return []string{"curl: (" + code + ") Recv failure: Connection reset by peer", curlConnect}
}

// besidesNetcat is what ssh adds to the words of its ProxyCommand.
var besidesNetcat = []string{"kex_exchange_identification: Connection closed by remote host", "Connection closed by UNKNOWN port 65535"}

// netcatResets: where already the connect is told of the reset, nc has no word for it.
func netcatResets(where string) []string {
	return []string{"nc: " + where + ": Connection reset by peer", strings.Join(besidesNetcat, "; ")}
}

// split splits an address that the test has made.
func split(address string) (host, port string) {
	host, port, _ = net.SplitHostPort(address)
	return host, port
}

// group is the clients of a table.
type group struct {
	name    string
	clients []foreign
}

// foreigners are the clients that speak no TLS.
func foreigners(t *testing.T) []group {
	t.Helper()
	curl, psql, ssh, nc := proctest.Tool(t, "curl"), proctest.Tool(t, "psql"), proctest.Tool(t, "ssh"), proctest.Tool(t, "nc.openbsd")
	py, js, java := python(t), node(t), openJDK(t)
	curls := func(args ...string) func(place) []string {
		return func(p place) []string {
			all := []string{curl, "-q", "-sS", "--max-time", "20", "http://" + p.target}
			if p.user != "" {
				all = append(all, "-U", p.user+":"+p.password)
			}
			return append(append(all, args...), p.listener)
		}
	}
	sshs := func(args ...string) []string {
		return append([]string{ssh, "-F", "none", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20"}, args...)
	}
	netcat := func(version string) func(place) []string {
		return func(p place) []string {
			host, port := split(p.target)
			return sshs("-o", fmt.Sprintf("ProxyCommand=%s -X %s -x %s %%h %%p", nc, version, p.listener), "-p", port, host, "true")
		}
	}
	const psqls = `psql: error: connection to server at "HOST", port PORT failed: `
	socks := func(kind string) func(place) []string {
		return func(p place) []string {
			return []string{js, "client.mjs", kind, p.listener, p.user, p.password, p.target}
		}
	}
	javas := func(version string) func(place) []string {
		return func(p place) []string {
			return append(java, "-DsocksProxyVersion="+version, "Client", "socks", p.listener, p.user, p.password, p.target)
		}
	}
	return []group{
		{"clients of tcp", []foreign{
			{name: "curl", kind: "tcp", argv: func(p place) []string { return []string{curl, "-q", "-sS", "--max-time", "20", "http://" + p.listener} },
				resets: curlResets("56")},
			{name: "psql", kind: "tcp", argv: func(p place) []string {
				host, port := split(p.listener)
				return []string{psql, "host=" + host + " port=" + port + " user=u dbname=d password=p connect_timeout=20", "-c", "select 1"}
			}, besides: []string{"Is the server running on that host and accepting TCP/IP connections?", "This probably means the server terminated abnormally", "before or while processing the request."},
				resets: []string{psqls + "Connection reset by peer", psqls + "server closed the connection unexpectedly"}},
			{name: "ssh", kind: "tcp", argv: func(p place) []string {
				host, port := split(p.listener)
				return sshs("-p", port, host, "true")
			}, resets: []string{"kex_exchange_identification: read: Connection reset by peer; Connection reset by HOST port PORT", "Connection reset by HOST port PORT", "ssh: connect to host HOST port PORT: Connection reset by peer"}},
			{name: "Python's socket", kind: "tcp", argv: func(p place) []string { return []string{py, "sockets.py", "tcp", p.listener} }},
		}},
		{"clients of socks5", []foreign{
			{name: "`curl -x socks5h://…`", kind: "socks5", also: "mixed", argv: curls("--socks5-hostname"), resets: curlResets("97")},
			{name: "`ssh` by `nc -X 5`", kind: "socks5", also: "mixed", argv: netcat("5"), anonymous: true, besides: besidesNetcat, resets: netcatResets("read failed (0/3)")},
			{name: "Node's `socks`", kind: "socks5", argv: socks("socks5"), resets: nodeResets},
			{name: "OpenJDK", kind: "socks5", argv: javas("5"), resets: javaResets},
		}},
		{"clients of http", []foreign{
			{name: "`curl -p -x http://…`", kind: "http", also: "mixed", argv: curls("-p", "-x"), resets: curlResets("56")},
			{name: "`ssh` by `nc -X connect`", kind: "http", also: "mixed", argv: netcat("connect"), anonymous: true, besides: besidesNetcat, resets: netcatResets("proxy read")},
			{name: "Python's `http.client`", kind: "http", argv: func(p place) []string {
				return []string{py, "client.py", p.listener, p.user, p.password, p.target}
			}},
		}},
		{"clients of mixed", []foreign{
			{name: "`curl -x socks4://…`", kind: "mixed", argv: curls("--socks4"), resets: curlResets("97")},
			{name: "`curl -x socks4a://…`", kind: "mixed", argv: curls("--socks4a"), resets: curlResets("97")},
			{name: "`ssh` by `nc -X 4`", kind: "mixed", argv: netcat("4"), anonymous: true, besides: besidesNetcat, resets: netcatResets("read failed (0/8)")},
			{name: "Node's `socks`, `type: 4`", kind: "mixed", argv: socks("socks4"), resets: nodeResets},
			{name: "OpenJDK, `-DsocksProxyVersion=4`", kind: "mixed", argv: javas("4"), resets: javaResets},
		}},
	}
}
