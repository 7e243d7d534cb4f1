package engine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/bare"
)

// TestHalfAnAnswer never looks like a whole one.
func TestHalfAnAnswer(t *testing.T) {
	const began = "HTTP/1.1 200 OK\r\n"
	for name, tt := range map[string]struct {
		answer string
		reset  bool // how the server ends
		want   string
	}{
		"a length, reset":           {answer: began + "Content-Length: 10\r\n\r\nhalf", reset: true},
		"a length, closed":          {answer: began + "Content-Length: 10\r\n\r\nhalf"},
		"chunks, reset":             {answer: began + "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", reset: true},
		"chunks, closed":            {answer: began + "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"},
		"chunks, closed within":     {answer: began + "Transfer-Encoding: chunked\r\n\r\n9\r\nhalf"},
		"until the end, reset":      {answer: began + "\r\nhalf", reset: true},
		"no answer, closed":         {want: "502 tunneld; error=connection_terminated"},
		"no answer, reset":          {want: "502 tunneld; error=connection_terminated", reset: true},
		"half a head":               {answer: "HTTP/1.1 200 OK\r\nX: y", want: "502 tunneld; error=connection_terminated"},
		"another protocol":          {answer: "SSH-2.0-OpenSSH_9.2\r\n", want: "502 tunneld; error=connection_terminated"},
		"a huge head":               {answer: began + "X: " + strings.Repeat("x", 200_000) + "\r\n\r\n", want: "502 tunneld; error=connection_terminated"},
		"status 0":                  {answer: "HTTP/1.1 000 Nothing\r\n\r\n", want: "502 tunneld; error=connection_terminated"},
		"another protocol's switch": {answer: "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", want: "502 tunneld; error=connection_terminated"},
	} {
		t.Run(name, func(t *testing.T) {
			site := rawSite(t, func(c *net.TCPConn, r *bufio.Reader) {
				rawHead(r)
				io.WriteString(c, tt.answer)
				if tt.reset {
					time.Sleep(50 * time.Millisecond) // a reset may overtake what comes before it
					bare.Reset(c)
				}
			})
			for _, version := range []string{"1.1", "1.0"} {
				p := startProxy(t, "")
				c := p.dial()
				c.send("GET %s/ HTTP/%s\r\nHost: x\r\n\r\n", site, version)
				res, err := http.ReadResponse(c.r, nil)
				if tt.want != "" {
					if err != nil {
						t.Fatal(err)
					}
					if got := fmt.Sprintf("%d %s", res.StatusCode, res.Header.Get("Proxy-Status")); !strings.HasPrefix(got, tt.want) {
						t.Errorf("%s, want %s", got, tt.want)
					}
					res.Body.Close()
					if line := p.log.Await(t, 1, "msg", "request", "status", "502"); line[0]["err"] == nil {
						t.Errorf("%v", line)
					}
					continue
				}
				if err == nil {
					defer res.Body.Close()
					_, err = io.ReadAll(res.Body)
				}
				if err == nil {
					t.Errorf("HTTP/%s: half an answer is a whole one", version)
				}
				if line := p.log.Await(t, 1, "msg", "request"); line[0]["err"] == nil {
					t.Errorf("%v", line)
				}
			}
		})
	}
}

// TestClientThatLeaves: what is done for it ends.
func TestClientThatLeaves(t *testing.T) {
	leave := map[string]func(*conn){
		"reset":  func(c *conn) { bare.Reset(c.TCPConn) },
		"closed": func(c *conn) { c.Close() },
	}
	for name, leave := range leave {
		for when, send := range map[string]string{
			"while it waits":     "GET %s/ HTTP/1.1\r\nHost: x\r\n\r\n",
			"while it sends":     "POST %s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf",
			"in a chunk":         "POST %s/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf",
			"while it is served": "GET %s/serve HTTP/1.1\r\nHost: x\r\n\r\n",
		} {
			t.Run(name+" "+when, func(t *testing.T) {
				begun, over := make(chan struct{}), make(chan error, 1)
				site := newWebsite(t, func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/serve" {
						io.WriteString(w, "half")
						w.(http.Flusher).Flush()
					}
					close(begun)
					_, err := io.ReadAll(r.Body)
					if err == nil {
						<-r.Context().Done()
						err = r.Context().Err()
					}
					over <- err
				})
				p := startProxy(t, "")
				c := p.dial()
				c.send(send, site.URL)
				<-begun
				leave(c)
				select {
				case err := <-over:
					if err == nil {
						t.Error("the server has a whole request")
					}
				case <-time.After(patience):
					t.Fatal("the server is not told")
				}
				if line := p.log.Await(t, 1, "msg", "request")[0]; line["err"] != "the client has left" {
					t.Errorf("%v", line)
				}
			})
		}
	}
}

