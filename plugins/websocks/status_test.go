package websocks

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest"
	"github.com/tunneld/tunneld/plugins/websocks/websocksemu"
)

// TestStatus dials through one upstream, and after each dial asks for what the
// daemon was told.
func TestStatus(t *testing.T) {
	type faults = websocksemu.Faults
	s := emulate(t, websocksemu.Options{})
	u := sdktest.Start(t, Plugin()).Configure(t, "test", towards(s))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, tt := range []struct {
		faults faults
		health sdk.Health
		words  string
	}{
		{faults{}, sdk.HealthOK, ""},
		{faults{Status: 403}, sdk.HealthFailing, "403 Forbidden"},
		{faults{Reply: 5}, sdk.HealthOK, ""},
		{faults{Method: 0xff}, sdk.HealthFailing, "0xff"},
		{faults{Reply: 2}, sdk.HealthOK, ""},
		{faults{Reply: 1}, sdk.HealthFailing, "general SOCKS server failure"},
		{faults{Reply: 4}, sdk.HealthOK, ""},
		{faults{Reply: 7}, sdk.HealthFailing, "(7)"},
		{faults{Reply: 8}, sdk.HealthOK, ""},
		{faults{StopAt: websocksemu.Greeted, StopBy: websocksemu.Close}, sdk.HealthFailing, "closed the connection"},
		{faults{}, sdk.HealthOK, ""},
	} {
		s.SetFaults(tt.faults)
		if c, err := u.Dial(ctx, websocksemu.EchoTarget); err == nil {
			_ = c.Close()
		}
		u.AwaitStatus(ctx, t, func(st sdk.Status) bool {
			return st.Health == tt.health && strings.Contains(st.Message, tt.words) && (st.Message == "") == (tt.words == "")
		})
	}
}

// TestStatusOfADialThatSaysNothing: one that was given up, and ones that ask for
// what no server could be asked for.
func TestStatusOfADialThatSaysNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	url := script(t, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1))
		cancel()
		_, _ = io.Copy(io.Discard, c)
	})
	c := &Config{URL: url, Timeouts: sdk.Timeouts{Connect: patience, Handshake: patience}}
	if err := c.Start(&sdk.Env{Report: func(st sdk.Status) { t.Errorf("told %+v", st) }}); err != nil {
		t.Fatal(err)
	}
	for _, target := range []sdk.Target{{Host: "label"}, {Host: strings.Repeat("h", 256), Port: 7}, {Host: "echo.internal", Port: 7}} {
		if _, err := c.Dial(ctx, &sdk.Request{Target: target}); err == nil {
			t.Errorf("dial %s succeeded", target)
		}
	}
	if ctx.Err() == nil {
		t.Error("the server was not reached")
	}
}
