package freeport

import (
	"net"
	"net/netip"
	"testing"
)

// TestAddress: each is another one, none is in use, and none is of the range in which
// another program's connection may take it a moment later.
func TestAddress(t *testing.T) {
	var p Ports
	seen := map[string]bool{}
	for range 50 {
		address, err := p.Address()
		if err != nil {
			t.Fatal(err)
		}
		port := netip.MustParseAddrPort(address).Port()
		if seen[address] || port < first || port > last {
			t.Errorf("%s, again or out of range", address)
		}
		seen[address] = true
	}
}

func TestPortsInUseArePassedOver(t *testing.T) {
	var p, again Ports
	address, err := p.Address()
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for range 3 {
		if got, err := again.Address(); err != nil || got == address {
			t.Errorf("%s, %v", got, err)
		}
	}
}

// TestEveryPortComesAgain: a long run does not use them up.
func TestEveryPortComesAgain(t *testing.T) {
	p := Ports{tried: 5 * count}
	if _, err := p.Address(); err != nil {
		t.Error(err)
	}
}
