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
	socket, err := bind(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"), block)
	if err != nil {
		t.Fatal(err)
	}
	address := socket.Addr().String()
	block.Addresses = []string{address}
	old := &listening{spot: &spot{block: "listener.tcp.a", written: address, closed: true}, socket: socket, serving: true}
	if err := socket.Close(); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	e := &Engine{log: slog.New(slog.DiscardHandler), lookup: systemLookup, listeners: map[string][]*listening{block.ID(): {old}}}
	e.current.Store(&generation{listeners: map[*listening]*listener{old: {Listener: block, id: block.ID()}}})
	e.unbind(t.Context(), e.newBinding())
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}

	b := e.newBinding()
	if diags := e.bindSockets(t.Context(), b, &config.Config{Listeners: []config.Listener{block}}); diags.HasErrors() {
		t.Fatal(diags)
	}
	defer b.next[block.ID()][0].socket.Close()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}
