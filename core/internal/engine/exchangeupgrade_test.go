package engine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"

	"github.com/tunneld/tunneld/internal/bare"
)

// upgrading is a server that switches to another protocol, which serve speaks.
func upgrading(t *testing.T, serve func(*net.TCPConn, *bufio.Reader)) (url string) {
	t.Helper()
	return rawSite(t, func(c *net.TCPConn, r *bufio.Reader) {
		head := rawHead(r)
		if text := strings.Join(head, "\n"); !strings.Contains(text, "Upgrade: echo") || !strings.Contains(text, "Connection: Upgrade") {
			t.Errorf("the server gets %q", head)
		}
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade, X-Hop\r\nUpgrade: echo\r\nX-Hop: 1\r\nX-End: 1\r\nKeep-Alive: 1\r\n\r\n")
		serve(c, r)
	})
}

// upgrade is a client that has switched.
func (p *proxied) upgrade(t *testing.T, site string) *conn {
	t.Helper()
	c := p.dial()
	c.t = t
	// What it sends at once is the other protocol's.
	c.send("GET %s/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n", site)
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusSwitchingProtocols || res.Header.Get("Upgrade") != "echo" || res.Header.Get("X-End") != "1" || res.Header.Get("X-Hop")+res.Header.Get("Keep-Alive") != "" {
		t.Fatalf("%+v", res)
	}
	return c
}

// TestUpgrade: behind 101 the client has a tunnel, of which each direction ends by itself.
func TestUpgrade(t *testing.T) {
	site := upgrading(t, func(c *net.TCPConn, r *bufio.Reader) {
		io.WriteString(c, "first ")
		_, _ = io.Copy(c, r)
		io.WriteString(c, " last")
	})
	p := startProxy(t, "")
	c := p.upgrade(t, site)
	c.send("hello")
	b := make([]byte, len("first hello"))
	if _, err := io.ReadFull(c.r, b); err != nil || string(b) != "first hello" {
		t.Fatalf("%q, %v", b, err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(c.r); err != nil || string(rest) != " last" {
		t.Fatalf("%q, %v", rest, err)
	}
	line := p.log.Await(t, 1, "msg", "request", "status", "101")[0]
	if line["err"] != nil {
		t.Errorf("%v", line)
	}
}

// TestUpgradeCutOff: a reset is one on the other side, too, and a stop breaks off.
func TestUpgradeCutOff(t *testing.T) {
	t.Run("the server", func(t *testing.T) {
		site := upgrading(t, func(c *net.TCPConn, r *bufio.Reader) {
			_, _ = r.ReadByte()
			bare.Reset(c)
		})
		c := startProxy(t, "").upgrade(t, site)
		c.send("x")
		if b, err := io.ReadAll(c.r); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%q, %v", b, err)
		}
	})
	ended := make(chan error, 1)
	site := upgrading(t, func(_ *net.TCPConn, r *bufio.Reader) {
		_, err := io.Copy(io.Discard, r)
		ended <- err
	})
	t.Run("the client", func(t *testing.T) {
		p := startProxy(t, "")
		c := p.upgrade(t, site)
		c.send("x")
		bare.Reset(c.TCPConn)
		if err := <-ended; !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%v", err)
		}
	})
	t.Run("a stop", func(t *testing.T) {
		p := startProxyWith(t, "daemon { shutdown_timeout = \"100ms\" }\n"+proxyConfig("http", ""))
		c := p.upgrade(t, site)
		if err := p.Stop(context.Background()); err != nil {
			t.Error(err)
		}
		if b, err := io.ReadAll(c.r); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%q, %v", b, err)
		}
		if err := <-ended; !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%v", err)
		}
	})
}

// TestRequestsThroughAPlugin: whether the bytes are the connection's own or pumped by the
// plugin, an answer comes as a whole, and half of one does not look so.
func TestRequestsThroughAPlugin(t *testing.T) {
	for _, relay := range []bool{false, true} {
		t.Run(fmt.Sprintf("relay %v", relay), func(t *testing.T) {
			p := startProxyWith(t, toyBlocks(t)+fmt.Sprintf("upstream \"toy\" \"x\" {\n relay = %v\n}\nroute \"all\" { upstreams = [upstream.toy.x] }\nlistener \"http\" \"p\" { address = \"127.0.0.1:0\" }\n", relay))
			site := newWebsite(t, echoing)
			read := make(chan struct{})
			half := rawSite(t, func(c *net.TCPConn, r *bufio.Reader) {
				rawHead(r)
				io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nhalf")
				<-read
				bare.Reset(c)
			})
			c := p.dial()
			for range 2 {
				c.send("GET %s/ HTTP/1.1\r\nHost: x\r\n\r\n", site.URL)
				if res, _ := c.answer("GET"); res.StatusCode != http.StatusOK {
					t.Fatalf("%s", res.Status)
				}
			}
			c.send("GET %s/ HTTP/1.1\r\nHost: x\r\n\r\n", half)
			res, err := http.ReadResponse(c.r, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if _, err := io.ReadFull(res.Body, make([]byte, len("half"))); err != nil {
				t.Fatal(err)
			}
			close(read)
			if b, err := io.ReadAll(res.Body); err == nil {
				t.Errorf("half and %q is a whole answer", b)
			}
		})
	}
}

// TestRequestsWithinTLS are served as those in the clear, for the user of the certificate.
func TestRequestsWithinTLS(t *testing.T) {
	d := newTLSDoor(t)
	const alice = "spiffe://corp/alice"
	p := startProxyWith(t, proxyConfig("mixed", fmt.Sprintf(" tls {\n  cert_file = %q\n  key_file = %q\n%s }\n", d.cert, d.key, d.mutual("spiffe://corp/*"))))
	site := newWebsite(t, echoing)
	transport := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "https", Host: p.address}), TLSClientConfig: d.client(alice)}
	t.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport, Timeout: patience}
	for range 2 {
		if res, body := do(t, client, request(t, "POST", site.URL+"/", "hello")); res.StatusCode != http.StatusOK || !strings.HasSuffix(body, " hello") {
			t.Errorf("%s %q", res.Status, body)
		}
	}
	p.log.Await(t, 2, "msg", "request", "listener", "mixed.p", "user", alice)
}
