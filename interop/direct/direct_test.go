//go:build interop

package direct

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/proctest"
)

// service is one of a server's: a version of TLS, with and without client certificates.
type service struct {
	version string // "1.2"
	mutual  bool
}

func (s service) String() string {
	return map[bool]string{false: "open", true: "mutual"}[s.mutual] + strings.ReplaceAll(s.version, ".", "")
}

var services = []service{{"1.2", false}, {"1.2", true}, {"1.3", false}, {"1.3", true}}

// servers start all services in front of a plain backend, where they have one, and return
// the addresses.
var servers = map[string]func(t *testing.T, f files, backend string) map[service]string{
	"stunnel": stunnel, "haproxy": haproxy, "openssl": openssl,
}

func stunnel(t *testing.T, f files, backend string) map[service]string {
	program := proctest.Tool(t, "stunnel4")
	at := map[service]string{}
	config := "foreground = yes\npid =\nsyslog = no\n"
	for _, s := range services {
		at[s] = nettest.FreeAddress(t)
		config += fmt.Sprintf("[%s]\naccept = %s\nconnect = %s\ncert = %s\nkey = %s\nsslVersionMin = TLSv%s\nsslVersionMax = TLSv%[6]s\n",
			s, at[s], backend, f.cert("server"), f.key("server"), s.version)
		if s.mutual {
			config += fmt.Sprintf("verifyChain = yes\nCAfile = %s\nrequireCert = yes\n", f.cert("ca"))
		}
	}
	path := filepath.Join(t.TempDir(), "stunnel.conf")
	write(t, path, config)
	proctest.Start(t, exec.Command(program, path)).Listens(t, all(at)...)
	return at
}

func haproxy(t *testing.T, f files, backend string) map[service]string {
	program := proctest.Tool(t, "haproxy")
	at := map[service]string{}
	config := "defaults\n mode tcp\n timeout connect 30s\n timeout client 60s\n timeout server 60s\n"
	for _, s := range services {
		at[s] = nettest.FreeAddress(t)
		config += fmt.Sprintf("listen %s\n bind %s ssl crt %s ssl-min-ver TLSv%s ssl-max-ver TLSv%[4]s", s, at[s], f.both("server"), s.version)
		if s.mutual {
			config += fmt.Sprintf(" verify required ca-file %s", f.cert("ca"))
		}
		config += fmt.Sprintf("\n server backend %s\n", backend)
	}
	path := filepath.Join(t.TempDir(), "haproxy.cfg")
	write(t, path, config)
	proctest.Start(t, exec.Command(program, "-db", "-f", path)).Listens(t, all(at)...)
	return at
}

// openssl has no backend: s_server answers with each line reversed, and ends after CLOSE.
func openssl(t *testing.T, f files, _ string) map[service]string {
	at := map[service]string{}
	for _, s := range services {
		args := []string{"-cert", f.cert("server"), "-key", f.key("server"), "-tls" + strings.ReplaceAll(s.version, ".", "_"), "-rev"}
		if s.mutual {
			args = append(args, "-Verify", "1", "-verify_return_error", "-CAfile", f.cert("ca"))
		}
		at[s] = sServer(t, args...)
	}
	return at
}

func sServer(t *testing.T, args ...string) (address string) {
	t.Helper()
	address = nettest.FreeAddress(t)
	proctest.Start(t, exec.Command(proctest.Tool(t, "openssl"), append([]string{"s_server", "-accept", address, "-quiet"}, args...)...)).Listens(t, address)
	return address
}

func all(at map[service]string) (addresses []string) {
	for _, address := range at {
		addresses = append(addresses, address)
	}
	return addresses
}

// backend sends a line, and answers what it reads up to the end in capitals. After "last
// words" it ends its own direction first, and tells what it hears then.
func backend(heard chan<- string) func(*net.TCPConn) {
	return func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "220 ready\r\n")
		b := make([]byte, len("last words"))
		n, _ := io.ReadFull(c, b)
		last := string(b[:n]) == "last words"
		if last {
			_, _ = io.WriteString(c, "bye")
			_ = c.CloseWrite()
		}
		rest, _ := io.ReadAll(c)
		if last {
			heard <- string(rest)
			return
		}
		_, _ = io.WriteString(c, strings.ToUpper(string(append(b[:n], rest...))))
	}
}

// upstreams are the tls blocks that each service is reached with.
var upstreams = map[string]string{
	"anonymous": "ca_file = %[1]q",
	"client":    "ca_file = %[1]q\n cert_file = %[2]q\n key_file = %[3]q",
	"stranger":  "ca_file = %[1]q\n cert_file = %[4]q\n key_file = %[5]q",
	"distrust":  "ca_file = %[6]q",
}

// way is a listener that leads to a service by one of the upstreams.
type way struct {
	service  service
	upstream string
}

func (w way) String() string { return w.upstream + "-" + w.service.String() }

