package engine

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/tunneld/tunneld/core/internal/auth"
	"github.com/tunneld/tunneld/core/status"
	"github.com/tunneld/tunneld/internal/follow"
	"github.com/tunneld/tunneld/internal/logtest"
	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/socks5"
)

// logIn asks a socks5 listener for target with a user and a password, all at once, and
// returns what became of the login, and of the request if that was heard.
func logIn(t *testing.T, source, address, user, password, target string) (net.Conn, bool, socks5.Code) {
	t.Helper()
	c := dialFrom(t, source, address)
	host, port, err := net.SplitHostPort(target)
	if err != nil {
		t.Fatal(err)
	}
	var number uint16
	if _, err := fmt.Sscan(port, &number); err != nil {
		t.Fatal(err)
	}
	b, err := socks5.AppendGreeting(nil, socks5.MethodNone, socks5.MethodUserPass)
	if err == nil {
		b, err = socks5.AppendUserPass(b, socks5.UserPass{Username: user, Password: password})
	}
	if err == nil {
		b, err = socks5.AppendRequest(b, socks5.Request{Command: socks5.Connect, Address: socks5.Address{Host: host, Port: number}})
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
	heard := make([]byte, 4)
	if _, err := io.ReadFull(c, heard); err != nil || string(heard[:3]) != "\x05\x02\x01" {
		t.Fatalf("%s heard % x, %v", user, heard, err)
	}
	if heard[3] != 0 {
		if rest, err := io.ReadAll(c); len(rest) > 0 || err != nil {
			t.Fatalf("%s heard % x behind a refusal, %v", user, rest, err)
		}
		return c, false, 0
	}
	reply := make([]byte, 10)
	if n, err := io.ReadFull(c, reply); err != nil {
		t.Fatalf("%s heard % x, %v", user, reply[:n], err)
	}
	return c, true, socks5.Code(reply[1])
}

// connectAs asks an http listener for target; without a user it says nothing of one.
func connectAs(t *testing.T, source, address, user, password, target string) (net.Conn, *http.Response) {
	t.Helper()
	c := dialFrom(t, source, address)
	fields := ""
	if user != "" {
		fields = "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password)) + "\r\n"
	}
	if _, err := fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\n%s\r\n", target, fields); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: http.MethodConnect})
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close() // the tunnel's bytes are the test's
	return c, res
}

// usersFile writes an htpasswd file.
func usersFile(t *testing.T, path string, users map[string]string) {
	t.Helper()
	text := ""
	for user, password := range users {
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		text += user + ":" + string(hash) + "\n"
	}
	put(t, path+".new", text)
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// asking is a configuration with two listeners that ask for a password.
func asking(auth, more string) string {
	listener := func(kind string) string {
		return fmt.Sprintf("listener %q \"a\" {\n address = \"127.0.0.1:0\"\n"+nettest.OpenTargets+" auth {\n%s\n }\n%s}\n", kind, auth, more)
	}
	return "upstream \"direct\" \"x\" {}\nroute \"all\" {\n upstreams = [upstream.direct.x]\n}\nmetrics { address = \"127.0.0.1:0\" }\n" + listener("socks5") + listener("http")
}

const canaryPassword = "c4n4ry-of-alice"

// realm is that of a listener in force.
func (r *rig) realm(id string) *auth.Realm {
	for _, l := range r.current.Load().listeners {
		if l.id == id {
			return l.realm
		}
	}
	return nil
}

// TestLogins: who says a right user and password gets in, is that user, and nobody else;
// of the password nothing is ever told.
func TestLogins(t *testing.T) {
	t.Parallel()
	r := start(t, nil, func(string) string { return asking(fmt.Sprintf("users = { alice = %q }", canaryPassword), "") })
	socks, _ := r.at(t, "socks5.a")
	web, _ := r.at(t, "http.a")
	c, ok, code := logIn(t, "127.0.0.1", socks[0], "alice", canaryPassword, r.echo)
	if !ok || code != socks5.Succeeded {
		t.Fatalf("socks5: %v, reply %d", ok, code)
	}
	echoed(t, c)
	c.Close()
	c, res := connectAs(t, "127.0.0.1", web[0], "alice", canaryPassword, r.echo)
	if res.StatusCode != http.StatusOK {
		t.Fatalf("http: %s", res.Status)
	}
	echoed(t, c)
	c.Close()
	r.log.Await(t, 2, "msg", "connection", "user", "alice")

	if _, ok, _ = logIn(t, "127.0.0.2", socks[0], "al\x1bice", canaryPassword, r.echo); ok {
		t.Error("socks5: a wrong user is let in")
	}
	r.log.Await(t, 1, "msg", "client handshake failed", "listener", "socks5.a", "reason", "login", "user", "al ice", "err", "client handshake: wrong user or password")
	if _, res = connectAs(t, "127.0.0.3", web[0], "alice", canaryPassword[1:], r.echo); res.StatusCode != http.StatusProxyAuthRequired || res.Header.Get("Proxy-Authenticate") == "" {
		t.Errorf("http: a wrong password is answered with %s", res.Status)
	}
	r.log.Await(t, 1, "msg", "client handshake failed", "listener", "http.a", "reason", "login", "user", "alice")
	// Who asks whether a password is needed has not failed, and need not wait.
	for range 3 {
		begun := time.Now()
		if c, res = connectAs(t, "127.0.0.4", web[0], "", "", r.echo); res.StatusCode != http.StatusProxyAuthRequired {
			t.Errorf("http: no password is answered with %s", res.Status)
		}
		c.Close()
		if d := time.Since(begun); d > patience/2 {
			t.Errorf("it took %s", d)
		}
	}
	r.connections.Wait()
	if n := len(r.log.Matching("msg", "client handshake failed")); n != 2 {
		t.Errorf("%d handshakes have failed", n)
	}
	_, page := get(t, r.metricsSockets()[0].bound(), "/metrics")
	for _, want := range []string{
		`tunneld_login_failures_total{listener="socks5.a"} 1`, `tunneld_login_failures_total{listener="http.a"} 1`,
		`tunneld_login_challenges_total{listener="http.a"} 3`, `tunneld_handshake_failures_total{listener="http.a",reason="login"} 1`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("no %s", want)
		}
	}
	if told := page + r.log.String() + fmt.Sprintf("%+v %+v", r.Status(), r.current.Load()); strings.Contains(told, canaryPassword[2:]) || strings.Contains(told, base64.StdEncoding.EncodeToString([]byte("alice:" + canaryPassword))[:12]) {
		t.Error("the password is told")
	}
}

// TestLoginsOfAFile: what the file holds counts, status and metrics tell of it, and who is
// remembered is so beyond a reload that leaves users and file.
func TestLoginsOfAFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "users")
	usersFile(t, path, map[string]string{"alice": "old", "bob": "b"})
	config := func(more string) string { return asking(fmt.Sprintf("htpasswd_file = %q", path), more) }
	r := start(t, nil, func(string) string { return config("") })
	at, _ := r.at(t, "socks5.a")
	lets := func(source, user, password string, want bool) net.Conn {
		t.Helper()
		c, ok, code := logIn(t, source, at[0], user, password, r.echo)
		if ok != want || ok && code != socks5.Succeeded {
			t.Errorf("%s with %q: let in %v, reply %d", user, password, ok, code)
		}
		return c
	}
	problem := func(text string) {
		t.Helper()
		r.await(t, "the file is not told of: "+text, func(s status.Status) bool {
			for _, l := range s.Listeners {
				if !strings.Contains(l.FileProblem, text) || (text == "") != (l.FileProblem == "") {
					return false
				}
			}
			return true
		})
	}
	tunnel := lets("127.0.0.1", "alice", "old", true)
	problem("")
	was := r.realm("socks5.a")
	r.reload(t, config("limits {\n max_per_source = 100\n}\n"))
	if r.realm("socks5.a") != was || r.realm("http.a") == was {
		t.Error("a reload that leaves the users makes another realm, or two listeners have one")
	}

	usersFile(t, path, map[string]string{"alice": "new"})
	r.log.Await(t, 1, "msg", "an htpasswd file has changed, and is in use", "listener", "socks5.a", "file", path, "users", "1")
	lets("127.0.0.1", "alice", "new", true)
	lets("127.0.0.2", "alice", "old", false)
	lets("127.0.0.1", "alice", "new", true) // of another source
	echoed(t, tunnel)                       // it goes on

	put(t, path, "alice:$apr1$n/7.zMFg$gPgxi7/GPT3/tdPuFtRi80\n")
	problem("auth: " + path + ", line 1: its hash is MD5")
	r.log.Await(t, 1, "msg", "an htpasswd file has changed, and not all of it can be used", "listener", "http.a", "err", path+": it has no user who can log in")
	lets("127.0.0.3", "alice", "new", false)
	_, page := get(t, r.metricsSockets()[0].bound(), "/metrics")
	if !strings.Contains(page, `tunneld_listener_file_problem{listener="socks5.a"} 1`) {
		t.Error("the metrics do not tell of the file")
	}
	usersFile(t, path, map[string]string{"alice": "mended"})
	problem("")
	lets("127.0.0.1", "alice", "mended", true)

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	problem("no such file or directory: none of its users can log in")
	lets("127.0.0.4", "alice", "mended", false)
	// A reload says so, and is no failure.
	if told := r.reload(t, config("")); !strings.Contains(told, "none of its users can log in") {
		t.Errorf("a reload says %q", told)
	}
	r.reload(t, strings.Replace(config(""), fmt.Sprintf("htpasswd_file = %q", path), `users = { alice = "x" }`, 2))
	if n := len(r.logins.byKey); n != 2 {
		t.Errorf("%d realms are kept", n)
	}
	problem("")
	lets("127.0.0.1", "alice", "x", true)
}

