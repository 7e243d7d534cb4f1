package engine

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/nettest"
)

// website is a server that clients reach through the daemon. It knows its connections.
type website struct {
	*httptest.Server
	t *testing.T
}

// newWebsite serves handler.
func newWebsite(t *testing.T, handler http.HandlerFunc) *website {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return &website{s, t}
}

// echoing answers with what it was asked for, and by whom.
func echoing(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("X-From", r.RemoteAddr)
	fmt.Fprintf(w, "%s %s %s %s", r.Method, r.RequestURI, r.Host, body)
}

// proxyConfig is a daemon whose clients may go anywhere.
func proxyConfig(kind, lines string) string {
	return fmt.Sprintf("upstream \"direct\" \"x\" {}\nroute \"all\" { upstreams = [upstream.direct.x] }\nlistener %q \"p\" {\n address = \"127.0.0.1:0\"\n%s%s}\n", kind, nettest.OpenTargets, lines)
}

// proxied is a daemon with one http listener, and what speaks to it.
type proxied struct {
	*rig
	t       *testing.T
	address string
}

func startProxy(t *testing.T, lines string) *proxied {
	t.Helper()
	return startProxyWith(t, proxyConfig("http", lines))
}

func startProxyWith(t *testing.T, config string) *proxied {
	t.Helper()
	r := start(t, nil, func(string) string { return config })
	at, _ := r.at(t, r.Status().Listeners[0].ID)
	return &proxied{r, t, at[0]}
}

// client is Go's own, through the daemon.
func (p *proxied) client(user *url.Userinfo) *http.Client {
	p.t.Helper()
	transport := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", User: user, Host: p.address}), DisableCompression: true}
	p.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

// conn is a client's connection, on which it reads answers.
type conn struct {
	*net.TCPConn
	t *testing.T
	r *bufio.Reader
}

func (p *proxied) dial() *conn {
	p.t.Helper()
	c, err := net.Dial("tcp", p.address)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		p.t.Fatal(err)
	}
	return &conn{c.(*net.TCPConn), p.t, bufio.NewReader(c)}
}

func (c *conn) send(format string, args ...any) {
	c.t.Helper()
	if _, err := fmt.Fprintf(c, format, args...); err != nil {
		c.t.Fatal(err)
	}
}

// answer reads one answer to a request with the method.
func (c *conn) answer(method string) (*http.Response, string) {
	c.t.Helper()
	res, err := http.ReadResponse(c.r, &http.Request{Method: method})
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatalf("%s, %q: %v", res.Status, body, err)
	}
	return res, string(body)
}

// wantEnd expects a clean end, and not a byte before it.
func (c *conn) wantEnd() {
	c.t.Helper()
	if rest, err := io.ReadAll(c.r); err != nil || len(rest) > 0 {
		c.t.Fatalf("%q, %v; want the end", rest, err)
	}
}

