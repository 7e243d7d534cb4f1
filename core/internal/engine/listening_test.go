package engine

import (
	"log/slog"
	"net"
	"net/netip"
	"testing"

	"github.com/tunneld/tunneld/core/internal/config"
)

// TestLostListenerComesBack: a listener whose address somebody else took while it
// made room is bound by the next reload that can.
func TestLostListenerComesBack(t *testing.T) {
	block := config.Listener{Kind: "tcp", Name: "a"}
	e := &Engine{log: slog.New(slog.DiscardHandler), lookup: systemLookup}
	socket, err := e.open(t.Context(), placeAt(netip.MustParseAddrPort("127.0.0.1:0")), claim{}, block)
	if err != nil {
		t.Fatal(err)
	}
	address := socket.Addr().String()
	block.Addresses = []string{address}
	old := &listening{claim: claim{block: "listener.tcp.a", written: address, serving: true, displaced: true}, engine: e, socket: socket}
	if err := socket.Close(); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	e.sockets = socketTable{"listener.tcp.a": {old}}
	e.current.Store(&generation{listeners: map[*listening]*listener{old: {Listener: block, id: block.ID()}}})
	cfg := &config.Config{Listeners: []config.Listener{block}}
	if err := e.newBinding(cfg, nil).undo(t.Context()); err != nil {
		t.Error(err)
	}
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}

	b := e.newBinding(cfg, nil)
	if diags := b.bind(t.Context()); diags.HasErrors() {
		t.Fatal(diags)
	}
	defer b.next["listener.tcp.a"][0].close()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}