// TestSlowHead: a head has the time of the handshake, from its first byte, and each anew.
func TestSlowHead(t *testing.T) {
	p, site := startProxy(t, " timeouts {\n  handshake = \"300ms\"\n }\n"), newWebsite(t, echoing)
	for name, begin := range map[string]string{"a byte": "G", "a method": "GET ", "half a head": "GET http://x/ HTTP/1.1\r\nHost:", "of a second": ""} {
		c := p.dial()
		if begin == "" {
			begin = "GET "
			c.send("GET %s/ HTTP/1.1\r\nHost: x\r\n\r\n", site.URL)
			c.answer("GET")
		}
		c.send("%s", begin)
		res, _ := c.answer("GET")
		if res.StatusCode != http.StatusRequestTimeout || res.Header.Get("Proxy-Status") != "tunneld; error=http_request_error" || !res.Close {
			t.Errorf("%s: %s", name, res.Status)
		}
		c.wantEnd()
	}
	p.log.Await(t, 4, "msg", "client handshake failed", "reason", "timeout")
}

// TestHeadTooLarge is told.
func TestHeadTooLarge(t *testing.T) {
	p := startProxy(t, "")
	for _, head := range []string{"GET http://x/" + strings.Repeat("x", 100_000), "GET http://x/ HTTP/1.1\r\nX: " + strings.Repeat("x", 100_000), "GET http://x/ HTTP/1.1\r\n" + strings.Repeat("X: y\r\n", 20_000)} {
		c := p.dial()
		c.send("%s\r\n\r\n", head)
		if res, body := c.answer("GET"); res.StatusCode != http.StatusRequestHeaderFieldsTooLarge || !strings.Contains(body, "65536") || !res.Close {
			t.Errorf("%s %q", res.Status, body)
		}
		c.wantEnd()
	}
	p.log.Await(t, 3, "msg", "client handshake failed")
}

// TestClientsTime: a connection ends when it is as old as it may be, and when nothing happens
// on it; a server that is silent is given up before its client is.
func TestClientsTime(t *testing.T) {
	silent := newWebsite(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadAll(r.Body)
		<-r.Context().Done()
	})
	t.Run("idle between requests", func(t *testing.T) {
		p, site := startProxy(t, " timeouts {\n  idle = \"200ms\"\n }\n"), newWebsite(t, echoing)
		c := p.dial()
		c.send("GET %s/ HTTP/1.1\r\nHost: x\r\n\r\n", site.URL)
		c.answer("GET")
		c.wantEnd()
	})
	t.Run("a silent server", func(t *testing.T) {
		p := startProxy(t, " timeouts {\n  idle = \"200ms\"\n }\n")
		c := p.dial()
		c.send("GET %s/ HTTP/1.1\r\nHost: x\r\n\r\n", silent.URL)
		if res, body := c.answer("GET"); res.StatusCode != http.StatusGatewayTimeout {
			t.Errorf("%s %q", res.Status, body)
		}
	})
	t.Run("lifetime", func(t *testing.T) {
		p := startProxy(t, " timeouts {\n  lifetime = \"300ms\"\n }\n")
		c := p.dial()
		c.send("GET %s/ HTTP/1.1\r\nHost: x\r\n\r\n", silent.URL)
		if b, err := io.ReadAll(c.r); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%q, %v", b, err)
		}
		if line := p.log.Await(t, 1, "msg", "request")[0]; !strings.Contains(fmt.Sprint(line["err"]), "timeouts.lifetime") {
			t.Errorf("%v", line)
		}
	})
}

