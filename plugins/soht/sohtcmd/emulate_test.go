package sohtcmd

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tunneld/tunneld/internal/cmdtest"
	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/plugins/soht/sohtemu"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is the command that runs.
type server struct {
	*cmdtest.Emulator
	url    string
	client *http.Client
}

var url = regexp.MustCompile(`(?m)^  url +=  ?"(https?://[^"]+)"$`)

func emulate(t *testing.T, args ...string) *server {
	t.Helper()
	s := &server{Emulator: cmdtest.Start(t, Emulate(), append([]string{"--address", "127.0.0.1:0"}, args...)...)}
	m := url.FindStringSubmatch(s.Out)
	if m == nil {
		t.Fatalf("no url in %s", s.Out)
	}
	s.url = m[1]
	s.client = &http.Client{
		Timeout:       cmdtest.Patience,
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return s
}

// post sends a form and returns the answer with its whole body.
func (s *server) post(form string) (*http.Response, string, error) {
	resp, err := s.client.Post(s.url, "application/x-www-form-urlencoded", strings.NewReader(form))
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp, string(b), err
}

func (s *server) want(t *testing.T, form, want string) {
	t.Helper()
	if _, body, err := s.post(form); err != nil || body != want {
		t.Errorf("%s: %q, %v; want %q", form, body, err, want)
	}
}

// bye is a target that says so and ends.
func bye(t *testing.T) string {
	return nettest.Serve(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "bye")
		_ = c.CloseWrite()
		_, _ = io.Copy(io.Discard, c)
	})
}

const (
	open = "action=open&host=db.corp&port=5432"
	read = "action=read&id=0"
)

func TestMap(t *testing.T) {
	target := bye(t)
	s := emulate(t, "--map", "db.corp:5432="+target, "--map", "any.corp=127.0.0.1")
	s.want(t, open, "SUCCESS\n0\n")
	s.want(t, read, "\x01bye\x00")
	_, port, _ := net.SplitHostPort(target)
	s.want(t, "action=open&host=any.corp&port="+port, "SUCCESS\n1\n")
	s.want(t, "action=open&host=no.corp&port=1", "FAIL - no.corp\n")
	s.want(t, "action=close&id=1", "")
	log := s.Stop(t)
	for _, want := range []string{"target=db.corp:5432 id=0 backend=" + target, `answer="FAIL - no.corp"`, "msg=closed id=1"} {
		if !strings.Contains(log, want) {
			t.Errorf("%q is missing in %s", want, log)
		}
	}
	address := strings.TrimPrefix(strings.TrimSuffix(s.url, sohtemu.DefaultPath), "http://")
	if again := cmdtest.Start(t, Emulate(), "--address", address); again.Out != s.Out {
		t.Errorf("%s, then %s", s.Out, again.Out)
	}
	cmdtest.Fails(t, Emulate(), "choose another port", "--address", address)
}

func TestUser(t *testing.T) {
	dir := t.TempDir()
	var args []string
	for _, name := range []string{"bob", "al"} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte("of-"+name+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--user", name+"="+file)
	}
	s := emulate(t, append(args, "--map", "db.corp:5432="+bye(t))...)
	if want := fmt.Sprintf("  username = \"al\"\n  password = trimspace(file(%q))\n", filepath.Join(dir, "al")); !strings.Contains(s.Out, want) {
		t.Error(s.Out)
	}
	s.want(t, open, "FAIL - Username and Password Required!\n")
	s.want(t, open+"&username=eve&password=x", "FAIL - Invalid Username!\n")
	s.want(t, open+"&username=al&password=of-bob", "FAIL - Invalid Password!\n")
	s.want(t, open+"&username=al&password=of-al", "SUCCESS\n0\n")
	s.want(t, open+"&username=bob&password=of-bob", "SUCCESS\n1\n")
}

func TestTLS(t *testing.T) {
	ca := filepath.Join(t.TempDir(), "ca.pem")
	s := emulate(t, "--tls-ca-file", ca, "--path", "/soht")
	if !strings.HasPrefix(s.url, "https://") || !strings.HasSuffix(s.url, "/soht") || !strings.Contains(s.Out, fmt.Sprintf("  tls {\n    ca_file = %q\n  }\n", ca)) {
		t.Error(s.Out)
	}
	b, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(b)
	s.client.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: pool}
	s.want(t, "action=open&host=no.corp&port=1", "FAIL - no.corp\n")
}

