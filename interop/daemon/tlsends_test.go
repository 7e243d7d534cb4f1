//go:build interop

package daemon

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/proctest"
)

// client asks "question", hears "answer", and says how it went.
type client struct {
	name string
	run  func(t *testing.T, d *door) string
	// endsFirst: it ends its direction before it hears anything.
	endsFirst bool
	// says is what it says, and resets whether the target is then reset, instead of seeing
	// an end, with each half_close.
	says   map[string]string
	resets map[string]odds
}

// odds of something.
type odds string

const (
	never  odds = ""
	always odds = "always"
	maybe  odds = "maybe"
)

// program runs one with the listener's address and the client's files.
func program(find func(testing.TB) string, args ...string) func(*testing.T, *door) string {
	return func(t *testing.T, d *door) string {
		return says(t, nil, find(t), append(args, d.address, d.ca, d.cert, d.key)...)
	}
}

func python(t testing.TB) string { return proctest.Tool(t, "python3") }

// clients are those of docs/configuration.md, "How a direction ends".
var clients = []client{
	{
		name: "Node, which ends its direction", run: program(proctest.Node, "tls.mjs", "ends"), endsFirst: true,
		says: map[string]string{"close_notify": "answer\nan end", "fin": "answer\nan end"},
	},
	{
		name: "Node", run: program(proctest.Node, "tls.mjs", "hears"),
		says: map[string]string{"close_notify": "answer\nan end", "fin": "answer\nan end"},
	},
	{
		name: "Python", run: program(python, "tls.py", "raises"),
		says:   map[string]string{"close_notify": "answer\nan end\nclosed", "fin": "answer\nSSLEOFError [SSL: UNEXPECTED_EOF_WHILE_READING]"},
		resets: map[string]odds{"fin": always}, // OpenSSL answers the FIN with an alert
	},
	{
		name: "Python, as it is by default", run: program(python, "tls.py", "default"),
		says:   map[string]string{"close_notify": "answer\nan end\nclosed", "fin": "answer\nan end\nSSLError"},
		resets: map[string]odds{"fin": always},
	},
	{
		name: "Python, which ends its direction without an alert", run: program(python, "tls.py", "shuts"), endsFirst: true,
		says:   map[string]string{"close_notify": "ConnectionResetError", "fin": "an end"},
		resets: map[string]odds{"close_notify": always},
	},
	{
		name: "a client behind stunnel, which ends its direction", run: behindStunnel(true), endsFirst: true,
		says: map[string]string{"close_notify": "answer\nan end", "fin": "answer\nan end"},
	},
	{
		name: "a client behind stunnel", run: behindStunnel(false),
		says:   map[string]string{"close_notify": "answer\nan end", "fin": "answer\nan end"},
		resets: map[string]odds{"fin": maybe}, // by how stunnel notices the FIN
	},
}

// TestEnds is the rest of the table with OpenSSL's own client: each client has shown a
// certificate, by which its user is known.
func TestEnds(t *testing.T) {
	for _, mode := range []string{"close_notify", "fin"} {
		for _, version := range []string{"1.2", "1.3"} {
			t.Run(mode+" "+version, func(t *testing.T) {
				address, accepted := oneByOne(t)
				d, _ := open(t, "tcp", fmt.Sprintf(" target = %q\n dial_on = \"first_byte\"\n", address), fmt.Sprintf("  half_close = %q\n  max_version = %q\n", mode, version)+mutual)
				for _, c := range clients {
					t.Run(c.name, func(t *testing.T) { c.converse(t, mode, d, accepted) })
				}
			})
		}
	}
}

func (c client) converse(t *testing.T, mode string, d *door, accepted func() served) {
	before := strings.Count(d.daemon.Output(), "msg=connection")
	said := make(chan string, 1)
	go func() {
		defer close(said)
		said <- c.run(t, d)
	}()
	s := accepted()
	defer s.conn.Close()
	s.reads("question\n")
	reset := c.resets[mode]
	if c.endsFirst {
		s.ends(reset == never)
	}
	if !c.endsFirst || reset == never {
		if _, err := io.WriteString(s.conn, "answer\n"); err != nil {
			t.Error(err)
		}
		_ = s.conn.CloseWrite()
	}
	if got := <-said; !strings.HasPrefix(got, c.says[mode]) {
		t.Errorf("the client says %q, want %q", got, c.says[mode])
	}
	if reset == maybe {
		return
	}
	if !c.endsFirst {
		s.ends(reset == never)
	}
	reason := "reason=upstream_eof"
	switch {
	case reset == always:
		reason = "reason=client_reset"
	case c.endsFirst:
		reason = "reason=client_eof"
	}
	eventually(t, reason, func() error {
		n := 0
		for line := range strings.Lines(d.daemon.Output()) {
			if !strings.Contains(line, "msg=connection ") {
				continue
			}
			if n++; n > before && strings.Contains(line, reason) && strings.Contains(line, "user=spiffe://corp/alice") {
				return nil
			}
		}
		return fmt.Errorf("no such line behind %d others", before)
	})
}

// stunnel runs one that speaks TLS with the listener for clients that speak none, and
// returns its address.
func stunnel(t *testing.T, d *door) string {
	t.Helper()
	address := nettest.FreeAddress(t)
	config := fmt.Sprintf("foreground = yes\npid =\nsyslog = no\n[door]\nclient = yes\naccept = %s\nconnect = %s\nCAfile = %s\nverifyChain = yes\ncheckHost = door.example\nsni = door.example\ncert = %s\nkey = %s\n",
		address, d.address, d.ca, d.cert, d.key)
	file := filepath.Join(t.TempDir(), "stunnel.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	proctest.Start(t, exec.Command(proctest.Tool(t, "stunnel4"), file)).Listens(t, address)
	return address
}

func behindStunnel(endsFirst bool) func(*testing.T, *door) string {
	return func(t *testing.T, d *door) string {
		c, err := net.DialTimeout("tcp", stunnel(t, d), patience)
		if err != nil {
			return err.Error()
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(c, "question\n"); err != nil {
			return err.Error()
		}
		if endsFirst {
			_ = c.(*net.TCPConn).CloseWrite()
		}
		got, err := io.ReadAll(c)
		if err != nil {
			return string(got) + err.Error()
		}
		return string(got) + "an end"
	}
}
