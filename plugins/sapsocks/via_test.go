package sapsocks_test

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/proxytest"
	"github.com/tunneld/tunneld/plugins/sapsocks"
	"github.com/tunneld/tunneld/plugins/sapsocks/sapsocksemu"
)

// TestVia: the connectivity proxy and the token service are both reached through it.
func TestVia(t *testing.T) {
	emu := emulate(t, sapsocksemu.Options{})
	proxy := proxytest.HTTP(t, "u:pw")
	u := configure(t, bound(emu, values{"via": "http://u:pw@" + proxy.Addr}))
	c, err := u.Dial(within(t), "echo.corp:7")
	if err != nil {
		t.Fatal(err)
	}
	if c.Path != "direct" || c.Remote != proxy.Addr {
		t.Errorf("path %s to %s", c.Path, c.Remote)
	}
	exchange(t, c, "hello")
	token, err := url.Parse(emu.TokenService())
	if err != nil {
		t.Fatal(err)
	}
	if asked := proxy.Asked(); !slices.Contains(asked, emu.Proxy()) || !slices.Contains(asked, token.Host) {
		t.Errorf("the proxy was asked for %q", asked)
	}
}

// TestTokenServiceOfTheEnvironment: without via, the token service alone is reached
// through the environment's proxy.
func TestTokenServiceOfTheEnvironment(t *testing.T) {
	emu := emulate(t, sapsocksemu.Options{})
	proxy := proxytest.HTTP(t, "")
	t.Setenv("HTTPS_PROXY", "http://"+proxy.Addr)
	v := bound(emu, nil)
	v["oauth"] = values{"token_url": "https://token.invalid/oauth/token"}
	_, err := configure(t, v).Dial(within(t), "echo.corp:7")
	if asked := proxy.Asked(); err == nil || !slices.Contains(asked, "token.invalid:443") || slices.Contains(asked, emu.Proxy()) {
		t.Errorf("the proxy was asked for %q, %v", asked, err)
	}
}

// TestEnvironmentWithoutAProxy: what is wrong with the variable is not told of the
// binding, and what it holds is not told at all.
func TestEnvironmentWithoutAProxy(t *testing.T) {
	emu := emulate(t, sapsocksemu.Options{})
	t.Setenv("HTTPS_PROXY", "ftp://u:s3cret@proxy.corp")
	err := fails(t, configure(t, bound(emu, nil)), "echo.corp:7", sapsocks.TokenNotAsked)
	if text := err.Message; !strings.Contains(text, "HTTPS_PROXY") || strings.Contains(text, "binding") || strings.Contains(text, "s3cret") {
		t.Errorf("%s (%s)", text, err.Hint)
	}
}
