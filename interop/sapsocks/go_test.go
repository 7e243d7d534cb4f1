//go:build interop

package interop

import (
	"context"
	"io"
	"log"
	"net"
	"strconv"
	"testing"
	"time"

	gosocks5 "github.com/armon/go-socks5"
	"golang.org/x/net/proxy"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/plugins/sapsocks"
	"github.com/tunneld/tunneld/plugins/sapsocks/sapsocksemu"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest"
)

// serveSOCKS runs go-socks5 until the test ends.
func serveSOCKS(t *testing.T, c *gosocks5.Config) string {
	t.Helper()
	c.Logger = log.New(io.Discard, "", 0)
	s, err := gosocks5.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return nettest.Serve(t, func(conn *net.TCPConn) { _ = s.ServeConn(conn) })
}

// names resolves each name to ip; nil leaves it to the proxy.
type names struct{ ip net.IP }

func (n names) Resolve(ctx context.Context, _ string) (context.Context, net.IP, error) {
	return ctx, n.ip, nil
}

// tunneld without authentication → go-socks5 as the proxy.
func TestSapsocksToGoSOCKS5(t *testing.T) {
	backend := nettest.Serve(t, nettest.Echo)
	host, _ := split(t, backend)
	address := serveSOCKS(t, &gosocks5.Config{Resolver: names{net.ParseIP(host)}})
	plugin := sdktest.Start(t, sapsocks.Plugin())
	u := plugin.Configure(t, "trusted", values{"proxy": address, "auth": "none"})
	_, port := split(t, backend)
	exchange(t, u, backend, 4<<20)
	exchange(t, u, net.JoinHostPort("db.corp", strconv.Itoa(port)), 1<<20)
	refused(t, plugin.Configure(t, "jwt", values{"proxy": address, "token": "x"}), backend, sapsocks.ProxyNoJWT)
}

// A client of golang.org/x/net → go-socks5, which connects through tunneld →
// the emulated proxy: go-socks5's own requests reach the Cloud Connector.
func TestGoSOCKS5ThroughSapsocksToEmulator(t *testing.T) {
	emu := emulate(t, sapsocksemu.Options{Connectors: map[string]map[string]string{"": {"db.corp:5432": nettest.Serve(t, nettest.Echo)}}})
	u := sdktest.Start(t, sapsocks.Plugin()).Configure(t, "onprem", values{"vcap_services": emu.VCAPServices()})
	address := serveSOCKS(t, &gosocks5.Config{
		Resolver: names{},
		Dial: func(ctx context.Context, _, target string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			return u.Dial(ctx, target)
		},
	})
	through(t, address, "db.corp:5432")
	if n := len(emu.Conversations()); n != 1 {
		t.Errorf("%d conversations with the emulated proxy, want 1", n)
	}
}

// A client of golang.org/x/net → the emulated proxy in trusted mode.
func TestGoClientToTrustedEmulator(t *testing.T) {
	emu := emulate(t, sapsocksemu.Options{Trusted: true, Connectors: map[string]map[string]string{"": {"db.corp:5432": nettest.Serve(t, nettest.Echo)}}})
	through(t, emu.Proxy(), "db.corp:5432")
}

// through connects to an echo service with the client of golang.org/x/net.
func through(t *testing.T, address, target string) {
	t.Helper()
	dialer, err := proxy.SOCKS5("tcp", address, nil, &net.Dialer{Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	c, err := dialer.Dial("tcp", target)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
}
