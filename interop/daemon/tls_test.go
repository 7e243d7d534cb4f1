//go:build interop

package daemon

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/proctest"
)

// door is a daemon with a listener that speaks TLS, and the files of its clients.
type door struct {
	address, ca string
	cert, key   string // of a client, spiffe://corp/alice
	daemon      *proctest.Process
}

// mutual are lines of a tls block that let in whoever belongs to spiffe://corp.
const mutual = "  client_ca_file = \"CA\"\n  allow_san = [\"spiffe://corp/*\"]\n"

// open starts the daemon with the listener of a kind, and lines of its tls block.
func open(t *testing.T, kind, own, lines string) (*door, *nettest.Authority) {
	t.Helper()
	a := nettest.NewAuthority(t, "authority")
	cert, key := a.Files(t, &x509.Certificate{DNSNames: []string{"door.example"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	d := &door{address: nettest.FreeAddress(t), ca: a.File(t)}
	d.cert, d.key = identity(t, a, "spiffe://corp/alice")
	file := filepath.Join(t.TempDir(), "tunneld.hcl")
	config := fmt.Sprintf("upstream \"direct\" \"x\" {}\nroute \"all\" {\n upstreams = [upstream.direct.x]\n}\nlistener %q \"l\" {\n address = %q\n%s tls {\n  cert_file = %q\n  key_file = %q\n%s }\n}\n",
		kind, d.address, own, cert, key, strings.ReplaceAll(lines, "CA", d.ca))
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	d.daemon = proctest.Start(t, exec.Command(proctest.Tunneld(t), "run", "-c", file))
	d.logs(t, "msg=listening")
	return d, a
}

// logs waits until a line of the daemon's log has all of the texts.
func (d *door) logs(t *testing.T, texts ...string) {
	t.Helper()
	eventually(t, strings.Join(texts, ", "), func() error {
		for line := range strings.Lines(d.daemon.Output()) {
			if !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(line, text) }) {
				return nil
			}
		}
		return fmt.Errorf("no such line in\n%s", d.daemon.Output())
	})
}

// identity is the files of a client's certificate.
func identity(t *testing.T, a *nettest.Authority, uri string) (cert, key string) {
	t.Helper()
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	return a.Files(t, &x509.Certificate{URIs: []*url.URL{u}})
}

// says returns what a client prints, without the space around it; it may fail.
func says(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || ctx.Err() != nil) {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// TestCurlThroughTLS: an HTTPS proxy, with and without a client certificate.
func TestCurlThroughTLS(t *testing.T) {
	curl := proctest.Tool(t, "curl")
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }))
	defer web.Close()
	d, a := open(t, "http", nettest.OpenTargets, mutual)
	cert, key := d.cert, d.key
	common := []string{"-sS", "--max-time", "20", "--proxytunnel", "-x", "https://" + d.address, "--proxy-cacert", d.ca}
	for _, version := range []string{"1.2", "1.3"} {
		args := append(common, "--proxy-cert", cert, "--proxy-key", key, web.URL)
		if version == "1.2" {
			args = append([]string{"--proxy-ciphers", "ECDHE-ECDSA-AES128-GCM-SHA256", "--proxy-tlsv1"}, args...)
		}
		if got := run(t, nil, "", curl, args...); got != "hello" {
			t.Errorf("TLS %s: %q", version, got)
		}
	}
	d.logs(t, "user=spiffe://corp/alice")
	other, otherKey := identity(t, a, "spiffe://elsewhere/alice")
	for name, tt := range map[string]struct {
		args []string
		log  string
	}{
		"without a certificate":   {append(common, web.URL), "didn't provide a certificate"},
		"with another's":          {append(common, "--proxy-cert", other, "--proxy-key", otherKey, web.URL), "spiffe://elsewhere/alice"},
		"that does not trust it":  {[]string{"-sS", "--max-time", "20", "--proxytunnel", "-x", "https://" + d.address, web.URL}, "unknown certificate authority"},
		"that speaks no TLS":      {[]string{"-sS", "-f", "--max-time", "20", "--proxytunnel", "-x", "http://" + d.address, web.URL}, "the client speaks HTTP without TLS"},
		"that speaks SOCKS5":      {[]string{"-sS", "--max-time", "20", "-x", "socks5h://" + d.address, web.URL}, "the client speaks SOCKS5 without TLS"},
		"that asks for no tunnel": {[]string{"-sS", "-f", "--max-time", "20", "-x", "https://" + d.address, "--proxy-cacert", d.ca, "--proxy-cert", cert, "--proxy-key", key, "http://127.0.0.1:1/"}, "only CONNECT is supported"},
	} {
		if out, err := exec.Command(curl, tt.args...).CombinedOutput(); err == nil {
			t.Errorf("curl %s succeeds: %s", name, out)
		}
		d.logs(t, tt.log)
	}
}

