package soht

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/soht/sohtemu"
)

// certificate makes a certificate for 127.0.0.1 and returns it with the file
// that it is to be trusted by.
func certificate(t testing.TB) (*tls.Config, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:         true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, file
}

func TestHTTPS(t *testing.T) {
	conf, ca := certificate(t)
	s := emulate(t, sohtemu.Options{TLS: conf, IdlePoll: time.Millisecond})
	modes(t, func(t *testing.T, mode string) {
		c := mustDial(t, towards(s, mode, values{"tls": values{"ca_file": ca}}), nettest.Serve(t, nettest.Echo))
		write(t, c, []byte("hi"))
		read(t, c, 2)
		if !slices.ContainsFunc(c.Stages, func(s sdk.StageTime) bool { return s.Stage == sdk.StageTLS }) {
			t.Errorf("no TLS stage in %v", c.Stages)
		}
	})
	_, err := dial(t, towards(s, modeStateful), "127.0.0.1:1")
	if e := dialError(t, err); e.Stage != sdk.StageTLS || e.Hint == "" {
		t.Errorf("an unknown authority: %+v", e)
	}
}

// TestHostOfRequests: the dot of an absolute name is the resolver's alone.
func TestHostOfRequests(t *testing.T) {
	hosts := make(chan string, 8)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hosts <- r.Host
		http.Error(w, "", http.StatusForbidden)
	}))
	defer s.Close()
	for url, want := range map[string]string{"http://soht.corp.": "soht.corp", "http://soht.corp.:81/x": "soht.corp:81", "http://bücher.corp.": "xn--bcher-kva.corp"} {
		if _, err := dial(t, values{"url": url, "via": s.URL}, "db.corp:1"); err == nil {
			t.Fatal("the dial is fine")
		}
		for range 2 { // the proxy is tried first, and the open comes behind it
			if got := receive(t, hosts); got != want {
				t.Errorf("%s: Host %q, want %q", url, got, want)
			}
		}
	}
}

// TestServerWantsACertificate: with TLS 1.3 it says so instead of an answer to the open.
func TestServerWantsACertificate(t *testing.T) {
	for version, want := range map[uint16]sdk.DialError{
		tls.VersionTLS12: {Stage: sdk.StageTLS, Reason: sdk.ReasonProtocol},
		tls.VersionTLS13: {Stage: sdk.StageRequest, Reason: sdk.ReasonUnauthenticated},
	} {
		address, ca := nettest.WantsCertificate(t, version)
		_, err := dial(t, values{"url": "https://" + address + "/", "tls": values{"ca_file": ca}}, "db.corp:1")
		if e := dialError(t, err); e.Stage != want.Stage || e.Reason != want.Reason || !e.Retryable || !strings.Contains(e.Hint, "tls.cert_file") {
			t.Errorf("%s: %+v", tls.VersionName(version), e)
		}
	}
}

func TestDialStagesAndAddresses(t *testing.T) {
	s := emulate(t, sohtemu.Options{})
	c := mustDial(t, towards(s, modeStateful), nettest.Serve(t, nettest.Echo))
	if c.Remote != s.Addr() || c.Local == "" {
		t.Errorf("from %q to %q", c.Local, c.Remote)
	}
	if n := len(c.Stages); n == 0 || c.Stages[n-1].Stage != sdk.StageRequest {
		t.Errorf("stages %v", c.Stages)
	}
}

// hangingUp is a server that reads a request, calls f and hangs up.
func hangingUp(t *testing.T, f func(*net.TCPConn)) string {
	return nettest.Serve(t, func(c *net.TCPConn) {
		r, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		f(c)
	})
}