// TestNeighbours: while a source waits for its wrong logins, those get in who have logged
// in from there, and whoever comes from elsewhere.
func TestNeighbours(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "users")
	usersFile(t, path, map[string]string{"alice": "a", "bob": "b"})
	r := start(t, nil, func(string) string { return asking(fmt.Sprintf("htpasswd_file = %q", path), "") })
	at, _ := r.at(t, "socks5.a")
	gets := func(source, user, password string) {
		t.Helper()
		if c, ok, code := logIn(t, source, at[0], user, password, r.echo); !ok || code != socks5.Succeeded {
			t.Errorf("%s from %s: %v, reply %d", user, source, ok, code)
		} else {
			c.Close()
		}
	}
	gets("127.0.0.1", "alice", "a")
	done := make(chan struct{})
	var guesses [8]net.Conn
	for i := range guesses {
		guesses[i] = dialFrom(t, "127.0.0.1", at[0])
		if _, err := fmt.Fprintf(guesses[i], "\x05\x01\x02\x01\x05alice\x01%c", 'A'+i); err != nil {
			t.Fatal(err)
		}
	}
	go func() {
		defer close(done)
		// All of them take longer than a test is patient for: none is right.
		heard, _ := io.ReadAll(guesses[0])
		if string(heard) != "\x05\x02\x01\x01" {
			t.Errorf("a guess heard % x", heard)
		}
	}()
	for range 20 {
		gets("127.0.0.1", "alice", "a")
	}
	gets("127.0.0.2", "alice", "a")
	gets("127.0.0.2", "bob", "b")
	<-done
}

