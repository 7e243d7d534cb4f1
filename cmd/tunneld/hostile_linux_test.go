package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest/fixture"
)

// hostilePlugin keeps a copy of each socket that it hands over, and attacks the
// daemon with it.
var hostilePlugin = sdk.Plugin{Name: "hostile", Version: "1.0.0", New: func() sdk.Dialer { return new(hostile) }}

func init() { thirdParties = append(thirdParties, hostilePlugin) }

type hostile struct {
	Attack string `tunneld:"attack,required" doc:"block or linger"`
}

func (h *hostile) Dial(ctx context.Context, req *sdk.Request) (*sdk.Tunnel, error) {
	c, err := req.Connect(ctx, req.Target.String())
	if err != nil {
		return nil, err
	}
	kept, err := c.(*net.TCPConn).File()
	if err != nil {
		return nil, err
	}
	attack := map[string]func(fd int) bool{"block": blockCalls, "linger": linger}[h.Attack]
	go func() {
		defer kept.Close()
		for attack(int(kept.Fd())) {
			time.Sleep(100 * time.Microsecond)
		}
	}()
	return sdk.Direct(c, nil), nil
}

// blockCalls makes calls on the socket wait, whatever the daemon does.
func blockCalls(fd int) bool { return unix.SetNonblock(fd, false) == nil }

// linger makes close wait for the far end to read, until that has ended its direction:
// then it gives the copy up, and the daemon's is the last close.
func linger(fd int) bool {
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 3600}); err != nil {
		return false
	}
	const established = 1 // enum in net/tcp_states.h
	info, err := unix.GetsockoptTCPInfo(fd, unix.SOL_TCP, unix.TCP_INFO)
	return err == nil && info.State == established
}

// TestHostilePlugin: with the copies that it kept, a plugin attacks the daemon under
// load. It harms its own tunnels, and those of nobody else.
func TestHostilePlugin(t *testing.T) {
	for _, tt := range []struct {
		attack string
		harm   func(t *testing.T, p *program, far *backend)
	}{
		{"block", func(t *testing.T, p *program, far *backend) {
			client, server := dialTCP(t, p.address(t, "tcp.hostile")), far.next(t)
			if err := server.SetDeadline(time.Now().Add(4 * patience)); err != nil {
				t.Fatal(err)
			}
			// After each piece the pump tries to splice more, and there is nothing. If it
			// copied the last of a piece it does not wait, and needs another one.
			piece := make([]byte, 1<<20)
			for reset := false; !reset; {
				wait := 8 * time.Second
				if _, err := server.Write(piece); isReset(err) {
					wait = patience // the client is told next
				} else if err != nil {
					t.Fatal(err)
				}
				if err := client.SetReadDeadline(time.Now().Add(wait)); err != nil {
					t.Fatal(err)
				}
				_, err := io.Copy(io.Discard, client)
				reset = errors.Is(err, syscall.ECONNRESET)
				if !reset && !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatalf("the tunnel ended by %v", err)
				}
			}
			line := p.log.Await(t, 1, "msg", "tunnel broken off")[0]
			if line["level"] != "WARN" || line["plugin"] != "hostile" || line["upstream"] != "hostile.x" {
				t.Errorf("the log says %v", line)
			}
		}},
		{"linger", func(t *testing.T, p *program, far *backend) {
			const tunnels, size = 20, 1 << 20
			var servers []*net.TCPConn
			for range tunnels {
				client, server := dialTCP(t, p.address(t, "tcp.hostile")), far.next(t)
				servers = append(servers, server)
				closeWrite(t, server)
				wantRest(t, client, "")
				send(t, client, string(make([]byte, size)))
				closeWrite(t, client)
			}
			p.log.Await(t, tunnels, "msg", "connection", "upstream", "hostile.x")
			for _, s := range servers {
				if err := s.SetDeadline(time.Now().Add(patience)); err != nil {
					t.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, s); n != size || err != nil {
					t.Errorf("%d bytes arrived, %v", n, err)
				}
			}
		}},
	} {
		t.Run(tt.attack, func(t *testing.T) {
			far, victims := startBackend(t), startBackend(t)
			config := thirdParty(t, hostilePlugin.Name, "") + fmt.Sprintf("upstream \"hostile\" \"x\" {\n attack = %q\n}\n", tt.attack) +
				listener("hostile", "127.0.0.1:0", far.addr, "")
			routes := route("hostile", "match {\n listeners = [listener.tcp.hostile]\n}", "upstream.hostile.x")
			kinds := []string{fixture.DirectName, fixture.RelayName, "direct"}
			for _, kind := range kinds {
				if kind != "direct" {
					config += thirdParty(t, kind, "")
				}
				config += fmt.Sprintf("upstream %q \"x\" {}\n", kind) + listener(kind, "127.0.0.1:0", victims.addr, "")
				routes += route(kind, "match {\n listeners = [listener.tcp."+kind+"]\n}", "upstream."+kind+".x")
			}
			p := runProgram(t, 4, config+routes)
			// More of each kind than there are workers.
			var load sync.WaitGroup
			var stop atomic.Bool
			for range 4 {
				for _, kind := range kinds {
					client, server := dialTCP(t, p.address(t, "tcp."+kind)), victims.next(t)
					for _, c := range []*net.TCPConn{client, server} { // longer than the attack
						if err := c.SetDeadline(time.Now().Add(4 * patience)); err != nil {
							t.Fatal(err)
						}
					}
					load.Go(func() { pump(server) })
					load.Go(func() { keepEchoing(t, kind, client, &stop) })
				}
			}
			tt.harm(t, p, far)
			stop.Store(true)
			load.Wait()
			// And whoever comes after that is served.
			for _, kind := range kinds {
				client := dialTCP(t, p.address(t, "tcp."+kind))
				server := victims.next(t)
				send(t, client, "new")
				closeWrite(t, client)
				wantRest(t, server, "new")
			}
			p.signal(t, syscall.SIGTERM)
		})
	}
}

// isReset says that a write has met a reset.
func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// keepEchoing sends pieces of all sizes to an echo, and wants them back, until it is
// stopped, once more after that, and then ends the tunnel.
func keepEchoing(t *testing.T, kind string, c *net.TCPConn, stop *atomic.Bool) {
	for last := false; !last; {
		last = stop.Load()
		for _, size := range []int{1, 1000, 300_000} {
			body := bytes.Repeat([]byte{byte(size)}, size)
			var sending sync.WaitGroup
			sending.Go(func() {
				if _, err := c.Write(body); err != nil {
					t.Errorf("%s: write: %v", kind, err)
				}
			})
			got := make([]byte, size)
			_, err := io.ReadFull(c, got)
			sending.Wait()
			if err != nil || !bytes.Equal(got, body) {
				t.Errorf("%s: read: %v, or other bytes", kind, err)
				return
			}
		}
	}
	if err := c.CloseWrite(); err != nil {
		t.Errorf("%s: %v", kind, err)
	}
}
