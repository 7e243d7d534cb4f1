package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/plugins/sapsocks/sapsocksemu"
)

// TestReloadKeepsTunnelsAndSockets reloads many times under an established
// tunnel: it lives on, and the listener's port, which the system picked, stays.
func TestReloadKeepsTunnelsAndSockets(t *testing.T) {
	s := startSapsocks(t, sapsocksemu.Options{})
	d := startDaemon(t, s.onprem(""))
	address := d.address(t, "tcp.db")
	c := d.dial(t, "tcp.db")
	for i := range 20 {
		// Every other one changes the listener's block, and so the generation's
		// view of an unchanged address.
		extra := ""
		if i%2 == 0 {
			extra = fmt.Sprintf("limits {\n max_connections = %d\n }", 100+i)
		}
		d.reload(t, s.onprem(extra))
		pingPong(t, c, fmt.Sprint("established, reload ", i))
		pingPong(t, d.dial(t, "tcp.db"), fmt.Sprint("new, reload ", i))
		if now := d.address(t, "tcp.db"); now != address {
			t.Fatalf("the listener moved from %s to %s", address, now)
		}
	}
	if pids := pluginPIDs(t, os.Getpid(), "sapsocks"); len(pids) != 1 {
		t.Errorf("the plugin has the processes %v", pids)
	}
}

// TestReloadIsAllOrNothing: whatever is wrong with the new configuration, or in
// its way, the old one serves on, and nothing of the new one is left. The two are
// told apart: against the second another try may help.
func TestReloadIsAllOrNothing(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	s := startSapsocks(t, sapsocksemu.Options{})
	d := startDaemon(t, s.onprem(""))
	good := s.onprem("")
	second := func(address string) string {
		return listener("second", address, "db.corp:5432", "")
	}
	const doesNotStart = "plugin \"acme\" {\n command = [\"/bin/false\"]\n}\nupstream \"acme\" \"x\" {}\n"
	noSocket := fmt.Sprintf("control {\n address = \"unix://%s\"\n}\n", t.TempDir())
	tests := []struct {
		name, config, says string
		invalid            bool
	}{
		{"syntax", good + "listener {", "tunneld.hcl line", true},
		{"unknown attribute in a plugin's body", strings.Replace(good, "proxy =", "proxxy = 1\n proxy =", 1), "proxxy", true},
		{"refused by the plugin", strings.Replace(good, "proxy =", "location_id = \""+strings.Repeat("x", 200)+"\"\n proxy =", 1), "location", true},
		{"address in use", second(taken.Addr().String()) + good, taken.Addr().String(), false},
		{"address of another machine", listener("second", "192.0.2.1:0", "db.corp:5432", "open = true") + good, "does not have that address", false},
		{"address of the metrics in use", fmt.Sprintf("metrics {\n address = %q\n}\n", taken.Addr()) + good, ", in metrics:", false},
		{"control socket in use", noSocket + good, ", in control:", false},
		{"one good and one bad listener", second("127.0.0.1:0") + listener("third", taken.Addr().String(), "db.corp:5432", "") + good, "third", false},
		{"a plugin that does not exist", "upstream \"acme\" \"x\" {}\n" + good, "acme", true},
		{"an external plugin that does not start", doesNotStart + good, "does not start", false},
		{"one that does not start, and a mistake", doesNotStart + "nonsense {}\n" + good, "does not start", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if out := d.reloadFails(t, tt.config, tt.says); out.Invalid != tt.invalid {
				t.Errorf("invalid: %v; %s", out.Invalid, out.Error)
			}
			if n := len(d.Status().Listeners); n != 1 {
				t.Errorf("%d listeners", n)
			}
			pingPong(t, d.dial(t, "tcp.db"), "the old one serves")
		})
	}
	d.reload(t, good)
	pingPong(t, d.dial(t, "tcp.db"), "a good one after bad ones")
}

func TestReloadMovesListeners(t *testing.T) {
	one, two := startSapsocks(t, sapsocksemu.Options{}), startSapsocks(t, sapsocksemu.Options{})
	d := startDaemon(t, "upstream \"direct\" \"local\" {}\n"+listener("a", "127.0.0.1:0", one.echo.Addr(), "")+route("all", "", "upstream.direct.local"))
	old := d.address(t, "tcp.a")
	c := dialTCP(t, old)
	pingPong(t, c, "before")

	// Another listener block takes the address over, with another target: its
	// socket is the same one.
	_, port, err := net.SplitHostPort(old)
	if err != nil {
		t.Fatal(err)
	}
	fixed := func(name, address, target, extra string) string {
		return "upstream \"direct\" \"local\" {}\n" + listener(name, address, target, extra) + route("all", "", "upstream.direct.local")
	}
	d.reload(t, fixed("b", "127.0.0.1:"+port, two.echo.Addr(), ""))
	pingPong(t, c, "a tunnel of a listener that is gone")
	pingPong(t, dialTCP(t, old), "the new block")

	// An address that overlaps with the old one, and back by a failure.
	d.reload(t, fixed("b", "0.0.0.0:"+port, two.echo.Addr(), "open = true"))
	pingPong(t, dialTCP(t, "127.0.0.1:"+port), "everywhere")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	d.reloadFails(t, listener("c", taken.Addr().String(), two.echo.Addr(), "")+fixed("b", "127.0.0.1:"+port, two.echo.Addr(), ""), taken.Addr().String())
	pingPong(t, dialTCP(t, "127.0.0.1:"+port), "bound again")
	pingPong(t, c, "after all that")

	// What is removed is closed.
	d.reload(t, fixed("z", "127.0.0.1:0", two.echo.Addr(), ""))
	if c, err := net.DialTimeout("tcp", "127.0.0.1:"+port, patience); !errors.Is(err, syscall.ECONNREFUSED) {
		if err == nil {
			c.Close()
		}
		t.Fatalf("dial of a removed listener: %v", err)
	}
	pingPong(t, c, "its tunnel lives on")
}

// TestReloadStopsUnusedPlugins: a plugin that the new configuration does not
// name goes, and comes back when it is named again.
func TestReloadStopsUnusedPlugins(t *testing.T) {
	s := startSapsocks(t, sapsocksemu.Options{})
	d := startDaemon(t, s.onprem(""))
	c := d.dial(t, "tcp.db")
	pingPong(t, c, "through the plugin's dial")
	d.reload(t, "upstream \"direct\" \"local\" {}\n"+listener("db", "127.0.0.1:0", s.echo.Addr(), "")+route("all", "", "upstream.direct.local"))
	d.log.Await(t, 1, "msg", "plugin stopped", "plugin", "sapsocks")
	pingPong(t, c, "a direct tunnel does not need it")
	d.reload(t, s.onprem(""))
	pingPong(t, d.dial(t, "tcp.db"), "again")
}

// TestStopDrains: a tunnel that ends in time ends cleanly.
func TestStopDrains(t *testing.T) {
	s := startSapsocks(t, sapsocksemu.Options{})
	d := startDaemon(t, s.onprem(""))
	address := d.address(t, "tcp.db")
	c := d.dial(t, "tcp.db")
	pingPong(t, c, "before")
	stopped := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	go func() { stopped <- d.Stop(ctx) }()
	for {
		other, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			break // it has stopped accepting
		}
		other.Close()
	}
	pingPong(t, c, "while it drains")
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("read: %v; want a clean end", err)
	}
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	if pids := pluginPIDs(t, os.Getpid(), "sapsocks"); len(pids) != 0 {
		t.Errorf("plugins are left: %v", pids)
	}
}
