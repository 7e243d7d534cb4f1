package engine

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/nettest"
)

// rawSite is a server that says what a test wants of it, byte by byte.
func rawSite(t *testing.T, serve func(c *net.TCPConn, r *bufio.Reader)) (url string) {
	t.Helper()
	return "http://" + nettest.Serve(t, func(c *net.TCPConn) {
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			return
		}
		serve(c, bufio.NewReader(c))
	})
}

// rawHead reads the lines of a request up to the empty one.
func rawHead(r *bufio.Reader) (lines []string) {
	for {
		line, err := r.ReadString('\n')
		if line = strings.TrimRight(line, "\r\n"); err != nil || line == "" {
			return lines
		}
		lines = append(lines, line)
	}
}

// TestFieldsOfOneHop do not go further, either way.
func TestFieldsOfOneHop(t *testing.T) {
	heads := make(chan []string, 1)
	site := rawSite(t, func(c *net.TCPConn, r *bufio.Reader) {
		heads <- rawHead(r)
		io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\nConnection: X-Hint\r\nX-Hint: 1\r\nKeep-Alive: 1\r\nProxy-Authenticate: Basic\r\n\r\n"+
			"HTTP/1.1 200 OK\r\nConnection: X-Mine\r\nX-Mine: 1\r\nX-End: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nProxy-Connection: x\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nok")
	})
	p := startProxy(t, "")
	c := p.dial()
	c.send("GET %s/ HTTP/1.1\r\nHost: elsewhere:1\r\nConnection: X-Hop, keep-alive\r\nX-Hop: 1\r\nX-End: 1\r\nKeep-Alive: 1\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic eDp5\r\nTE: gzip, trailers\r\nUpgrade: h2c\r\nForwarded: for=1.2.3.4\r\nX-Forwarded-For: 1.2.3.4\r\nCookie: a=b\r\n\r\n", site)
	early, err := http.ReadResponse(c.r, &http.Request{Method: "GET"})
	if err != nil || early.StatusCode != http.StatusEarlyHints {
		t.Fatalf("%+v, %v", early, err)
	}
	if got := fmt.Sprint(early.Header); got != "map[Link:[</x>]]" {
		t.Errorf("103 with %s", got)
	}
	res, body := c.answer("GET")
	for _, name := range []string{"X-Mine", "Keep-Alive", "Proxy-Authenticate", "Proxy-Connection", "Upgrade", "Connection", "Content-Type"} {
		if v := res.Header.Values(name); v != nil {
			t.Errorf("%s: %q", name, v)
		}
	}
	if res.Header.Get("X-End") != "1" || res.Header.Get("Via") != "1.1 tunneld" || body != "ok" || res.Close {
		t.Errorf("%v, %q", res.Header, body)
	}
	head := <-heads
	want := []string{"GET / HTTP/1.1", "Cookie: a=b", "Forwarded: for=1.2.3.4", "Host: " + strings.TrimPrefix(site, "http://"), "Te: trailers", "Via: 1.1 tunneld", "X-End: 1", "X-Forwarded-For: 1.2.3.4"}
	slices.Sort(head[1:])
	if !slices.Equal(head, want) {
		t.Errorf("the server gets %q\nwant %q", head, want)
	}
}