// TestWaitingLoginGivesWay: a client whose login waits is in its handshake, and makes room
// for others when the slots run out.
func TestWaitingLoginGivesWay(t *testing.T) {
	t.Parallel()
	r := start(t, nil, func(string) string {
		return asking(`users = { alice = "a" }`, "limits {\n max_connections = 2\n}\ntimeouts {\n handshake = \"0s\"\n}\n")
	})
	at, _ := r.at(t, "socks5.a")
	first := dialFrom(t, "127.0.0.1", at[0])
	second := dialFrom(t, "127.0.0.1", at[0])
	for i, c := range []net.Conn{first, second} {
		if _, err := fmt.Fprintf(c, "\x05\x01\x02\x01\x05alice\x01%c", 'x'+i); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 2)); err != nil {
			t.Fatal(err)
		}
	}
	c, ok, code := logIn(t, "127.0.0.2", at[0], "alice", "a", r.echo)
	if !ok || code != socks5.Succeeded {
		t.Fatalf("%v, reply %d", ok, code)
	}
	echoed(t, c)
	if heard, err := io.ReadAll(first); err == nil {
		t.Errorf("the one that waited heard % x, and was not reset", heard)
	}
}

// TestBeyondALimitNobodyIsAsked: a client beyond a limit is told so, whatever it says of a
// password.
func TestBeyondALimitNobodyIsAsked(t *testing.T) {
	t.Parallel()
	r := start(t, nil, func(string) string {
		return asking(`users = { alice = "a" }`, "limits {\n max_per_source = 1\n}\n")
	})
	at, _ := r.at(t, "socks5.a")
	if _, ok, code := logIn(t, "127.0.0.1", at[0], "alice", "a", r.echo); !ok || code != socks5.Succeeded {
		t.Fatalf("%v, reply %d", ok, code)
	}
	for _, password := range []string{"a", "wrong"} {
		c := dialFrom(t, "127.0.0.1", at[0])
		if _, err := io.WriteString(c, "\x05\x01\x02\x01\x05alice"+string(rune(len(password)))+password+"\x05\x01\x00\x03\x02db\x00\x50"); err != nil {
			t.Fatal(err)
		}
		if heard, err := io.ReadAll(c); err != nil || string(heard[:5]) != "\x05\x02\x01\x00\x05" || heard[5] != byte(socks5.GeneralFailure) {
			t.Errorf("%q: heard % x, %v", password, heard, err)
		}
	}
	if n := len(r.log.Matching("reason", "login")); n > 0 {
		t.Errorf("%d logins have failed", n)
	}
}

// TestUnfollowedFile: where a file cannot be followed a reload reads it.
func TestUnfollowedFile(t *testing.T) {
	var full follow.Follower
	many, err := full.Follow(make([]follow.File, 4096), func() {})
	if err != nil {
		t.Fatal(err)
	}
	defer many.Stop()
	log := logtest.New(patience)
	all := newLogins(&full, slog.New(slog.NewJSONHandler(log, nil)))
	defer all.retain(nil)
	path := filepath.Join(t.TempDir(), "users")
	usersFile(t, path, map[string]string{"alice": "a"})
	first, key := all.of("socks5.a", auth.NewOptions(nil, path))
	if first.State().Users != 1 {
		t.Errorf("%+v", first.State())
	}
	log.Await(t, 1, "level", "WARN", "listener", "socks5.a", "msg", "an htpasswd file is not followed: a reload is needed when it changes")
	usersFile(t, path, map[string]string{"alice": "a", "bob": "b"})
	second, again := all.of("socks5.a", auth.NewOptions(nil, path))
	if second.State().Users != 2 || again != key || len(all.byKey) != 1 {
		t.Errorf("%+v", second.State())
	}
}