func TestDialFailures(t *testing.T) {
	closed := nettest.FreeAddress(t) // which no emulator is given later
	s := emulate(t, sohtemu.Options{})
	silent := emulate(t, sohtemu.Options{Faults: sohtemu.Faults{On: map[string]sohtemu.Fault{"open": {Silent: true}}}})
	cutShort := emulate(t, sohtemu.Options{Faults: sohtemu.Faults{On: map[string]sohtemu.Fault{"open": {Cut: true}}}})
	busy := emulate(t, sohtemu.Options{Faults: sohtemu.Faults{On: map[string]sohtemu.Fault{"open": {Status: 503}}}})
	answer := func(body string) values {
		return values{"url": emulate(t, sohtemu.Options{Faults: sohtemu.Faults{On: map[string]sohtemu.Fault{
			"open": {Status: 200, Body: body},
		}}}).URL()}
	}
	for _, tt := range []struct {
		name   string
		v      values
		target string
		stage  sdk.Stage
		reason sdk.Reason
	}{
		{"nobody listens", values{"url": "http://" + closed + "/"}, "db:1", sdk.StageConnect, sdk.ReasonRefused},
		{"target refuses", values{"url": s.URL()}, closed, sdk.StageRequest, sdk.ReasonRefused},
		{"target unknown", values{"url": s.URL()}, "db.corp:1", sdk.StageRequest, sdk.ReasonNotFound},
		{"no port", values{"url": s.URL()}, "db", sdk.StageRequest, sdk.ReasonUnreachable},
		{"another path", values{"url": "http://" + s.Addr() + "/else"}, "db:1", sdk.StageRequest, sdk.ReasonNotFound},
		{"hangs up", values{"url": "http://" + hangingUp(t, func(*net.TCPConn) {})}, "db:1", sdk.StageRequest, sdk.ReasonProtocol},
		{"no HTTP", values{"url": "http://" + hangingUp(t, func(c *net.TCPConn) { _, _ = io.WriteString(c, "SSH-2.0-x\r\n") })}, "db:1", sdk.StageRequest, sdk.ReasonUnavailable},
		{"no such proxy", values{"url": s.URL(), "via": "http://" + closed}, "db:1", sdk.StageConnect, sdk.ReasonRefused},
		{"another status", values{"url": busy.URL()}, "db:1", sdk.StageRequest, sdk.ReasonUnavailable},
		{"silent", values{"url": silent.URL(), "timeouts": values{"handshake": "50ms"}}, "db:1", sdk.StageRequest, sdk.ReasonTimeout},
		{"cut short", values{"url": cutShort.URL()}, closed, sdk.StageRequest, sdk.ReasonUnavailable},
		{"half the word", answer("SUCC"), "db:1", sdk.StageRequest, sdk.ReasonUnavailable},
		{"nothing", answer(""), "db:1", sdk.StageRequest, sdk.ReasonUnavailable},
		{"no id", answer("SUCCESS\n"), "db:1", sdk.StageRequest, sdk.ReasonUnavailable},
		{"half an id", answer("SUCCESS\n12"), "db:1", sdk.StageRequest, sdk.ReasonUnavailable},
		{"no number", answer("SUCCESS\nx\n"), "db:1", sdk.StageRequest, sdk.ReasonProtocol},
		{"an endless id", answer("SUCCESS\n" + strings.Repeat("1", 5000)), "db:1", sdk.StageRequest, sdk.ReasonUnavailable},
		{"https of http", values{"url": strings.Replace(s.URL(), "http:", "https:", 1)}, "db:1", sdk.StageTLS, sdk.ReasonProtocol},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := dial(t, tt.v, tt.target)
			e := dialError(t, err)
			if e.Stage != tt.stage || e.Reason != tt.reason {
				t.Errorf("got %v: %v, want %v: %v", e.Stage, e, tt.stage, tt.reason)
			}
			if carried := tt.name != "no port"; !carried && e.Retryable {
				t.Errorf("retryable: %v", e)
			}
			u, err := url.Parse(tt.v["url"].(string))
			if err != nil {
				t.Fatal(err)
			}
			if asked := tt.name != "no port"; asked && !strings.HasPrefix(e.Message, "open at "+u.Host+": ") || e.Hint == "" {
				t.Errorf("message %q, hint %q", e.Message, e.Hint)
			}
		})
	}
}