// sClient is an openssl s_client of a listener, whose standard input is open.
type sClient struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *bytes.Buffer
	ended chan error
	mu    *sync.Mutex
}

func (b *sClient) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.out.Write(p)
}

func (b *sClient) output() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.out.String()
}

func startSClient(t *testing.T, d *door, args ...string) *sClient {
	t.Helper()
	c := &sClient{out: &bytes.Buffer{}, ended: make(chan error, 1), mu: &sync.Mutex{}}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	c.cmd = exec.CommandContext(ctx, proctest.Tool(t, "openssl"), append([]string{"s_client", "-connect", d.address, "-CAfile", d.ca, "-verify_return_error", "-servername", "door.example"}, args...)...)
	c.cmd.Stdout, c.cmd.Stderr = c, c
	var err error
	if c.stdin, err = c.cmd.StdinPipe(); err == nil {
		err = c.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() { c.ended <- c.cmd.Wait() }()
	return c
}

// served is what the target of a listener sees of one connection.
type served struct {
	t    *testing.T
	conn *net.TCPConn
}

// oneByOne is a target whose connections the test has.
func oneByOne(t *testing.T) (address string, accepted func() served) {
	t.Helper()
	conns := make(chan *net.TCPConn)
	done := make(chan struct{})
	address = nettest.Serve(t, func(c *net.TCPConn) {
		select {
		case conns <- c:
			<-done
		case <-done:
		}
	})
	t.Cleanup(func() { close(done) })
	return address, func() served {
		t.Helper()
		select {
		case c := <-conns:
			_ = c.SetDeadline(time.Now().Add(patience))
			return served{t, c}
		case <-time.After(patience):
			t.Fatal("nobody has come")
			return served{}
		}
	}
}

// reads reads a text.
func (s served) reads(want string) {
	s.t.Helper()
	b := make([]byte, len(want))
	if _, err := io.ReadFull(s.conn, b); err != nil || string(b) != want {
		s.t.Errorf("the target reads %q, %v; want %q", b, err, want)
	}
}

// ends reads up to the end: a clean one, or a reset.
func (s served) ends(clean bool) {
	s.t.Helper()
	_, err := io.ReadAll(s.conn)
	if clean && err != nil || !clean && !errors.Is(err, syscall.ECONNRESET) {
		s.t.Errorf("the target sees %v; want a clean end: %v", err, clean)
	}
}

// TestEndsWithOpenSSL is the table of docs/configuration.md with OpenSSL at the client's side.
func TestEndsWithOpenSSL(t *testing.T) {
	for _, mode := range []string{"close_notify", "fin"} {
		for _, version := range []string{"-tls1_2", "-tls1_3"} {
			t.Run(mode+version, func(t *testing.T) {
				address, accepted := oneByOne(t)
				d, _ := open(t, "tcp", fmt.Sprintf(" target = %q\n", address), fmt.Sprintf("  half_close = %q\n", mode))
				begin := func() (*sClient, served) {
					t.Helper()
					c := startSClient(t, d, version, "-quiet", "-no_ign_eof")
					if _, err := io.WriteString(c.stdin, "question\n"); err != nil {
						t.Fatal(err)
					}
					s := accepted()
					s.reads("question\n")
					return c, s
				}
				t.Run("the client ends by close_notify", func(t *testing.T) {
					c, s := begin()
					_ = c.stdin.Close()
					s.ends(true)
					_ = s.conn.Close()
					if err := <-c.ended; err != nil {
						t.Errorf("%v\n%s", err, c.output())
					}
				})
				t.Run("the client is killed", func(t *testing.T) {
					c, s := begin()
					_ = c.cmd.Process.Kill() // the system sends FIN
					<-c.ended
					s.ends(mode == "fin")
				})
				t.Run("the upstream ends", func(t *testing.T) {
					c, s := begin()
					if _, err := io.WriteString(s.conn, "answer\n"); err != nil {
						t.Fatal(err)
					}
					_ = s.conn.CloseWrite()
					err := <-c.ended
					const cut = "unexpected eof"
					if out := c.output(); !strings.Contains(out, "answer\n") || strings.Contains(out, cut) != (mode == "fin") {
						t.Errorf("%v\n%s", err, out)
					}
				})
				t.Run("the upstream resets", func(t *testing.T) {
					c, s := begin()
					_ = s.conn.SetLinger(0)
					_ = s.conn.Close()
					<-c.ended
					if out := c.output(); !strings.Contains(out, "errno=104") {
						t.Errorf("no reset:\n%s", out)
					}
				})
			})
		}
	}
}

// TestOpenSSL: sessions, names, versions and renegotiation as OpenSSL's client has them.
func TestOpenSSL(t *testing.T) {
	openssl := proctest.Tool(t, "openssl")
	address := nettest.Serve(t, nettest.Echo)
	d, _ := open(t, "tcp", fmt.Sprintf(" target = %q\n", address), "  alpn = [\"one\"]\n")
	client := func(args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, openssl, append([]string{"s_client", "-connect", d.address, "-CAfile", d.ca}, args...)...)
		cmd.Stdin = strings.NewReader("hello\n")
		out, _ := cmd.CombinedOutput() // its status says whether the handshake was whole
		return string(out)
	}
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		file := filepath.Join(t.TempDir(), "session")
		// It takes TLS 1.3's ticket with the first bytes that it reads.
		c := startSClient(t, d, version, "-sess_out", file)
		if _, err := io.WriteString(c.stdin, "hello\n"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "an echo", func() error {
			if strings.Count(c.output(), "hello") == 0 {
				return errors.New(c.output())
			}
			return nil
		})
		_ = c.stdin.Close()
		<-c.ended
		if out := client(version, "-sess_in", file); !strings.Contains(out, "Reused, TLSv1.") {
			t.Errorf("%s: no session is resumed:\n%s", version, out)
		}
	}
	for _, name := range [][]string{{"-servername", "door.example"}, {"-servername", "elsewhere.example"}, {"-noservername"}} {
		if out := client(name...); !strings.Contains(out, "Verify return code: 0 (ok)") {
			t.Errorf("%q:\n%s", name, out)
		}
	}
	if out := client("-alpn", "two,one"); !strings.Contains(out, "ALPN protocol: one") {
		t.Errorf("ALPN:\n%s", out)
	}
	if out := client("-alpn", "two"); !strings.Contains(out, "no application protocol") {
		t.Errorf("ALPN:\n%s", out)
	}
	d.logs(t, "alpn of the listener has none of them")
	// Debian's OpenSSL offers these only so.
	if out := client("-tls1_1", "-cipher", "ALL:@SECLEVEL=0"); !strings.Contains(out, "alert protocol version") {
		t.Errorf("TLS 1.1:\n%s", out)
	}
	d.logs(t, "the client speaks at most TLS 1.1, and the listener at least TLS 1.2")

	c := startSClient(t, d, "-tls1_2")
	if _, err := io.WriteString(c.stdin, "hello\n"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "an echo", func() error {
		if !strings.Contains(c.output(), "hello") {
			return errors.New(c.output())
		}
		return nil
	})
	if _, err := io.WriteString(c.stdin, "R\n"); err != nil { // renegotiate
		t.Fatal(err)
	}
	if err := <-c.ended; err == nil {
		t.Errorf("a renegotiation:\n%s", c.output())
	}
	d.logs(t, "reason=client_reset", "unexpected handshake message")
}
