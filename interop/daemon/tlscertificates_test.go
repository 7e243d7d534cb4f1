//go:build interop

package daemon

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/nettest"
)

// TestOpenSSLShowsACertificate: who is let in is the user, and who is not hears why.
func TestOpenSSLShowsACertificate(t *testing.T) {
	address := nettest.Serve(t, nettest.Echo)
	d, a := open(t, "tcp", fmt.Sprintf(" target = %q\n", address), mutual)
	stranger, strangerKey := identity(t, a, "spiffe://elsewhere/alice")
	below, belowKey := identity(t, a, "spiffe://corp/team/bob") // * is no path
	other := nettest.NewAuthority(t, "another authority")
	unknown, unknownKey := identity(t, other, "spiffe://corp/alice")
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		for name, c := range map[string]struct {
			cert, key  string
			hears, log string
		}{
			"let in":                    {d.cert, d.key, "hello", "user=spiffe://corp/alice"},
			"another's name":            {stranger, strangerKey, "alert bad certificate", "no name of the client's certificate is in allow_san: it has spiffe://elsewhere/alice"},
			"a name with one more part": {below, belowKey, "alert bad certificate", "spiffe://corp/team/bob"},
			"of another authority":      {unknown, unknownKey, "alert unknown ca", "certificate signed by unknown authority"},
			"none":                      {"", "", map[string]string{"-tls1_2": "alert handshake failure", "-tls1_3": "alert certificate required"}[version], "client didn't provide a certificate"},
		} {
			t.Run(name+version, func(t *testing.T) {
				args := []string{version, "-quiet", "-no_ign_eof"}
				if c.cert != "" {
					args = append(args, "-cert", c.cert, "-key", c.key)
				}
				client := startSClient(t, d, args...)
				_, _ = io.WriteString(client.stdin, "hello\n") // it may be gone already
				eventually(t, c.hears, func() error {
					if !strings.Contains(client.output(), c.hears) {
						return errors.New(client.output())
					}
					return nil
				})
				_ = client.stdin.Close()
				<-client.ended
				d.logs(t, c.log)
			})
		}
	}
}