// TestPlaceOfAClient: a connection that is kept has one place, and gives it to a newcomer
// while no request is under way.
func TestPlaceOfAClient(t *testing.T) {
	release, asked := make(chan struct{}), make(chan struct{}, 1)
	site := newWebsite(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			asked <- struct{}{}
			<-release
		}
		echoing(w, r)
	})
	p := startProxy(t, " limits {\n  max_connections = 1\n }\n")
	first := p.dial()
	first.send("GET %s/ HTTP/1.1\r\nHost: x\r\n\r\n", site.URL)
	first.answer("GET")
	var second *conn
	for served := false; !served; { // the first may not be idle yet
		second = p.dial()
		second.send("GET %s/wait HTTP/1.1\r\nHost: x\r\n\r\n", site.URL)
		refused := make(chan error, 1)
		go func() {
			_, err := second.r.Peek(1)
			refused <- err
		}()
		select {
		case <-asked:
			served = true
			defer func() { <-refused }()
		case <-refused:
		}
	}
	if b, err := io.ReadAll(first.r); len(b) > 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the idle one: %q, %v", b, err)
	}
	third := p.dial()
	if res, _ := third.answer("GET"); res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("beyond the limit: %s", res.Status)
	}
	close(release)
	p.log.Await(t, 1, "msg", "request", "status", "200", "url", site.URL+"/wait")
	second.Close()
	p.log.Await(t, 1, "msg", "clients in their handshake gave way to newer ones")
}

// TestDrainOfClients: an idle connection ends, and a request under way is answered first,
// where the listener goes, and where the daemon does.
func TestDrainOfClients(t *testing.T) {
	for name, drain := range map[string]func(*testing.T, *proxied) (done <-chan struct{}){
		"reload": func(t *testing.T, p *proxied) <-chan struct{} {
			p.reload(t, strings.Replace(proxyConfig("http", ""), `"p"`, `"q"`, 1))
			done := make(chan struct{})
			close(done)
			return done
		},
		"stop": func(t *testing.T, p *proxied) <-chan struct{} {
			done := make(chan struct{})
			go func() {
				defer close(done)
				if err := p.Stop(context.Background()); err != nil {
					t.Error(err)
				}
			}()
			return done
		},
	} {
		t.Run(name, func(t *testing.T) {
			release, asked := make(chan struct{}), make(chan struct{}, 1)
			site := newWebsite(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/wait" {
					asked <- struct{}{}
					<-release
				}
				echoing(w, r)
			})
			p := startProxy(t, "")
			idle, busy := p.dial(), p.dial()
			idle.send("GET %s/ HTTP/1.1\r\nHost: x\r\n\r\n", site.URL)
			idle.answer("GET")
			busy.send("GET %s/wait HTTP/1.1\r\nHost: x\r\n\r\n", site.URL)
			<-asked
			done := drain(t, p)
			idle.wantEnd()
			p.exchanges.mu.Lock() // until all are told
			p.exchanges.mu.Unlock()
			close(release)
			res, body := busy.answer("GET")
			if res.StatusCode != http.StatusOK || !res.Close {
				t.Errorf("%s %q, closes: %v", res.Status, body, res.Close)
			}
			busy.wantEnd()
			<-done
		})
	}
}

// TestStopBreaksOff: a stop does not wait for a server for ever.
func TestStopBreaksOff(t *testing.T) {
	asked := make(chan struct{})
	silent := newWebsite(t, func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
	})
	p := startProxyWith(t, "daemon { shutdown_timeout = \"100ms\" }\n"+proxyConfig("http", ""))
	c := p.dial()
	c.send("GET %s/ HTTP/1.1\r\nHost: x\r\n\r\n", silent.URL)
	<-asked
	if err := p.Stop(context.Background()); err != nil {
		t.Error(err)
	}
	if b, err := io.ReadAll(c.r); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%q, %v", b, err)
	}
}

// TestServerThatHadEnough: a request that finds its connection closed goes over another one,
// if that is safe.
func TestServerThatHadEnough(t *testing.T) {
	site := rawSite(t, func(c *net.TCPConn, r *bufio.Reader) {
		rawHead(r)
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		rawHead(r) // a second one gets no answer
	})
	c := startProxy(t, "").dial()
	for range 4 {
		c.send("GET %s/ HTTP/1.1\r\nHost: x\r\n\r\n", site)
		if res, body := c.answer("GET"); res.StatusCode != http.StatusOK || body != "ok" {
			t.Fatalf("%s %q", res.Status, body)
		}
	}
	c.send("POST %s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", site)
	if res, _ := c.answer("POST"); res.StatusCode != http.StatusBadGateway {
		t.Errorf("what is not to be repeated: %s", res.Status)
	}
}