func TestServersWays(t *testing.T) {
	s := emulate(t, "--first-id", "7", "--form-limit", "100", "--idle-poll", "1ms", "--container", "jetty", "--map", "db.corp:5432="+nettest.Serve(t, nettest.Echo))
	s.want(t, open, "SUCCESS\n7\n")
	resp, body, err := s.post("action=readwrite&id=7&datalength=0&data=")
	if err != nil || body != "\x01" || len(resp.TransferEncoding) > 0 {
		t.Errorf("%q, %v, %v", body, resp.TransferEncoding, err)
	}
	if resp, _, err := s.post(strings.Repeat("x", 101)); err != nil || resp.StatusCode != 400 {
		t.Errorf("%v, %v", resp, err)
	}
	// The one thread is the read's.
	s = emulate(t, "--threads", "1", "--map", "db.corp:5432="+nettest.Serve(t, nettest.Echo))
	s.want(t, open, "SUCCESS\n0\n")
	reading := make(chan error, 1)
	go func() {
		_, _, err := s.post(read)
		reading <- err
	}()
	waiting := *s
	waiting.client = &http.Client{Timeout: 50 * time.Millisecond, Transport: s.client.Transport}
	for late := time.Now().Add(cmdtest.Patience); ; {
		if _, _, err := waiting.post("action=close&id=9"); err != nil {
			break
		}
		if time.Now().After(late) {
			t.Fatal("a second request is served")
		}
	}
	s.Stop(t)
	<-reading
}

// TestFaults: each, as a client sees it.
func TestFaults(t *testing.T) {
	for _, tt := range []struct {
		args   []string
		form   string
		status int
		header [2]string
		body   string
		fails  string
	}{
		{args: []string{"--fault-open-fail", "no more"}, form: open, body: "FAIL - no more\n"},
		{args: []string{"--fault-forget-ids"}, form: read, body: "\x00"},
		{args: []string{"--fault-no-mark"}, form: read, body: "\x01bye"},
		{args: []string{"--fault-mark-delay", "1ms", "--fault-byte-at-a-time"}, form: read, body: "\x01bye\x00"},
		{args: []string{"--fault-cut-read-after", "2"}, form: read, fails: "EOF"},
		{args: []string{"--fault-no-keep-alive"}, form: read, header: [2]string{"Connection", "close"}, body: "\x01bye\x00"},
		{args: []string{"--fault-http10"}, form: read, body: "\x01bye\x00"},
		{args: []string{"--fault-silent", "read"}, form: read, fails: "deadline"},
		{args: []string{"--fault-drop", "write"}, form: "action=write&id=0&datalength=0&data=", fails: "EOF"},
		{args: []string{"--fault-cut", "close"}, form: "action=close&id=0", fails: "unexpected EOF"},
		{args: []string{"--fault-status", "read=503", "--fault-header", "read=Retry-After: 7", "--fault-body", "read=<html>"}, form: read, status: 503, header: [2]string{"Retry-After", "7"}, body: "<html>"},
		{args: []string{"--fault-body", "read=a page, with = and ,"}, form: read, body: "a page, with = and ,"},
		{args: []string{"--fault-redirect", "read=https://login.example/"}, form: read, status: 302, header: [2]string{"Location", "https://login.example/"}},
		{args: []string{"--fault-login-page", "readwrite"}, form: "action=readwrite&id=0&datalength=0&data=", header: [2]string{"Content-Type", "text/html; charset=utf-8"}, body: sohtemu.LoginPage().Body},
	} {
		t.Run(fmt.Sprint(tt.args), func(t *testing.T) {
			s := emulate(t, append(tt.args, "--map", "db.corp:5432="+bye(t))...)
			if tt.form != open {
				s.want(t, open, "SUCCESS\n0\n")
			}
			if tt.fails == "deadline" {
				s.client.Timeout = 50 * time.Millisecond
			}
			resp, body, err := s.post(tt.form)
			if tt.fails != "" {
				if err == nil || !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(tt.fails)) {
					t.Errorf("%v", err)
				}
				return
			}
			if tt.status == 0 {
				tt.status = 200
			}
			if err != nil || body != tt.body || resp.StatusCode != tt.status {
				t.Fatalf("%v, %v: %q", resp, err, body)
			}
			if got := resp.Header.Get(tt.header[0]); tt.header[0] != "" && got != tt.header[1] && !resp.Close {
				t.Errorf("%s: %q", tt.header[0], got)
			}
		})
	}
}