// configuration has all ways, and returns their addresses.
func configuration(t *testing.T, f files, at map[service]string) (config string, listens map[way]string) {
	listens = map[way]string{}
	for name, block := range upstreams {
		block = fmt.Sprintf(block, f.cert("ca"), f.cert("client"), f.key("client"), f.cert("stranger"), f.key("stranger"), f.cert("other"))
		config += fmt.Sprintf("upstream \"direct\" %q {\n tls {\n %s\n }\n}\n", name, block)
		var ids []string
		for _, s := range services {
			w := way{s, name}
			listens[w] = nettest.FreeAddress(t)
			config += fmt.Sprintf("listener \"tcp\" %q {\n address = %q\n target = %q\n}\n", w, listens[w], "localhost:"+port(at[s]))
			ids = append(ids, fmt.Sprintf("listener.tcp.%s", w))
		}
		config += fmt.Sprintf("route %q {\n match {\n listeners = [%s]\n }\n upstreams = [upstream.direct.%s]\n}\n", name, strings.Join(ids, ", "), name)
	}
	return config, listens
}

// TestDirect: through each server bytes come whole, and both directions end by themselves;
// who is refused is told why, with TLS 1.3 too.
func TestDirect(t *testing.T) {
	for name, start := range servers {
		t.Run(name, func(t *testing.T) {
			f := certificates(t)
			heard := make(chan string, 1)
			at := start(t, f, nettest.Serve(t, backend(heard)))
			config, listens := configuration(t, f, at)
			log := daemon(t, config)
			for w, address := range listens {
				t.Run(w.String(), func(t *testing.T) {
					if hint := w.hint(); hint != "" {
						refused(t, address)
						line := log.Await(t, 1, "msg", "connection failed", "listener", "tcp."+w.String(), "stage", "tls")[0]
						if text := fmt.Sprint(line["hint"]); !strings.Contains(text, hint) {
							t.Errorf("hint %q of %v", text, line["err"])
						}
						return
					}
					if name == "openssl" {
						clientEnds(t, address, "hello\n", "olleh\n")
						farEnds(t, address, "CLOSE\n", "").Close()
					} else {
						clientEnds(t, address, "hello", "220 ready\r\nHELLO")
						c := farEnds(t, address, "last words", "220 ready\r\nbye")
						if _, err := io.WriteString(c, ", and more"); err != nil {
							t.Error(err)
						}
						_ = c.CloseWrite()
						if got := <-heard; got != ", and more" {
							t.Errorf("behind its own end the backend heard %q", got)
						}
					}
					for _, line := range log.Await(t, 2, "msg", "connection", "listener", "tcp."+w.String()) {
						if line["err"] != nil {
							t.Errorf("it ended with %v", line["err"])
						}
					}
				})
			}
		})
	}
}

// hint is a part of what a user is told who goes this way, which is empty where it is open.
func (w way) hint() string {
	switch {
	case w.upstream == "distrust":
		return "set tls.ca_file"
	case w.service.mutual && w.upstream != "client":
		return "tls.cert_file and tls.key_file"
	}
	return ""
}

// dial connects to a listener.
func dial(t *testing.T, address string) *net.TCPConn {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

// clientEnds sends a text and the end of its direction, and reads all of the answer.
func clientEnds(t *testing.T, address, send, want string) {
	t.Helper()
	c := dial(t, address)
	if _, err := io.WriteString(c, send); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	readAll(t, c, want)
}

// farEnds sends a text after which the far end's direction ends.
func farEnds(t *testing.T, address, send, want string) *net.TCPConn {
	t.Helper()
	c := dial(t, address)
	if _, err := io.WriteString(c, send); err != nil {
		t.Fatal(err)
	}
	readAll(t, c, want)
	return c
}

func readAll(t *testing.T, c net.Conn, want string) {
	t.Helper()
	if got, err := io.ReadAll(c); err != nil || string(got) != want {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
}

// refused expects a reset. It may come so soon that already the connect is told of it.
func refused(t *testing.T, address string) {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, patience)
	var got []byte
	if err == nil {
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		_, _ = io.WriteString(c, "hello\n")
		got, err = io.ReadAll(c)
	}
	if !errors.Is(err, syscall.ECONNRESET) || len(got) > 0 {
		t.Errorf("%q, %v, want a reset", got, err)
	}
}

// TestOnlyRSAKeyExchange: the hint says what can help, and it does.
func TestOnlyRSAKeyExchange(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if out, err := exec.Command(proctest.Tool(t, "openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert,
		"-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	at := sServer(t, "-cert", cert, "-key", key, "-tls1_2", "-cipher", "AES128-GCM-SHA256", "-rev")
	addresses := map[string]string{"standard": nettest.FreeAddress(t), "chosen": nettest.FreeAddress(t)}
	config := ""
	for name, more := range map[string]string{"standard": "", "chosen": `cipher_suites = ["TLS_RSA_WITH_AES_128_GCM_SHA256"]`} {
		config += fmt.Sprintf(`
upstream "direct" %[1]q {
  tls {
    ca_file = %[2]q
    %[3]s
  }
}
listener "tcp" %[1]q {
  address = %[4]q
  target  = "localhost:%[5]s"
}
route %[1]q {
  match { listeners = [listener.tcp.%[1]s] }
  upstreams = [upstream.direct.%[1]s]
}
`, name, cert, more, addresses[name], port(at))
	}
	log := daemon(t, config)
	refused(t, addresses["standard"])
	line := log.Await(t, 1, "msg", "connection failed", "stage", "tls")[0]
	if text := fmt.Sprint(line["hint"]); !strings.Contains(text, "enable ECDHE there, or name one of its own in tls.cipher_suites") {
		t.Errorf("hint %q of %v", text, line["err"])
	}
	clientEnds(t, addresses["chosen"], "hello\n", "olleh\n")
}
