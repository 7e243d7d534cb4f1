package soht

import (
	"crypto/tls"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest"
	"github.com/tunneld/tunneld/plugins/soht/sohtemu"
)

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

// TestTLSSessionsAreResumed by connections of other tunnels.
func TestTLSSessionsAreResumed(t *testing.T) {
	conf, ca := certificate(t)
	var all, resumed atomic.Int32
	conf.VerifyConnection = func(s tls.ConnectionState) error {
		all.Add(1)
		if s.DidResume {
			resumed.Add(1)
		}
		return nil
	}
	s := emulate(t, sohtemu.Options{TLS: conf})
	modes(t, func(t *testing.T, mode string) {
		all.Store(0)
		resumed.Store(0)
		u := upstream(t, towards(s, mode, values{"tls": values{"ca_file": ca}}))
		target := nettest.Serve(t, nettest.Echo)
		for range 3 {
			c, err := u.Dial(t.Context(), target)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			write(t, c, []byte("hi"))
			read(t, c, 2)
		}
		if resumed.Load() == 0 {
			t.Errorf("none of %d connections resumed a session", all.Load())
		}
	})
}

// TestAuthoritiesAreFollowed replaces ca_file between dials: a server that it no
// longer vouches for is not spoken to, also not on a connection that was kept.
func TestAuthoritiesAreFollowed(t *testing.T) {
	conf, ca := certificate(t)
	_, other := certificate(t)
	s := emulate(t, sohtemu.Options{TLS: conf})
	modes(t, func(t *testing.T, mode string) {
		file := filepath.Join(t.TempDir(), "ca.pem")
		nettest.ReplaceFile(t, file, ca)
		u := upstream(t, towards(s, mode, values{"tls": values{"ca_file": file}}))
		target := nettest.Serve(t, nettest.Echo)
		if err := dials(t, u, target); err != nil {
			t.Fatal(err)
		}
		nettest.ReplaceFile(t, file, other)
		var err error
		for late := time.Now().Add(patience); err == nil && time.Now().Before(late); {
			err = dials(t, u, target)
		}
		if e := dialError(t, err); e.Stage != sdk.StageTLS || e.Reason != sdk.ReasonProtocol {
			t.Errorf("by another authority: %+v", e)
		}
		nettest.ReplaceFile(t, file, ca)
		for late := time.Now().Add(patience); err != nil; {
			if err = dials(t, u, target); time.Now().After(late) {
				t.Fatal(err)
			}
		}
	})
}
