//go:build interop

package clients

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/proctest"
)

// site is a running tunneld whose users are in an htpasswd file, and a web server behind it.
type site struct {
	socks, web, page, users string
	daemon                  *proctest.Process
}

func startSite(t *testing.T) site {
	t.Helper()
	s := site{socks: nettest.FreeAddress(t), web: nettest.FreeAddress(t), users: filepath.Join(t.TempDir(), "users")}
	page := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(page.Close)
	s.page = strings.TrimPrefix(page.URL, "http://")
	s.htpasswd(t, "-c", "alice", "corréct:horse")
	s.htpasswd(t, "", "bob", "b")
	listener := func(kind, address string) string {
		return fmt.Sprintf("listener %q \"a\" {\n address = %q\n%s auth {\n  htpasswd_file = %q\n }\n}\n", kind, address, nettest.OpenTargets, s.users)
	}
	config := "upstream \"direct\" \"d\" {}\nroute \"r\" {\n upstreams = [upstream.direct.d]\n}\n" + listener("socks5", s.socks) + listener("http", s.web)
	file := filepath.Join(t.TempDir(), "tunneld.hcl")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	s.daemon = proctest.Start(t, exec.Command(proctest.Tunneld(t), "run", "-c", file))
	s.daemon.Listens(t, s.socks, s.web)
	return s
}

// htpasswd writes a user as docs/configuration.md has it, but at the least cost.
func (s site) htpasswd(t *testing.T, create, user, password string) {
	t.Helper()
	args := []string{"-b", "-B", "-C", "4", s.users, user, password}
	if create != "" {
		args = append([]string{create}, args...)
	}
	if out, err := exec.Command(proctest.Tool(t, "htpasswd"), args...).CombinedOutput(); err != nil {
		t.Fatalf("htpasswd: %v\n%s", err, out)
	}
}

// client asks for a page, and returns what is printed.
type client func(t *testing.T, s site, user, password string) string

func curl(args ...string) client {
	return func(t *testing.T, s site, user, password string) string {
		all := append([]string{"-sS", "--max-time", "60", "-o", "/dev/null", "-w", "%{http_code}", "http://" + s.page + "/"}, args...)
		for i, a := range all {
			all[i] = strings.NewReplacer("SOCKS", s.socks, "WEB", s.web).Replace(a)
		}
		if user != "" {
			all = append(all, "-U", user+":"+password)
		}
		return said(t, proctest.Tool(t, "curl"), all...)
	}
}

func library(kind string) client {
	return func(t *testing.T, s site, user, password string) string {
		proxy := s.web
		if kind == "socks5" {
			proxy = s.socks
		}
		return said(t, node(t), "client.mjs", kind, proxy, user, password, s.page)
	}
}

func httpClient(t *testing.T, s site, user, password string) string {
	return said(t, python(t), "client.py", s.web, user, password, s.page)
}

// TestClients: each gets in with the right password, and is told of a wrong one, or of
// none, in its own words.
func TestClients(t *testing.T) {
	s := startSite(t)
	for name, c := range map[string]struct {
		get         client
		wrong, none string
	}{
		"curl, socks5":                    {curl("-x", "socks5h://SOCKS"), "User was rejected by the SOCKS5 server", "No authentication method was acceptable"},
		"curl, CONNECT":                   {curl("-p", "-x", "http://WEB"), "CONNECT tunnel failed, response 407", "CONNECT tunnel failed, response 407"},
		"curl, whatever the proxy offers": {curl("-p", "--proxy-anyauth", "-x", "http://WEB"), "CONNECT tunnel failed, response 407", "CONNECT tunnel failed, response 407"},
		"Node's socks":                    {library("socks5"), "Socks5 Authentication failed", ""},
		"Node's https-proxy-agent":        {library("http"), "407", ""},
		"Python's http.client":            {httpClient, "407 Proxy Authentication Required", "407 Proxy Authentication Required"},
	} {
		t.Run(name, func(t *testing.T) {
			for user, password := range map[string]string{"alice": "corréct:horse", "bob": "b"} {
				if got := c.get(t, s, user, password); got != "200" {
					t.Errorf("%s: %s", user, got)
				}
			}
			if got := c.get(t, s, "bob", "wrong"); !strings.Contains(got, c.wrong) {
				t.Errorf("a wrong password: %s", got)
			}
			if c.none == "" {
				return
			}
			if got := c.get(t, s, "", ""); !strings.Contains(got, c.none) {
				t.Errorf("no password: %s", got)
			}
		})
	}
	if log := s.daemon.Output(); !strings.Contains(log, "user=alice") || strings.Contains(log, "horse") {
		t.Errorf("the log: %s", log)
	}
}

// TestHtpasswdChanges: what htpasswd changes is in use without a reload.
func TestHtpasswdChanges(t *testing.T) {
	s := startSite(t)
	get := curl("-x", "socks5h://SOCKS")
	if got := get(t, s, "bob", "b"); got != "200" {
		t.Fatal(got)
	}
	s.htpasswd(t, "", "bob", "new")
	// Each try before it is in use takes a second or more.
	for deadline := time.Now().Add(patience); ; {
		got := get(t, s, "bob", "new")
		if got == "200" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the new password: %s", got)
		}
	}
	if got := get(t, s, "bob", "b"); !strings.Contains(got, "rejected") {
		t.Errorf("the old password: %s", got)
	}
}

// TestOpenJDK: only an Authenticator gives it a user and a password. Without one it logs in as
// the system's user with an empty password, whatever the properties are that OpenJDK documents
// for it.
func TestOpenJDK(t *testing.T) {
	s := startSite(t)
	java := openJDK(t)
	come := func(user, password string, properties ...string) string {
		args := slices.Concat(java[1:], properties, []string{"Client", "socks", s.socks, user, password, s.page})
		return said(t, java[0], args...)
	}
	if got := come("bob", "b"); got != "it came through" {
		t.Errorf("with an Authenticator: %s", got)
	}
	if got := come("", "", "-Duser.name=somebody", "-Djava.net.socks.username=bob", "-Djava.net.socks.password=b"); !strings.Contains(got, "authentication failed") {
		t.Errorf("without one: %s", got)
	}
	if log := s.daemon.Output(); !strings.Contains(log, "user=somebody reason=login") {
		t.Errorf("the log: %s", log)
	}
}
