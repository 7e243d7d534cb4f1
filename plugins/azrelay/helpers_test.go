package azrelay_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tunneld/tunneld/plugins/azrelay"
	"github.com/tunneld/tunneld/plugins/azrelay/azrelayemu"
	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest"
)

// patience bounds what a test waits for; nothing takes nearly as long.
const patience = 60 * time.Second

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// startEmulator runs a service with the policies "send", "listen" and "root".
func startEmulator(t testing.TB, o azrelayemu.Options) *azrelayemu.Server {
	t.Helper()
	if o.Keys == nil {
		o.Keys = map[string]azrelayemu.Key{
			"send":   {Value: "c2VuZGVyIGtleQ==", Rights: azrelayemu.Send},
			"listen": {Value: "bGlzdGVuZXIga2V5", Rights: azrelayemu.Listen},
			"root":   {Value: "cm9vdCBrZXk=", Rights: azrelayemu.Manage},
		}
	}
	s, err := azrelayemu.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// body is an upstream's body for s; over replaces and, with nil, removes values.
func body(t testing.TB, s *azrelayemu.Server, over map[string]any) map[string]any {
	t.Helper()
	b := map[string]any{
		"endpoint":          s.URL(),
		"hybrid_connection": "hc1",
		"key_name":          "send",
		"key":               "c2VuZGVyIGtleQ==",
	}
	if ca := s.CA(); ca != nil {
		file := filepath.Join(t.TempDir(), "ca.pem")
		if err := os.WriteFile(file, ca, 0o600); err != nil {
			t.Fatal(err)
		}
		b["tls"] = map[string]any{"ca_file": file}
	}
	for k, v := range over {
		if b[k] = v; v == nil {
			delete(b, k)
		}
	}
	return b
}

// upstream configures the plugin.
func upstream(t testing.TB, values map[string]any) *sdktest.Upstream {
	t.Helper()
	return sdktest.Start(t, azrelay.Plugin()).Configure(t, "bridge", values)
}

func dial(t testing.TB, u *sdktest.Upstream, target string) *sdktest.Conn {
	t.Helper()
	c, err := u.Dial(within(t), target)
	if err != nil {
		t.Fatalf("dial %s: %v", target, err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c
}

// dialError dials and returns the failure.
func dialError(t testing.TB, u *sdktest.Upstream, target string) *sdk.DialError {
	t.Helper()
	c, err := u.Dial(within(t), target)
	if err == nil {
		_ = c.Close()
		t.Fatalf("dial %s succeeded", target)
	}
	var d *sdk.DialError
	if !errors.As(err, &d) {
		t.Fatalf("dial %s: %v is no *sdk.DialError", target, err)
	}
	return d
}

// stream is n bytes that no cut or swap leaves unnoticed.
func stream(seed uint64, n int64) io.Reader {
	var key [32]byte
	key[0] = byte(seed)
	return io.LimitReader(rand.NewChaCha8(key), n)
}

func sum(t testing.TB, r io.Reader) (sha [32]byte, n int64) {
	t.Helper()
	h := sha256.New()
	n, err := io.Copy(h, r)
	if err != nil {
		t.Errorf("read after %d bytes: %v", n, err)
	}
	return [32]byte(h.Sum(nil)), n
}
