package engine

import (
	"log/slog"
	"net"
	"testing"

	"github.com/tunneld/tunneld/core/internal/config"
)

// TestLostListenerComesBack: a listener whose address somebody else took while it
// made room is bound by the next reload that can.
func TestLostListenerComesBack(t *testing.T) {
	block := config.Listener{Kind: "tcp", Name: "a", Address: "127.0.0.1:0"}
	socket, err := bind(t.Context(), block.Address, block)
	if err != nil {
		t.Fatal(err)
	}
	block.Address = socket.Addr().String()
	old := &listening{socket: socket, serving: true, closed: true}
	if err := socket.Close(); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", block.Address)
	if err != nil {
		t.Fatal(err)
	}
	e := &Engine{log: slog.New(slog.DiscardHandler), listeners: map[string]*listening{block.ID(): old}}
	e.current.Store(&generation{listeners: map[*listening]*listener{old: {Listener: block, id: block.ID()}}})
	e.unbind(t.Context(), e.newBinding())
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}

	b := e.newBinding()
	if diags := e.bindListeners(t.Context(), b, &config.Config{Listeners: []config.Listener{block}}); diags.HasErrors() {
		t.Fatal(diags)
	}
	defer b.next[block.ID()].socket.Close()
	c, err := net.Dial("tcp", block.Address)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}
