//go:build interop

// Package interop runs azrelay and its emulated service against independent
// software: Microsoft's hyco-ws and Node's ws.
package interop

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/plugins/azrelay"
	"github.com/tunneld/tunneld/plugins/azrelay/azrelayemu"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest"
)

const (
	// patience bounds everything; installing packages has its own.
	patience = 2 * time.Minute
	// installTime bounds npm ci.
	installTime = 5 * time.Minute
	listenKey   = "bGlzdGVuZXIga2V5"
	sendKey     = "c2VuZGVyIGtleQ=="
)

func TestMain(m *testing.M) {
	if ca := os.Getenv(farEndEnv); ca != "" {
		if err := runFarEnd(ca); err != nil {
			fmt.Fprintln(os.Stderr, "far end:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := 1
	switch err := prepare(); {
	case err == nil:
		code = m.Run()
	case errors.Is(err, exec.ErrNotFound) && os.Getenv("CI") != "true":
		fmt.Println("skipped:", err)
		code = 0
	default:
		fmt.Println("prepare:", err)
	}
	os.Exit(code)
}

// prepare installs the packages that package-lock.json pins.
func prepare() error {
	if _, err := exec.LookPath("node"); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join("node_modules", "hyco-ws", "node_modules", "ws")); err == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), installTime)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "npm", "ci").CombinedOutput(); err != nil {
		return fmt.Errorf("npm ci: %w\n%s", err, out)
	}
	return nil
}

// node runs peer.js and returns its lines.
type node struct {
	t     testing.TB
	lines *bufio.Scanner
}

func startNode(t testing.TB, s *azrelayemu.Server, args ...string) *node {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	cmd := exec.CommandContext(ctx, "node", append([]string{"peer.js"}, args...)...)
	cmd.Env = os.Environ()
	if s != nil && s.CA() != nil {
		cmd.Env = append(cmd.Env, "NODE_EXTRA_CA_CERTS="+writeCA(t, s))
	}
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = cmd.Wait() })
	return &node{t, bufio.NewScanner(out)}
}

// line waits for the next line that begins with a word and returns the rest.
func (n *node) line(word string) string {
	n.t.Helper()
	for n.lines.Scan() {
		if rest, ok := strings.CutPrefix(n.lines.Text(), word); ok {
			return strings.TrimSpace(rest)
		}
		n.t.Logf("node: %s", n.lines.Text())
	}
	n.t.Fatalf("node ended before it said %q", word)
	return ""
}