func TestFaultAfter(t *testing.T) {
	s := emulate(t, "--fault-after", "close=1", "--fault-status", "close=503", "--fault-delay", "20ms")
	begin := time.Now()
	for _, want := range []int{200, 503} {
		if resp, _, err := s.post("action=close&id=9"); err != nil || resp.StatusCode != want {
			t.Errorf("%v, %v", resp, err)
		}
	}
	if took := time.Since(begin); took < 40*time.Millisecond {
		t.Errorf("it took %s", took)
	}
	if log := s.Stop(t); strings.Count(log, "msg=fault") != 1 || !strings.Contains(log, `at=close does="answer 503"`) {
		t.Errorf("logged %s", log)
	}
}

// A connection that is kept alive is closed after an answer that did not say so.
func TestFaultHangUp(t *testing.T) {
	s := emulate(t, "--fault-hang-up")
	c := cmdtest.Dial(t, strings.TrimPrefix(strings.TrimSuffix(s.url, sohtemu.DefaultPath), "http://"))
	c.Say("POST /soht/service HTTP/1.1\r\nHost: h\r\nContent-Length: 17\r\n\r\naction=close&id=9", "HTTP/1.1 200 OK\r\n")
	rest, err := io.ReadAll(c)
	if err != nil || strings.Contains(strings.ToLower(string(rest)), "connection: close") {
		t.Errorf("%q, %v", rest, err)
	}
}

func TestUsage(t *testing.T) {
	for _, tt := range []struct {
		want string
		args []string
	}{
		{"--map: ", []string{"--map", "db.corp:1=127.0.0.1"}},
		{"--map: ", []string{"--map", "db.corp=127.0.0.1:1"}},
		{"begin with a slash", []string{"--path", "x"}},
		{"at least 1", []string{"--threads", "0"}},
		{`no action "list", only open, read`, []string{"--fault-silent", "list"}},
		{"not ACTION=STATUS", []string{"--fault-status", "open"}},
		{"not ACTION", []string{"--fault-silent", "open=1"}},
		{"not a number from 200 to 599", []string{"--fault-status", "open=x"}},
		{"not a number from 200 to 599", []string{"--fault-status", "open=100"}},
		{"not ACTION=NAME:VALUE", []string{"--fault-header", "open=x"}},
		{"more than one thing", []string{"--fault-silent", "open", "--fault-drop", "open"}},
		{"say what goes wrong then", []string{"--fault-after", "open=1"}},
		{"not one of jetty, tomcat", []string{"--container", "undertow"}},
		{"this machine alone", []string{"--address", "0.0.0.0:0"}},
	} {
		cmdtest.Fails(t, Emulate(), tt.want, append([]string{"--address", "127.0.0.1:0"}, tt.args...)...)
	}
}

// Every option of the emulator, and every fault, has a flag; what tests observe has none.
func TestEveryOption(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	e, cmd := newEmulation()
	cmdtest.Start(t, cmd, "--address", "127.0.0.1:0", "--tls-ca-file", filepath.Join(t.TempDir(), "ca.pem"), "--map", "a:1=b:1",
		"--user", "a="+file, "--path", "/x", "--container", "jetty", "--threads", "1", "--first-id", "1", "--form-limit", "1", "--idle-poll", "1s",
		"--fault-delay", "1s", "--fault-open-fail", "x", "--fault-forget-ids", "--fault-cut-read-after", "1", "--fault-no-mark",
		"--fault-mark-delay", "1s", "--fault-byte-at-a-time", "--fault-no-keep-alive", "--fault-hang-up", "--fault-http10",
		"--fault-status", "open=500", "--fault-header", "open=a:b", "--fault-body", "open=x", "--fault-after", "open=1",
		"--fault-silent", "read", "--fault-drop", "write", "--fault-cut", "close")
	if unset := cmdtest.Unset(e.options); fmt.Sprint(unset) != "[Observe]" {
		t.Errorf("no flag sets %v", unset)
	}
	on := e.options.Faults.On
	all := on["open"]
	all.Silent, all.Drop, all.Cut = on["read"].Silent, on["write"].Drop, on["close"].Cut
	if unset := cmdtest.Unset(all); len(unset) > 0 {
		t.Errorf("no flag sets %v of a fault", unset)
	}
}