// TestSmuggling: what two parties may read in two ways is not passed on so, and nothing behind
// it is taken for a request.
func TestSmuggling(t *testing.T) {
	type seen struct {
		head []string
		rest string
	}
	requests := make(chan seen, 8)
	site := rawSite(t, func(c *net.TCPConn, r *bufio.Reader) {
		head := rawHead(r)
		s := seen{head: head}
		if slices.Contains(head, "Transfer-Encoding: chunked") {
			for !strings.HasSuffix(s.rest, "0\r\n\r\n") {
				b, err := r.ReadByte()
				if err != nil {
					break
				}
				s.rest += string(b)
			}
		}
		requests <- s
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		_, _ = r.ReadByte() // until the daemon closes
	})
	host := strings.TrimPrefix(site, "http://")
	const more = "GET http://127.0.0.1:1/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
	p := startProxy(t, "")
	for name, tt := range map[string]struct {
		send   string
		status int
		head   string // of the lines that the server gets, one
		body   string // that it gets
		closes bool
	}{
		"a length and chunks":     {send: "POST " + site + "/ HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n" + more, status: 200, body: "2\r\nab\r\n0\r\n\r\n", closes: true},
		"chunks of HTTP/1.0":      {send: "POST " + site + "/ HTTP/1.0\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n" + more, status: 200, closes: true},
		"another coding":          {send: "POST " + site + "/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n" + more, status: 501, closes: true},
		"two codings":             {send: "POST " + site + "/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n" + more, status: 501, closes: true},
		"lengths that disagree":   {send: "POST " + site + "/ HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 0\r\n\r\n" + more, status: 400, closes: true},
		"a length with a sign":    {send: "POST " + site + "/ HTTP/1.1\r\nHost: x\r\nContent-Length: +4\r\n\r\n" + more, status: 400, closes: true},
		"a space before a colon":  {send: "POST " + site + "/ HTTP/1.1\r\nHost: x\r\nContent-Length : 4\r\n\r\n" + more, status: 400, closes: true},
		"two hosts":               {send: "GET " + site + "/ HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n" + more, status: 400, closes: true},
		"no host":                 {send: "GET " + site + "/ HTTP/1.1\r\n\r\n" + more, status: 400, closes: true},
		"another host":            {send: "GET " + site + "/ HTTP/1.1\r\nHost: 127.0.0.1:1\r\nConnection: close\r\n\r\n", status: 200, head: "Host: " + host, closes: true},
		"a folded field":          {send: "GET " + site + "/ HTTP/1.1\r\nHost: x\r\nX: a\r\n b: c\r\nConnection: close\r\n\r\n", status: 200, head: "X: a b: c", closes: true},
		"bare line feeds":         {send: "GET " + site + "/ HTTP/1.1\nHost: x\nX: y\nConnection: close\n\n", status: 200, head: "X: y", closes: true},
		"a bare carriage return":  {send: "GET " + site + "/ HTTP/1.1\r\nHost: x\r\nX: a\rTransfer-Encoding: chunked\r\n\r\n" + more, status: 400, closes: true},
		"a zero in a field":       {send: "GET " + site + "/ HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n" + more, status: 400, closes: true},
		"a chunk with a bare LF":  {send: "POST " + site + "/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\nab\r\n0\r\n\r\n" + more, status: 400, closes: true},
		"the length is for a hop": {send: "POST " + site + "/ HTTP/1.1\r\nHost: x\r\nConnection: Content-Length, close\r\nContent-Length: 2\r\n\r\nab", status: 200, head: "Content-Length: 2", closes: true},
		"HTTP/2":                  {send: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", status: 505, closes: true},
		"HTTP/0.9":                {send: "GET " + site + "/\r\n" + more, status: 400, closes: true},
		"an expectation":          {send: "GET " + site + "/ HTTP/1.1\r\nHost: x\r\nExpect: the-unexpected\r\n\r\n" + more, status: 417, closes: true},
	} {
		t.Run(name, func(t *testing.T) {
			c := p.dial()
			c.t = t
			c.send("%s", tt.send)
			res, body := c.answer("POST")
			if res.StatusCode != tt.status || res.Close != tt.closes {
				t.Fatalf("%s, closes: %v, %q", res.Status, res.Close, body)
			}
			c.wantEnd()
			if tt.status >= 400 {
				if got := res.Header.Get("Proxy-Status"); got != "tunneld; error=http_request_error" {
					t.Errorf("Proxy-Status: %s", got)
				}
			}
			if tt.status != http.StatusOK {
				for len(requests) > 0 { // one that was broken off
					<-requests
				}
				return
			}
			got := <-requests
			if tt.head != "" && !slices.Contains(got.head, tt.head) || got.rest != tt.body {
				t.Errorf("the server gets %q, %q", got.head, got.rest)
			}
		})
	}
	for _, one := range p.log.Matching("msg", "request") {
		if strings.Contains(fmt.Sprint(one["url"]), "smuggled") {
			t.Errorf("%v", one)
		}
	}
}

// TestLargeBodies go both ways at a time, and are not held.
func TestLargeBodies(t *testing.T) {
	const size = 16 << 20
	site := newWebsite(t, func(w http.ResponseWriter, r *http.Request) {
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			t.Error(err)
		}
		w.WriteHeader(http.StatusOK)
		n, err := io.Copy(w, r.Body)
		if err != nil || n != size {
			t.Errorf("%d bytes, %v", n, err)
		}
	})
	p := startProxy(t, "")
	c := p.dial()
	c.send("POST %s/ HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", site.URL, size)
	sent := make(chan error, 1)
	go func() {
		_, err := io.CopyN(c, zeros{}, size)
		sent <- err
	}()
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	n, err := io.Copy(io.Discard, res.Body)
	if err != nil || n != size || <-sent != nil {
		t.Fatalf("%d bytes, %v", n, err)
	}
	line := p.log.Await(t, 1, "msg", "request")[0]
	if up, down := line["bytes_up"].(float64), line["bytes_down"].(float64); up < size || down < size {
		t.Errorf("%v", line)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// TestStreams: what a server sends piece by piece comes piece by piece, and trailers come
// both ways.
func TestStreams(t *testing.T) {
	next := make(chan string)
	trailers := make(chan string, 1)
	site := newWebsite(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		trailers <- string(body) + r.Trailer.Get("X-Sum")
		w.Header().Set("Trailer", "X-Known")
		for piece := range next {
			io.WriteString(w, piece)
			w.(http.Flusher).Flush()
		}
		w.Header().Set("X-Known", "1")
		w.Header().Set(http.TrailerPrefix+"X-New", "2")
	})
	c := startProxy(t, "").dial()
	c.send("POST %s/ HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 6\r\n\r\n", site.URL)
	if got := <-trailers; got != "abc6" {
		t.Errorf("the server gets %q", got)
	}
	next <- "one"
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	for _, piece := range []string{"one", "two", "three"} {
		if piece != "one" {
			next <- piece
		}
		b := make([]byte, len(piece))
		if _, err := io.ReadFull(res.Body, b); err != nil || string(b) != piece {
			t.Fatalf("%q, %v", b, err)
		}
	}
	close(next)
	if rest, err := io.ReadAll(res.Body); err != nil || len(rest) > 0 {
		t.Fatalf("%q, %v", rest, err)
	}
	if res.Trailer.Get("X-Known") != "1" || res.Trailer.Get("X-New") != "2" {
		t.Errorf("trailers %v", res.Trailer)
	}
}

// TestContinue: the body of a client that asks first comes once the server wants it, and not
// where it does not.
func TestContinue(t *testing.T) {
	site := newWebsite(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		echoing(w, r)
	})
	p := startProxy(t, "")
	c := p.dial()
	c.send("POST %s/yes HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n", site.URL)
	if res, err := http.ReadResponse(c.r, nil); err != nil || res.StatusCode != http.StatusContinue {
		t.Fatalf("%+v, %v", res, err)
	}
	c.send("hello")
	if _, body := c.answer("POST"); !strings.HasSuffix(body, " hello") {
		t.Errorf("%q", body)
	}
	c.send("POST %s/no HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n", site.URL)
	if res, _ := c.answer("POST"); res.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("%s", res.Status)
	}
}

