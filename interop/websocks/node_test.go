//go:build interop

package interop

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/proctest"
	"github.com/tunneld/tunneld/plugins/websocks/websocksemu"
)

// node runs a script of this folder and decodes what it prints.
func node(t *testing.T, result any, script string, args ...string) {
	t.Helper()
	program := proctest.Node(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, append([]string{script}, args...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	output, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, stderr.String())
	}
	if err := json.Unmarshal(output, result); err != nil {
		t.Fatalf("%s printed %q: %v", script, output, err)
	}
}

// TestNodeReceiver has Node's ws parse what the plugin and the server send. It
// takes the header, and stops at the length, since it counts to 2^53 only; with
// the mask that a browser's client would need, it would have said so first.
func TestNodeReceiver(t *testing.T) {
	v := record(t)
	for name, stream := range map[string][]byte{"client": v.client, "server": v.server} {
		var got struct{ Code string }
		node(t, &got, "receiver.mjs", hex.EncodeToString(stream[:64]))
		if got.Code != "WS_ERR_UNSUPPORTED_DATA_PAYLOAD_LENGTH" {
			t.Errorf("%s: %q, want only the length refused", name, got.Code)
		}
	}
}

// TestNodeClient has Node's ws upgrade at the emulated server, with a password
// that it salts itself, over ws:// and wss://. Its first message of four bytes
// is ten on the wire, and so stands for the frame; the server answers with a
// frame that ws can read. Behind that both speak SOCKS on the bare socket. Node ends
// TLS by close_notify, which the original would not take for an end.
func TestNodeClient(t *testing.T) {
	for name, secure := range map[string]bool{"ws": false, "wss": true} {
		t.Run(name, func(t *testing.T) {
			s := emulate(t, websocksemu.Options{
				TLS:    secure,
				Users:  map[string]string{"alice": "pa:ss ü"},
				Faults: websocksemu.Faults{Frame: []byte("\x82\x08anything"), CloseNotify: true},
			})
			var got struct {
				Protocol, Message, Socks, Echo string
				Ended                          bool
			}
			node(t, &got, "client.mjs", s.URL()+"/any", s.CAFile(), "alice", "pa:ss ü", websocksemu.EchoTarget)
			if got.Protocol != "socks5" || got.Message != "anything" {
				t.Errorf("protocol %q, message %q", got.Protocol, got.Message)
			}
			if want := "0500" + "05000001000000000007"; got.Socks != want {
				t.Errorf("SOCKS answers %s, want %s", got.Socks, want)
			}
			if got.Echo != strings.Repeat("data", 1000) || !got.Ended {
				t.Errorf("%d bytes came back, ended %t", len(got.Echo), got.Ended)
			}
		})
	}
}

// TestNodeClientIsRefused has Node's ws see the 401.
func TestNodeClientIsRefused(t *testing.T) {
	s := emulate(t, websocksemu.Options{Users: map[string]string{"alice": "secret"}})
	var got struct {
		Status  int
		Type    string
		Refusal string
	}
	node(t, &got, "client.mjs", s.URL(), "", "alice", "wrong", websocksemu.EchoTarget)
	if got.Status != 401 || got.Type != "text/html" || !strings.Contains(got.Refusal, "<h1>auth failed</h1>") {
		t.Errorf("%+v", got)
	}
}
