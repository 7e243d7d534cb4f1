// Package emu is what the emulated far ends share: they listen on this machine alone, and
// make their certificates anew for each run. No emulator is here.
package emu

import (
	"fmt"
	"net"
	"strconv"
)

// Listen listens on "host:port" of this machine alone; empty: a free port of 127.0.0.1.
func Listen(address string) (*net.TCPListener, error) {
	if address == "" {
		address = "127.0.0.1:0"
	}
	a, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return nil, err
	}
	if !a.IP.IsLoopback() {
		return nil, fmt.Errorf("address %q: the emulator serves this machine alone, so it takes an address on loopback", address)
	}
	return net.ListenTCP("tcp", a)
}

// CheckHostPort returns an error that quotes the first of the texts that is not a host and
// a port's number, "host:port".
func CheckHostPort(texts ...string) error {
	for _, text := range texts {
		host, port, err := net.SplitHostPort(text)
		if n, portErr := strconv.ParseUint(port, 10, 16); host == "" || err != nil || portErr != nil || n == 0 {
			return fmt.Errorf("%q is not host:port with a port from 1 to 65535", text)
		}
	}
	return nil
}