// TestOldClient: one of HTTP/1.0 gets no chunks and no 1xx, and its connection ends.
func TestOldClient(t *testing.T) {
	site := newWebsite(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		io.WriteString(w, "one")
		w.(http.Flusher).Flush()
		io.WriteString(w, "two")
	})
	c := startProxy(t, "").dial()
	c.send("GET %s/ HTTP/1.0\r\n\r\n", site.URL)
	got, err := io.ReadAll(c.r)
	if text := string(got); err != nil || !strings.HasPrefix(text, "HTTP/1.0 200 OK\r\n") || !strings.HasSuffix(text, "\r\n\r\nonetwo") {
		t.Errorf("%q, %v", got, err)
	}
}

// TestMaxForwards is counted, and ends at the proxy.
func TestMaxForwards(t *testing.T) {
	site := newWebsite(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s", r.RequestURI, r.Header.Get("Max-Forwards"))
	})
	c := startProxy(t, "").dial()
	for _, tt := range []struct {
		line   string
		status int
		want   string
	}{
		{"OPTIONS " + site.URL + " HTTP/1.1\r\nMax-Forwards: 2", 200, ""},
		{"OPTIONS " + site.URL + "/ HTTP/1.1\r\nMax-Forwards: 2", 200, "/ 1"},
		{"OPTIONS " + site.URL + "/ HTTP/1.1\r\nMax-Forwards: 0", 200, "this is tunneld"},
		{"TRACE " + site.URL + "/ HTTP/1.1\r\nMax-Forwards: 0", 501, "does not trace"},
		{"TRACE " + site.URL + "/ HTTP/1.1\r\nMax-Forwards: 3", 200, "/ 2"},
		{"GET " + site.URL + "/ HTTP/1.1\r\nMax-Forwards: 0", 200, "/ 0"},
	} {
		c.send("%s\r\nHost: x\r\n\r\n", tt.line)
		if res, body := c.answer("GET"); res.StatusCode != tt.status || !strings.Contains(body, tt.want) {
			t.Errorf("%q: %s %q", tt.line, res.Status, body)
		}
	}
}