// The same of a dial that the daemon ends.
func TestDialThatIsEnded(t *testing.T) {
	asked, over := make(chan struct{}), make(chan struct{})
	addr := hangingUp(t, func(*net.TCPConn) {
		close(asked)
		<-over
	})
	c := &Config{URL: "http://" + addr, Mode: modeStateful, WriteSize: 1, Timeouts: sdk.Timeouts{Connect: patience, Handshake: patience}}
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		<-asked
		cancel(context.DeadlineExceeded)
	}()
	_, _, err := c.dial(ctx, &sdk.Request{Target: sdk.Target{Host: "db.corp", Port: 1}})
	close(over)
	if want := "open at " + addr + ": context deadline exceeded"; !errors.Is(err, context.DeadlineExceeded) || err.Error() != want {
		t.Errorf("got %v, want %v", err, want)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// An id of carriage return and line feed is as good.
func TestOpenAnswerWithCRLF(t *testing.T) {
	s := emulate(t, sohtemu.Options{Faults: sohtemu.Faults{On: map[string]sohtemu.Fault{"open": {Status: 200, Body: "SUCCESS\r\n7\r\n"}}}})
	u := upstream(t, towards(s, modeStateful))
	c, err := u.Dial(t.Context(), "db:1")
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

func TestStatus(t *testing.T) {
	s := emulate(t, sohtemu.Options{})
	u := upstream(t, towards(s, modeStateful))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	// What the target is to blame for leaves the upstream in good health.
	if _, err := u.Dial(ctx, "db.corp:1"); err == nil {
		t.Fatal("db.corp is known")
	}
	u.AwaitStatus(ctx, t, func(st sdk.Status) bool { return st.Health == sdk.HealthOK })
	s.SetFaults(sohtemu.Faults{On: map[string]sohtemu.Fault{"open": {Status: 200, Header: map[string]string{"Transfer-Encoding": "x"}}}})
	if _, err := u.Dial(ctx, "db.corp:1"); err == nil {
		t.Fatal("the dial is fine")
	}
	u.AwaitStatus(ctx, t, func(st sdk.Status) bool {
		return st.Health == sdk.HealthFailing && strings.HasPrefix(st.Message, "request: open at "+s.Addr()+": the request got no answer: ")
	})
	s.SetFaults(sohtemu.Faults{On: map[string]sohtemu.Fault{"open": {Status: 503}}})
	if _, err := u.Dial(ctx, "db.corp:1"); err == nil {
		t.Fatal("the dial is fine")
	}
	u.AwaitStatus(ctx, t, func(st sdk.Status) bool {
		return st.Health == sdk.HealthFailing && strings.Contains(st.Message, "503")
	})
}

// proxy is an HTTP proxy that takes Basic credentials for both kinds of
// request, and one request a connection.
func proxy(t *testing.T, user, password string) string {
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
	return nettest.Serve(t, func(c *net.TCPConn) {
		br := bufio.NewReader(c)
		r, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		if r.Header.Get("Proxy-Authorization") != want {
			_, _ = io.WriteString(c, "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			return
		}
		if !strings.HasPrefix(r.Host, "127.0.0.1:") {
			_, _ = io.WriteString(c, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			return
		}
		up, err := net.Dial("tcp", r.Host)
		if err != nil {
			return
		}
		defer up.Close()
		if r.Method == http.MethodConnect {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		} else {
			r.Header.Del("Proxy-Authorization")
			r.Close = true
			if r.Write(up) != nil {
				return
			}
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = io.Copy(up, br)
			_ = up.(*net.TCPConn).CloseWrite()
		}()
		_, _ = io.Copy(c, up)
		_ = c.Close()
		<-done
	})
}

func TestVia(t *testing.T) {
	conf, ca := certificate(t)
	plain := emulate(t, sohtemu.Options{})
	secure := emulate(t, sohtemu.Options{TLS: conf})
	via := proxy(t, "us er", "p@ss:word")
	for _, s := range []*sohtemu.Server{plain, secure} {
		modes(t, func(t *testing.T, mode string) {
			v := towards(s, mode, values{"via": "http://us%20er:p%40ss%3Aword@" + via})
			if s == secure {
				v["tls"] = values{"ca_file": ca}
			}
			c := mustDial(t, v, nettest.Serve(t, nettest.Echo))
			write(t, c, []byte("hi"))
			read(t, c, 2)

			v["via"] = "http://user:wrongpass@" + via
			_, err := dial(t, v, "127.0.0.1:1")
			e := dialError(t, err)
			if e.Reason != sdk.ReasonUnauthenticated || !strings.Contains(e.Hint, "via") || strings.Contains(e.Error(), "wrongpass") {
				t.Errorf("got %+v", e)
			}
		})
	}
	_, err := dial(t, values{"url": "https://soht.corp/", "via": "http://us%20er:p%40ss%3Aword@" + via}, "127.0.0.1:1")
	if e := dialError(t, err); e.Reason != sdk.ReasonUnreachable || !strings.Contains(e.Message, "502") {
		t.Errorf("got %+v", e)
	}
}

// tinyproxy says 401 where others say 407, and a gateway's 401 looks alike.
func TestHintOfALogin(t *testing.T) {
	for _, status := range []int{401, 407} {
		s := emulate(t, sohtemu.Options{Faults: sohtemu.Faults{On: map[string]sohtemu.Fault{"open": {Status: status}}}})
		_, err := dial(t, towards(s, modeStateful), "db.corp:1")
		if e := dialError(t, err); e.Reason != sdk.ReasonUnauthenticated || !strings.Contains(e.Hint, "user and password in via") {
			t.Errorf("%d: %+v", status, e)
		}
	}
}

// A proxy that closes its connections and does not say so costs no tunnel: they
// are not used twice.
func TestViaThatHangsUp(t *testing.T) {
	s := emulate(t, sohtemu.Options{IdlePoll: time.Millisecond, Faults: sohtemu.Faults{HangUp: true}})
	modes(t, func(t *testing.T, mode string) {
		u := upstream(t, values{"url": "http://soht.corp" + sohtemu.DefaultPath, "mode": mode, "via": "http://" + s.Addr()})
		target := nettest.Serve(t, nettest.Echo)
		var wait sync.WaitGroup
		for range 8 {
			wait.Go(func() {
				c, err := u.Dial(t.Context(), target)
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(patience))
				b := make([]byte, 2)
				for range 20 {
					if _, err := c.Write([]byte("hi")); err != nil {
						t.Error(err)
					}
					if _, err := io.ReadFull(c, b); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wait.Wait()
	})
}

// One that keeps them is believed after one question.
func TestViaThatKeepsConnections(t *testing.T) {
	s := emulate(t, sohtemu.Options{IdlePoll: time.Millisecond})
	u := upstream(t, values{"url": "http://soht.corp" + sohtemu.DefaultPath, "via": "http://" + s.Addr()})
	target := nettest.Serve(t, nettest.Echo)
	for range 3 {
		c, err := u.Dial(t.Context(), target)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		for range 20 {
			write(t, c, []byte("hi"))
			read(t, c, 2)
		}
		_ = c.Close()
		eventually(t, s, "close", func(st sohtemu.Stats) bool { return st.Open == 0 })
	}
	if st := s.Stats(); st.Requests["GET"] != 1 || st.HTTPConnections > 8 {
		t.Errorf("got %+v", st)
	}
}

// A gateway's page may lead to its login by a script alone: there are no words to quote.
func TestPageWithoutWords(t *testing.T) {
	page := sohtemu.LoginPage()
	page.Body = "<html><script>location = '/login'</script></html>"
	s := emulate(t, sohtemu.Options{Faults: sohtemu.Faults{On: map[string]sohtemu.Fault{"open": page}}})
	_, err := dial(t, towards(s, modeStateful), "db.corp:1")
	if e := dialError(t, err); !strings.HasSuffix(e.Message, "answered with an HTML page") {
		t.Errorf("%q", e.Message)
	}
}
