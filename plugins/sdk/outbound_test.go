package sdk_test

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/proxytest"
	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// straight is a plugin that connects to the target itself.
type straight struct {
	TLS *sdk.TLS `tunneld:"tls" doc:"TLS"`
}

func (s *straight) Dial(ctx context.Context, req *sdk.Request) (*sdk.Tunnel, error) {
	conn, err := req.Connect(ctx, req.Target.String())
	if err != nil {
		return nil, err
	}
	return sdk.Direct(conn, nil), nil
}

func straightPlugin() sdk.Plugin {
	return sdk.Plugin{Name: "straight", Version: "1.0.0", New: func() sdk.Dialer { return new(straight) }}
}

// greets speaks first, and answers once its peer has ended.
func greets(c *net.TCPConn) {
	_, _ = io.WriteString(c, "hello ")
	b, _ := io.ReadAll(c)
	_, _ = c.Write([]byte(strings.ToUpper(string(b))))
}

// TestEveryPluginHasVia: a plugin that knows nothing of proxies goes through one, and
// the tunnel is the socket's own where that can be; behind an https proxy, whose
// authority is the tls block's, the SDK pumps it.
func TestEveryPluginHasVia(t *testing.T) {
	target := nettest.Serve(t, greets)
	secured := proxytest.HTTPS(t, "u:pw")
	trust := map[string]any{"ca_file": secured.CAFile, "server_name": "elsewhere"}
	for name, tt := range map[string]struct {
		values map[string]any
		path   string
	}{
		"http":   {map[string]any{"via": "http://u:pw@" + proxytest.HTTP(t, "u:pw").Addr}, "direct"},
		"https":  {map[string]any{"via": "https://u:pw@" + secured.Addr, "tls": trust}, "relay"},
		"socks5": {map[string]any{"via": sdk.NewSecret("socks5://u:pw@" + proxytest.SOCKS5(t, "u", "pw").Addr)}, "direct"},
		"bind":   {map[string]any{"bind": "127.0.0.9"}, "direct"},
	} {
		t.Run(name, func(t *testing.T) {
			u := sdktest.Start(t, straightPlugin()).Configure(t, "u", tt.values)
			c, err := u.Dial(t.Context(), target)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if got := string(c.Path); got != tt.path {
				t.Errorf("path %s", got)
			}
			if host, _, _ := net.SplitHostPort(c.Local); name == "bind" && host != "127.0.0.9" {
				t.Errorf("from %s", host)
			}
			if _, err := io.WriteString(c, "there"); err != nil {
				t.Fatal(err)
			}
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(c); string(got) != "hello THERE" || err != nil {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

func TestViaThatRefuses(t *testing.T) {
	u := sdktest.Start(t, straightPlugin()).Configure(t, "u", map[string]any{"via": "http://u:s3cret@" + proxytest.HTTP(t, "u:other").Addr})
	_, err := u.Dial(t.Context(), "far.corp:5432")
	var e *sdk.DialError
	if !errors.As(err, &e) {
		t.Fatal(err)
	}
	if e.Stage != sdk.StageConnect || e.Reason != sdk.ReasonUnauthenticated || e.Retryable || !strings.Contains(e.Hint, "via") || strings.Contains(e.Error(), "s3cret") {
		t.Errorf("%+v", e)
	}
}

func TestViaAndBindAreChecked(t *testing.T) {
	p := sdktest.Start(t, straightPlugin())
	ds := p.Validate(t, "u", map[string]any{"via": "ftp://u:s3cret@proxy", "bind": "eth0"})
	var got []string
	for _, d := range ds {
		got = append(got, strings.Join(d.Path, ".")+": "+d.Summary)
		if strings.Contains(d.Summary+d.Detail, "s3cret") || d.Detail == "" {
			t.Errorf("%+v", d)
		}
	}
	if want := []string{"via: via is not a proxy: its scheme is not http, https or socks5", "bind: bind is not a usable address: it is not an IP address"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// TestOlderDaemon: to a daemon from before via was everybody's it is the plugin's
// own, as it was of some; to another the schema holds nothing of it.
func TestOlderDaemon(t *testing.T) {
	p := sdktest.Start(t, straightPlugin())
	proxy := proxytest.HTTP(t, "")
	names := func(table uint32) (all []string) {
		if _, err := p.Control().GetInfo(t.Context(), &pluginv1.GetInfoRequest{CommonNames: table}); err != nil {
			t.Fatal(err)
		}
		schema, err := p.Control().GetSchema(t.Context(), &pluginv1.GetSchemaRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range schema.GetUpstream().GetAttributes() {
			all = append(all, a.GetName())
			if a.GetName() == "via" && !a.GetSensitive() {
				t.Error("via may be shown")
			}
		}
		return all
	}
	if got := names(0); !slices.Equal(got, []string{"via", "bind"}) {
		t.Errorf("to an older daemon: %q", got)
	}
	if got := names(2); len(got) > 0 {
		t.Errorf("to this one: %q", got)
	}
	up := &pluginv1.Upstream{Name: "u", ConfigHash: "1", ConfigJson: []byte(`{"via":"http://` + proxy.Addr + `","bind":"127.0.0.1"}`)}
	resp, err := p.Control().Configure(t.Context(), &pluginv1.ConfigureRequest{Generation: 77, Upstreams: []*pluginv1.Upstream{up}})
	if err != nil || len(resp.GetDiagnostics()) > 0 {
		t.Fatalf("%v, %v", resp, err)
	}
	_, err = p.Tunnels().Dial(t.Context(), &pluginv1.DialRequest{Generation: 77, Upstream: "u", Token: 1 << 40, Target: &pluginv1.Target{Host: "127.0.0.1", Port: 1}})
	if err != nil || !slices.Equal(proxy.Asked(), []string{"127.0.0.1:1"}) {
		t.Errorf("the proxy was asked for %q, %v", proxy.Asked(), err)
	}
	up = &pluginv1.Upstream{Name: "u", ConfigHash: "2", ConfigJson: []byte(`{"via":7}`)}
	valid, err := p.Control().ValidateConfig(t.Context(), &pluginv1.ValidateConfigRequest{Upstream: up})
	if err != nil || len(valid.GetDiagnostics()) != 1 || valid.GetDiagnostics()[0].GetPath()[0] != "via" {
		t.Errorf("%v, %v", valid, err)
	}
}
