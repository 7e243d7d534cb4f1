package sdk_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest"
)

// tlsDialer speaks TLS to its target.
type tlsDialer struct {
	Address string  `tunneld:"address,required"`
	TLS     sdk.TLS `tunneld:"tls"`
}

func (d *tlsDialer) Dial(ctx context.Context, req *sdk.Request) (*sdk.Tunnel, error) {
	req.Enter(sdk.StageConnect)
	conn, err := req.Connect(ctx, d.Address)
	if err != nil {
		return nil, err
	}
	req.Enter(sdk.StageTLS)
	c, err := d.TLS.Client(ctx, conn, "localhost")
	if err != nil {
		return nil, err
	}
	// Left over, as an author may: RelayConn lifts it.
	if err := c.SetDeadline(time.Now()); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return sdk.RelayConn(c), nil
}

// tlsTunnel returns both ends of a tunnel through TLS.
func tlsTunnel(t *testing.T) (c *sdktest.Conn, far *tls.Conn) {
	t.Helper()
	cert := sdk.SelfSigned(t)
	certFile, _ := sdk.PEMFiles(t, cert)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan *tls.Conn, 1)
	go func() {
		defer close(accepted)
		c, err := l.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		if err := c.(*tls.Conn).Handshake(); err != nil {
			t.Error(err)
		}
		accepted <- c.(*tls.Conn)
	}()
	u := sdktest.Start(t, sdk.Plugin{Name: "overtls", Version: "1", New: func() sdk.Dialer { return new(tlsDialer) }}).
		Configure(t, "up", map[string]any{"address": l.Addr().String(), "tls": map[string]any{"ca_file": certFile}})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, err = u.Dial(ctx, "t:1")
	if err != nil {
		t.Fatal(err)
	}
	far = <-accepted
	for _, conn := range []net.Conn{c, far} {
		t.Cleanup(func() { _ = conn.Close() })
		if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	return c, far
}

func TestRelayConnOverTLS(t *testing.T) {
	t.Run("half-close both ways", func(t *testing.T) {
		c, far := tlsTunnel(t)
		exchange(t, c, far)
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if _, err := far.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the far end reads %v, want the end of file", err)
		}
		exchange(t, far, c)
		if err := far.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the client reads %v, want the end of file", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if err := c.AwaitEnd(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Run("the client breaks off", func(t *testing.T) {
		c, far := tlsTunnel(t)
		exchange(t, c, far)
		if err := c.Abort("reset"); err != nil {
			t.Fatal(err)
		}
		if _, err := far.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the far end reads %v, want a reset and no close_notify", err)
		}
	})
	t.Run("the far end closes without close_notify", func(t *testing.T) {
		c, far := tlsTunnel(t)
		exchange(t, far, c)
		if err := far.NetConn().Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, sdktest.ErrNotClean) {
			t.Errorf("the client reads %v, want ErrNotClean", err)
		}
	})
}
