//go:build interop

package interop

import (
	"errors"
	"syscall"
	"testing"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/socks5"
	"github.com/tunneld/tunneld/plugins/sapsocks/sapsocksemu"
)

// TestTwoConnectors falls over from one Cloud Connector to the other and back,
// as each fails in its way.
func TestTwoConnectors(t *testing.T) {
	const orders = "orders-db.corp:5432"
	berlin := map[string]string{orders: greeting(t, "berlin")}
	walldorf := map[string]string{orders: greeting(t, "walldorf")}
	emu := connectivityAt(t, map[string]map[string]string{"berlin": berlin, "walldorf": walldorf})
	d := startExample(t, "two-connectors", emu)

	connect := func(location string, mappings map[string]string) {
		t.Helper()
		if err := emu.SetConnector(location, mappings); err != nil {
			t.Fatal(err)
		}
	}
	want := func(line string) {
		t.Helper()
		if got, err := firstLine(t, d.addresses["tcp.orders"]); err != nil || got != line+"\n" {
			t.Fatalf("read %q, %v; want %q", got, err, line)
		}
	}
	refused := func() {
		t.Helper()
		if got, err := firstLine(t, d.addresses["tcp.orders"]); !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("read %q, %v; want a reset", got, err)
		}
	}

	want("berlin")

	connect("berlin", map[string]string{orders: nettest.FreeAddress(t)}) // reply 04
	want("walldorf")
	d.await(1, "msg", "upstream failed, the next is tried", "upstream", "sapsocks.berlin", "reason", "unreachable")

	connect("berlin", map[string]string{"other.corp:1": berlin[orders]}) // reply 02
	refused()
	d.await(1, "msg", "connection failed", "upstream", "sapsocks.berlin", "reason", "denied")

	connect("berlin", nil) // reply 03
	want("walldorf")
	d.await(1, "msg", "upstream failed, the next is tried", "upstream", "sapsocks.berlin", "reason", "unavailable")
	d.await(1, "msg", "upstream is passed over while a route has another", "upstream", "sapsocks.berlin")
	want("walldorf") // at once

	connect("walldorf", nil)
	refused() // the one that is passed over is tried all the same
	d.await(1, "msg", "upstream failed, the next is tried", "upstream", "sapsocks.walldorf", "reason", "unavailable")

	connect("berlin", berlin)
	want("berlin")
	connect("walldorf", walldorf)

	emu.SetFaults(sapsocksemu.Faults{Reply: byte(socks5.ConnectionRefused)}) // reply 05: the token's fault, not a location's
	refused()
	d.await(1, "msg", "connection failed", "upstream", "sapsocks.berlin", "reason", "unauthenticated")
}