func startService(t testing.TB, o azrelayemu.Options) *azrelayemu.Server {
	t.Helper()
	o.Keys = map[string]azrelayemu.Key{
		"listen": {Value: listenKey, Rights: azrelayemu.Listen},
		"send":   {Value: sendKey, Rights: azrelayemu.Send},
	}
	if o.HybridConnections == nil {
		o.HybridConnections = map[string]azrelayemu.HybridConnection{"hc1": {}}
	}
	s, err := azrelayemu.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func writeCA(t testing.TB, s *azrelayemu.Server) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, s.CA(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// hycoToken is a token as hyco-ws makes it.
func hycoToken(t testing.TB, s *azrelayemu.Server, name, key string) string {
	t.Helper()
	return startNode(t, nil, "hyco-token", s.URL()+"/$hc/hc1", name, key).line("SharedAccessSignature ")
}

func listenURL(s *azrelayemu.Server) string { return s.URL() + "/$hc/hc1?sb-hc-action=listen" }

// dial goes through the plugin.
func dial(t testing.TB, s *azrelayemu.Server, over map[string]any) *sdktest.Conn {
	t.Helper()
	body := map[string]any{"endpoint": s.URL(), "hybrid_connection": "hc1", "key_name": "send", "key": sendKey}
	if s.CA() != nil {
		body["tls"] = map[string]any{"ca_file": writeCA(t, s)}
	}
	for k, v := range over {
		body[k] = v
	}
	u := sdktest.Start(t, azrelay.Plugin()).Configure(t, "bridge", body)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := u.Dial(ctx, "label")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

// pattern is peer.js's.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

// end closes the client's direction, reads the far end's and waits.
func end(t *testing.T, c *sdktest.Conn) {
	t.Helper()
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(c); err != nil || len(rest) != 0 {
		t.Errorf("%d bytes were left, %v", len(rest), err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := c.AwaitEnd(ctx); err != nil {
		t.Errorf("the tunnel's end: %v", err)
	}
}

func overWSAndWSS(t *testing.T, run func(t *testing.T, tls bool)) {
	t.Run("ws", func(t *testing.T) { run(t, false) })
	t.Run("wss", func(t *testing.T) { run(t, true) })
}

func TestHycoListener(t *testing.T) {
	overWSAndWSS(t, func(t *testing.T, tls bool) {
		s := startService(t, azrelayemu.Options{TLS: tls})
		far := startNode(t, s, "hyco-listener", listenURL(s), "SharedAccessSignature "+hycoToken(t, s, "listen", listenKey))
		far.line("ready")
		c := dial(t, s, map[string]any{"ping_interval": "20ms"})
		want := pattern(16 << 20)
		got := make([]byte, len(want))
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := c.Write(want); err != nil {
				t.Errorf("write: %v", err)
			}
		})
		if n, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d of %d bytes came back, %v", n, len(want), err)
		}
		wg.Wait()
		end(t, c)
		if got, want := far.line("closed"), fmt.Sprintf("1000 %d", len(want)); got != want {
			t.Errorf("the listener closed with %q, want %q", got, want)
		}
	})
}

func TestHycoListenerSeesAnAbort(t *testing.T) {
	s := startService(t, azrelayemu.Options{})
	far := startNode(t, s, "hyco-listener", listenURL(s), "SharedAccessSignature "+hycoToken(t, s, "listen", listenKey))
	far.line("ready")
	c := dial(t, s, nil)
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := c.Abort("the client went away"); err != nil {
		t.Fatal(err)
	}
	if got := far.line("closed"); got != "1006 1" {
		t.Errorf("the listener closed with %q, want 1006", got)
	}
}

func TestHycoSender(t *testing.T) {
	overWSAndWSS(t, func(t *testing.T, tls bool) {
		s := startService(t, azrelayemu.Options{TLS: tls, Forward: []azrelayemu.Forward{{HybridConnection: "hc1", Target: nettest.Serve(t, nettest.Echo)}}})
		far := startNode(t, s, "hyco-sender", s.URL()+"/$hc/hc1?sb-hc-action=connect",
			"SharedAccessSignature "+hycoToken(t, s, "send", sendKey), "4000000")
		if got := far.line("closed"); got != "1000 true" {
			t.Errorf("the sender closed with %q", got)
		}
	})
}

func TestHycoTokens(t *testing.T) {
	s := startService(t, azrelayemu.Options{Forward: []azrelayemu.Forward{{HybridConnection: "hc1", Target: nettest.Serve(t, nettest.Echo)}}})
	token := "SharedAccessSignature " + hycoToken(t, s, "send", sendKey)
	for _, in := range []string{"header", "query"} {
		c := dial(t, s, map[string]any{"key_name": "", "key": "", "token": token, "token_in": in})
		end(t, c)
	}
}

func TestNodeListener(t *testing.T) {
	const bytesDown, bytesUp = 4_000_000, 3_000_000
	ascii := func(b []byte) []byte { return []byte(latin1(b)) }
	for _, tt := range []struct {
		as   string
		want []byte
	}{
		{"fragments", pattern(bytesDown)},
		{"text", ascii(pattern(bytesDown))},
		{"large", pattern(bytesDown)},
		{"pings", pattern(bytesDown)},
	} {
		t.Run(tt.as, func(t *testing.T) {
			overWSAndWSS(t, func(t *testing.T, tls bool) {
				s := startService(t, azrelayemu.Options{TLS: tls})
				far := startNode(t, s, "ws-listener", listenURL(s), "SharedAccessSignature "+hycoToken(t, s, "listen", listenKey))
				far.line("ready")
				c := dial(t, s, nil)
				if _, err := fmt.Fprintf(c, `{"bytes":%d,"as":%q}`, bytesDown, tt.as); err != nil {
					t.Fatal(err)
				}
				got := make([]byte, len(tt.want))
				if n, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, tt.want) {
					t.Errorf("%d of %d bytes came, %v", n, len(tt.want), err)
				}
				if _, err := c.Write(pattern(bytesUp)); err != nil {
					t.Fatal(err)
				}
				end(t, c)
				var code, pongs, up int
				var sum string
				if _, err := fmt.Sscan(far.line("closed"), &code, &pongs, &up, &sum); err != nil {
					t.Fatal(err)
				}
				if code != 1000 || up != bytesUp || sum != fmt.Sprintf("%x", sha256.Sum256(pattern(bytesUp))) {
					t.Errorf("the listener saw code %d and %d bytes", code, up)
				}
				if pinged := tt.as == "pings" || tt.as == "fragments"; (pongs > 0) != pinged {
					t.Errorf("%d pongs", pongs)
				}
			})
		})
	}
}

// latin1 is what a text message of these bytes holds in UTF-8.
func latin1(b []byte) string {
	r := make([]rune, len(b))
	for i, c := range b {
		r[i] = rune(c)
	}
	return string(r)
}
