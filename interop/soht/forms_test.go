//go:build interop

package interop

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"maps"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/proctest"
	"github.com/tunneld/tunneld/plugins/soht/sohtemu"
)

// parsed is what a parser of others makes of a tunnel's forms.
type parsed struct {
	Opens []map[string]string `json:"opens"`
	Data  string              `json:"data"` // in hex
}

// TestForms has the form parsers of Node and Python read what the plugin sends:
// the data fields give back the bytes that were written, and an open its login.
func TestForms(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			bodies, sent := record(t, mode)
			for _, program := range [][]string{{"node", "forms.js"}, {"python3", "forms.py"}} {
				results := parse(t, bodies, program...)
				if len(results) == 0 {
					t.Errorf("%s: no result", program)
				}
				for parser, p := range results {
					if got, err := hex.DecodeString(p.Data); err != nil || !bytes.Equal(got, sent) {
						t.Errorf("%s: %d bytes, other than the %d sent (%v)", parser, len(got), len(sent), err)
					}
					delete(p.Opens[0], "port")
					want := map[string]string{"action": "open", "host": "127.0.0.1", "username": "al ice&", "password": "p=ä+%;"}
					if len(p.Opens) != 1 || !maps.Equal(p.Opens[0], want) {
						t.Errorf("%s: opens %v, want %v", parser, p.Opens, want)
					}
				}
			}
		})
	}
}

// record returns the forms of a tunnel through which every pair of bytes went,
// and what was sent.
func record(t *testing.T, mode string) (bodies [][]byte, sent []byte) {
	t.Helper()
	var mu sync.Mutex
	s := emulate(t, sohtemu.Options{
		Users: map[string]string{"al ice&": "p=ä+%;"}, IdlePoll: time.Millisecond,
		Observe: func(f sohtemu.Form) {
			mu.Lock()
			bodies = append(bodies, f.Raw)
			mu.Unlock()
		},
	})
	for a := range 256 {
		for b := range 256 {
			sent = append(sent, byte(a), byte(b))
		}
	}
	c := mustConnect(t, nettest.Serve(t, nettest.Echo), values{"url": s.URL(), "mode": mode, "username": "al ice&", "password": "p=ä+%;", "write_size": 9999}, nil)
	go func() { _, _ = c.Write(sent) }()
	if _, err := io.ReadFull(c, make([]byte, len(sent))); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	mu.Lock()
	defer mu.Unlock()
	return bodies[:len(bodies):len(bodies)], sent
}

func parse(t *testing.T, bodies [][]byte, program ...string) map[string]parsed {
	t.Helper()
	var in bytes.Buffer
	for _, b := range bodies {
		in.WriteString(base64.StdEncoding.EncodeToString(b) + "\n")
	}
	cmd := exec.CommandContext(t.Context(), proctest.Tool(t, program[0]), program[1:]...)
	cmd.Stdin = &in
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", program, err, stderr.String())
	}
	var results map[string]parsed
	if err := json.Unmarshal(out, &results); err != nil {
		t.Fatalf("%s: %v", program, err)
	}
	return results
}
