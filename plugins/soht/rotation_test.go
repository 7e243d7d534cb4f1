package soht

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest"
	"github.com/tunneld/tunneld/plugins/soht/sohtemu"
)

// copyFile puts a file in another one's place.
func copyFile(t *testing.T, to, from string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to+".new", b, 0o600)
	}
	if err == nil {
		err = os.Rename(to+".new", to)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// dials says how a dial goes; a tunnel is closed at once.
func dials(t *testing.T, u *sdktest.Upstream, target string) error {
	t.Helper()
	c, err := u.Dial(t.Context(), target)
	if err == nil {
		write(t, c, []byte("hi"))
		read(t, c, 2)
		_ = c.Close()
	}
	return err
}

// TestAuthoritiesAreFollowed replaces ca_file between dials: a server that it no
// longer vouches for is not spoken to, also not on a connection that was kept.
func TestAuthoritiesAreFollowed(t *testing.T) {
	conf, ca := certificate(t)
	_, other := certificate(t)
	s := emulate(t, sohtemu.Options{TLS: conf})
	modes(t, func(t *testing.T, mode string) {
		file := filepath.Join(t.TempDir(), "ca.pem")
		copyFile(t, file, ca)
		u := upstream(t, towards(s, mode, values{"tls": values{"ca_file": file}}))
		target := echo(t)
		if err := dials(t, u, target); err != nil {
			t.Fatal(err)
		}
		copyFile(t, file, other)
		if e := dialError(t, dials(t, u, target)); e.Stage != sdk.StageTLS || e.Reason != sdk.ReasonProtocol {
			t.Errorf("by another authority: %+v", e)
		}
		copyFile(t, file, ca)
		if err := dials(t, u, target); err != nil {
			t.Error(err)
		}
	})
}
