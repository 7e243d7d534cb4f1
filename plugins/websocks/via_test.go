package websocks

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/tunneld/tunneld/internal/proxytest"
	"github.com/tunneld/tunneld/plugins/websocks/websocksemu"
)

// TestVia: over ws:// the proxy's socket is handed over; over wss:// there is the
// server's TLS on it, and behind an https proxy a second one.
func TestVia(t *testing.T) {
	plain, secure := emulate(t, websocksemu.Options{}), emulate(t, websocksemu.Options{TLS: true})
	open, tls := proxytest.HTTP(t, "u:pw"), proxytest.HTTPS(t, "u:pw")
	socks := proxytest.SOCKS5(t, "u", "pw")
	both := filepath.Join(t.TempDir(), "both.pem")
	var authorities []byte
	for _, file := range []string{secure.CAFile(), tls.CAFile} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		authorities = append(authorities, b...)
	}
	if err := os.WriteFile(both, authorities, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		server *websocksemu.Server
		via    string
		path   string
	}{
		"ws, http":    {plain, "http://u:pw@" + open.Addr, "direct"},
		"ws, socks5":  {plain, "socks5://u:pw@" + socks.Addr, "direct"},
		"wss, http":   {secure, "http://u:pw@" + open.Addr, "relay"},
		"wss, socks5": {secure, "socks5://u:pw@" + socks.Addr, "relay"},
		"wss, https":  {secure, "https://u:pw@" + tls.Addr, "relay"},
	} {
		t.Run(name, func(t *testing.T) {
			v := towards(tt.server, values{"via": tt.via})
			if tt.server == secure {
				v["tls"] = values{"ca_file": both}
			}
			c := mustDial(t, v, websocksemu.EchoTarget)
			if string(c.Path) != tt.path {
				t.Errorf("path %s", c.Path)
			}
			send(t, c, "hello")
			expect(t, c, "hello")
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			expectEOF(t, c)
		})
	}
}