func do(t *testing.T, c *http.Client, req *http.Request) (*http.Response, string) {
	t.Helper()
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

func request(t *testing.T, method, url, body string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// TestPlainRequests: Go's client is served by both kinds, and the log has a line for each
// request.
func TestPlainRequests(t *testing.T) {
	for _, kind := range []string{"http", "mixed"} {
		t.Run(kind, func(t *testing.T) {
			p, site := startProxyWith(t, proxyConfig(kind, "")), newWebsite(t, echoing)
			c := p.client(nil)
			for _, tt := range []struct{ method, path, body string }{
				{"GET", "/a?b=%zz;c", ""}, {"POST", "/p%2Fq//r", "hello"}, {"DELETE", "/", ""}, {"PROPFIND", "//x", "<x/>"},
			} {
				res, body := do(t, c, request(t, tt.method, site.URL+tt.path, tt.body))
				want := fmt.Sprintf("%s %s %s %s", tt.method, tt.path, site.Listener.Addr(), tt.body)
				if res.StatusCode != http.StatusOK || body != want || res.Header.Get("Via") != "1.1 tunneld" {
					t.Errorf("%s, %q, %v; want %q", res.Status, body, res.Header, want)
				}
			}
			res, _ := do(t, c, request(t, "HEAD", site.URL+"/", ""))
			if res.StatusCode != http.StatusOK || res.ContentLength <= 0 {
				t.Errorf("HEAD: %+v", res)
			}
			line := p.log.Await(t, 1, "msg", "request", "method", "POST")[0]
			for key, want := range map[string]any{
				"listener": kind + ".p", "route": "all", "upstream": "direct.x", "target": site.Listener.Addr().String(),
				"url": site.URL + "/p%2Fq//r", "status": float64(200), "path": "direct",
			} {
				if line[key] != want {
					t.Errorf("%s is %v, want %v", key, line[key], want)
				}
			}
		})
	}
}

// TestRequestsOfOneConnection go each to its own target. A connection to a target is used
// again while the next request is for the same, and never by another client.
func TestRequestsOfOneConnection(t *testing.T) {
	p, one, other := startProxy(t, ""), newWebsite(t, echoing), newWebsite(t, echoing)
	c := p.dial()
	from := func(c *conn, site *website) string {
		c.send("GET %s/ HTTP/1.1\r\nHost: x\r\n\r\n", site.URL)
		res, body := c.answer("GET")
		if want := "GET / " + site.Listener.Addr().String() + " "; body != want {
			t.Fatalf("%q, want %q", body, want)
		}
		return res.Header.Get("X-From")
	}
	first := from(c, one)
	if again := from(c, one); again != first {
		t.Error("the second request to a target has a connection of its own")
	}
	if from(c, other) == first || from(c, one) == first {
		t.Error("a connection went on while another target was asked")
	}
	last := from(c, one)
	if from(p.dial(), one) == last {
		t.Error("two clients share a connection")
	}
	if lines := p.log.Await(t, 6, "msg", "request"); lines[1]["dial_ms"] != nil || lines[0]["dial_ms"] == nil {
		t.Errorf("%v", lines[:2])
	}
	if text := p.scrape(t); !strings.Contains(text, `tunneld_http_requests_total{code="2xx",listener="http.p"} 6`) {
		t.Error(text)
	}
}

// scrape is what the metrics say.
func (p *proxied) scrape(t *testing.T) string {
	t.Helper()
	w := httptest.NewRecorder()
	p.Engine.metrics.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}

// TestPipelinedRequests are answered in their order, also a CONNECT behind another.
func TestPipelinedRequests(t *testing.T) {
	p, site := startProxy(t, ""), newWebsite(t, echoing)
	c := p.dial()
	c.send("GET %[1]s/1 HTTP/1.1\r\nHost: x\r\n\r\nPOST %[1]s/2 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhelloGET %[1]s/3 HTTP/1.1\r\nHost: x\r\n\r\nCONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", site.URL)
	for i, want := range []string{"GET /1", "POST /2", "GET /3"} {
		if _, body := c.answer("GET"); !strings.HasPrefix(body, want) {
			t.Errorf("%d: %q", i, body)
		}
	}
	if res, body := c.answer("GET"); res.StatusCode != http.StatusBadRequest || !strings.Contains(body, "CONNECT behind another request") {
		t.Errorf("%s: %q", res.Status, body)
	}
}

// TestNotPassedOn: what is wrong in itself is told, and logged; the connection goes on.
func TestNotPassedOn(t *testing.T) {
	p, site := startProxy(t, ""), newWebsite(t, echoing)
	c := p.dial()
	for _, tt := range []struct{ request, want, hint string }{
		{"GET / HTTP/1.1\r\nHost: " + site.Listener.Addr().String(), `for "/", which names no server`, "ask for http://HOST/PATH"},
		{"GET https://x/ HTTP/1.1\r\nHost: x", "https:// URI", "use CONNECT"},
		{"GET HTTPS://x/ HTTP/1.1\r\nHost: x", "https:// URI", "use CONNECT"},
		{"GET ftp://x/ HTTP/1.1\r\nHost: x", `scheme "ftp"`, "ask for http://HOST/PATH"},
		{"GET http:x HTTP/1.1\r\nHost: x", `scheme "http"`, "ask for http://HOST/PATH"},
		{"GET http:///x HTTP/1.1\r\nHost: x", "names no server", "ask for http://HOST/PATH"},
		{"GET http://u:c4n4ry@" + site.Listener.Addr().String() + "/ HTTP/1.1\r\nHost: x", "has a user", "Authorization"},
		{"GET http://a:0/ HTTP/1.1\r\nHost: x", `server "a:0"`, "a port from 1 to 65535"},
		{"GET http://a:65536/ HTTP/1.1\r\nHost: x", `server "a:65536"`, "a port from 1 to 65535"},
		{"GET http://a%20b/ HTTP/1.1\r\nHost: x", "", ""},
		{"OPTIONS * HTTP/1.1\r\nHost: x", `for "*"`, "ask for http://HOST/PATH"},
	} {
		c.send("%s\r\n\r\n", tt.request)
		res, body := c.answer("GET")
		if res.StatusCode != http.StatusBadRequest || res.Header.Get("Proxy-Status") != "tunneld; error=http_request_error" || !strings.Contains(body, tt.want) || !strings.Contains(body, tt.hint) {
			t.Errorf("%q: %s, %q", tt.request, res.Status, body)
		}
		if tt.want == "" {
			c = p.dial()
		}
	}
	p.log.Await(t, 1, "msg", "client handshake failed", "reason", "protocol")
	if text := p.log.String(); strings.Contains(text, "c4n4ry") {
		t.Error("the log has a password")
	}
}

// TestPlainRefusals: what clients read of a target that they do not reach.
func TestPlainRefusals(t *testing.T) {
	site := newWebsite(t, echoing)
	p := startProxyWith(t, fmt.Sprintf("upstream \"direct\" \"x\" {}\nroute \"all\" {\n match {\n  hosts = [\"127.0.0.0/8\"]\n }\n upstreams = [upstream.direct.x]\n}\nlistener \"http\" \"p\" {\n address = \"127.0.0.1:0\"\n allow_targets = [\"127.0.0.0/8\"]\n deny_targets = [\"127.0.0.9\"]\n}\n"))
	c := p.dial()
	for target, want := range map[string]string{
		"http://127.0.0.9/":                      "403 tunneld; error=http_request_denied",
		"http://192.0.2.1/":                      "403 tunneld; error=http_request_denied",
		"http://127.1/":                          "403 tunneld; error=http_request_denied",
		"http://" + nettest.FreeAddress(t) + "/": "502 tunneld; error=connection_refused",
	} {
		c.send("GET %s HTTP/1.1\r\nHost: x\r\n\r\n", target)
		res, body := c.answer("GET")
		if got := fmt.Sprintf("%d %s", res.StatusCode, res.Header.Get("Proxy-Status")); !strings.HasPrefix(got, want) || !strings.Contains(body, "stage: ") {
			t.Errorf("%s: %s, %q", target, got, body)
		}
	}
	c.send("GET %s/ HTTP/1.1\r\nHost: x\r\n\r\n", site.URL)
	if res, _ := c.answer("GET"); res.StatusCode != http.StatusOK {
		t.Errorf("after the refusals: %s", res.Status)
	}
	if lines := p.log.Await(t, 4, "msg", "connection failed"); len(lines) != 4 {
		t.Errorf("%v", lines)
	}
	if lines := p.log.Await(t, 1, "msg", "request"); len(lines) != 1 {
		t.Errorf("refused requests have two lines: %v", lines)
	}
}

// TestEachRequestIsAsked who sends it, and routed by that. Nobody else gets to know.
func TestEachRequestIsAsked(t *testing.T) {
	secret := make(chan http.Header, 16)
	site := newWebsite(t, func(w http.ResponseWriter, r *http.Request) {
		secret <- r.Header
		echoing(w, r)
	})
	p := startProxyWith(t, `upstream "direct" "x" {}
route "alices" {
 match {
  users = ["alice"]
 }
 upstreams = [upstream.direct.x]
}
listener "http" "p" {
 address = "127.0.0.1:0"
 allow_targets = ["127.0.0.0/8"]
 auth {
  users = { alice = "one", bob = "two" }
 }
 limits {
  max_per_user = 1
 }
}
`)
	c := p.dial()
	ask := func(c *conn, user, password string) (int, string) {
		field := ""
		if user != "" {
			r := request(t, "GET", "http://x", "")
			r.SetBasicAuth(user, password)
			field = "Proxy-Authorization: " + r.Header.Get("Authorization") + "\r\n"
		}
		c.send("GET %s/ HTTP/1.1\r\nHost: x\r\n%s\r\n", site.URL, field)
		res, body := c.answer("GET")
		if res.StatusCode == http.StatusProxyAuthRequired && !strings.HasPrefix(res.Header.Get("Proxy-Authenticate"), "Basic ") {
			t.Errorf("407 without a challenge: %v", res.Header)
		}
		return res.StatusCode, body
	}
	for i, tt := range []struct {
		user, password string
		want           int
	}{{"", "", 407}, {"alice", "one", 200}, {"", "", 407}, {"bob", "two", 403}, {"alice", "one", 200}, {"alice", "two", 407}, {"alice", "one", 200}} {
		if got, body := ask(c, tt.user, tt.password); got != tt.want {
			t.Errorf("%d, %s: %d %q, want %d", i, tt.user, got, body, tt.want)
		}
	}
	if got, body := ask(p.dial(), "alice", "one"); got != 503 || !strings.Contains(body, "max_per_user") {
		t.Errorf("beyond max_per_user: %d %q", got, body)
	}
	if got, _ := ask(p.dial(), "bob", "two"); got != 403 {
		t.Errorf("bob is counted among alice's: %d", got)
	}
	for range 3 {
		if h := <-secret; h.Get("Proxy-Authorization") != "" {
			t.Errorf("%v", h)
		}
	}
	if got := p.log.Matching("msg", "request", "user", "alice"); len(got) != 3 {
		t.Errorf("%v", got)
	}
}

// TestReloadBetweenRequests: the next one goes by the new configuration.
func TestReloadBetweenRequests(t *testing.T) {
	p, site := startProxy(t, ""), newWebsite(t, echoing)
	ask := func(c *conn) *http.Response {
		c.send("GET %s/ HTTP/1.1\r\nHost: x\r\n\r\n", site.URL)
		res, _ := c.answer("GET")
		return res
	}
	c := p.dial()
	from := ask(c).Header.Get("X-From")
	_, port := p.at(t, "http.p")
	at := strings.Replace(proxyConfig("http", " auth {\n  users = { alice = \"one\" }\n }\n"), ":0\"", ":"+port+"\"", 1)
	p.reload(t, at)
	if res := ask(c); res.StatusCode != http.StatusProxyAuthRequired {
		t.Errorf("%s, and the listener has asked for a password since", res.Status)
	}
	p.reload(t, strings.Replace(proxyConfig("http", ""), ":0\"", ":"+port+"\"", 1))
	if res := ask(c); res.StatusCode != http.StatusOK || res.Header.Get("X-From") == from {
		t.Errorf("%s, over the connection of another generation", res.Status)
	}
	p.reload(t, strings.Replace(proxyConfig("http", " deny = [\"127.0.0.1\"]\n"), ":0\"", ":"+port+"\"", 1))
	if res := ask(c); res.StatusCode != http.StatusForbidden || !res.Close {
		t.Errorf("%s, and the client is in deny since", res.Status)
	}
	c.wantEnd()
}

// TestPlaceOfAnUpstream: a connection that is kept for a client's next request gives its place
// to one that another client, or its own, needs now.
func TestPlaceOfAnUpstream(t *testing.T) {
	one, other := newWebsite(t, echoing), newWebsite(t, echoing)
	config := strings.Replace(proxyConfig("http", ""), "upstream \"direct\" \"x\" {}", "upstream \"direct\" \"x\" { max_connections = 1 }", 1)
	p := startProxyWith(t, config)
	clients := []*conn{p.dial(), p.dial()}
	for range 3 {
		for _, site := range []*website{one, other} {
			for _, c := range clients {
				c.send("GET %s/ HTTP/1.1\r\nHost: x\r\n\r\n", site.URL)
				if res, body := c.answer("GET"); res.StatusCode != http.StatusOK {
					t.Fatalf("%s %q", res.Status, body)
				}
			}
		}
	}
	if slow := slices.DeleteFunc(p.log.Await(t, 12, "msg", "request"), func(line map[string]any) bool { return line["duration_ms"].(float64) < 10_000 }); len(slow) > 0 {
		t.Errorf("%v", slow)
	}
}
