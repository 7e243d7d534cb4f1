package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/tunneld/tunneld/internal/nettest"
)

// listenIPv6 listens on ::1, where the machine has it, and returns the port.
func listenIPv6(t *testing.T) (net.Listener, string) {
	t.Helper()
	ln, err := net.Listen("tcp", "[::1]:0")
	if errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT) {
		t.Skip("this machine has no IPv6")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	_, port := splitAddress(ln.Addr().String())
	return ln, port
}

// TestRouteByNameIsNotWalkedAround: a client cannot reach an address of this
// machine by a route for names, be it written so that the route takes it for one.
func TestRouteByNameIsNotWalkedAround(t *testing.T) {
	reached := make(chan net.Addr, 64)
	accept := func(ln net.Listener) {
		for {
			c, err := ln.Accept()
			if err != nil {
				return // closed
			}
			reached <- c.RemoteAddr()
			c.Close()
		}
	}
	ln, port := listenIPv6(t)
	go accept(ln)
	if ln4, err := net.Listen("tcp", "127.0.0.1:"+port); err == nil {
		t.Cleanup(func() { ln4.Close() })
		go accept(ln4)
	}
	d := startDaemon(t, "upstream \"direct\" \"x\" {}\n"+proxyListener+"listener \"http\" \"web\" {\n address = \"127.0.0.1:0\"\n"+nettest.OpenTargets+"}\n"+
		route("names", "match {\n hosts = [\"*.corp\", \"*1\", \"?*\", \"0*\"]\n }", "upstream.direct.x"))
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	denied := 0
	for host, want := range map[string]string{
		"::1%a.corp": "zone", "::1%1": "zone", "::FFFF:127.0.0.1%a.corp": "zone",
		"2130706433": "which IP address", "0x7f.1": "which IP address", "127.1": "which IP address", "0": "which IP address", "１２７.0.0.1": "which IP address",
		"127.0.0.1": "no route", "127.0.0.1.": "no route", "::1": "no route", "0:0::1": "no route", "::ffff:127.0.0.1": "no route",
	} {
		c := d.dial(t, "socks5.apps")
		request := append([]byte("\x05\x01\x00\x05\x01\x00\x03"), byte(len(host)))
		send(t, c, string(binary.BigEndian.AppendUint16(append(request, host...), uint16(number))))
		if got, err := io.ReadAll(c); err != nil || string(got) != "\x05\x00"+"\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00" {
			t.Errorf("%s: heard % x, %v; want that it is not allowed", host, got, err)
		}
		denied++
		target := host + ":" + port
		if strings.Contains(host, ":") {
			target = net.JoinHostPort(host, port)
		}
		c = d.dial(t, "http.web")
		send(t, c, "CONNECT "+target+" HTTP/1.1\r\n\r\n")
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusForbidden || !strings.Contains(string(body), "stage: request\nreason: denied\n") || !strings.Contains(string(body), want) {
			t.Errorf("%s: %s, %q, %v", host, res.Status, body, err)
		}
		denied++
	}
	// Ten of each listener have a line, the others are counted.
	for _, line := range d.log.Await(t, min(denied, 2*10), "msg", "connection failed", "stage", "request", "reason", "denied") {
		if hint, _ := line["hint"].(string); hint == "" {
			t.Errorf("no hint in %v", line)
		}
	}
	if len(reached) > 0 {
		t.Errorf("a client came through to %s", port)
	}
}

// TestConfiguredTargetMayHaveZone: what clients may not name, the configuration
// may, and a route finds it by its address.
func TestConfiguredTargetMayHaveZone(t *testing.T) {
	ln, port := listenIPv6(t)
	lo, err := net.InterfaceByIndex(1)
	if err != nil {
		t.Fatal(err)
	}
	zoned := "::1%" + lo.Name
	d := startDaemon(t, "upstream \"direct\" \"x\" {}\n"+listener("a", "127.0.0.1:0", net.JoinHostPort(zoned, port), "")+
		listener("b", "127.0.0.1:0", net.JoinHostPort("0:0::1", port), "")+
		route("zone", "match {\n hosts = [\""+zoned+"\"]\n }", "upstream.direct.x")+
		route("network", "match {\n hosts = [\"::1/128\"]\n }", "upstream.direct.x"))
	for _, id := range []string{"tcp.a", "tcp.b"} {
		c := d.dial(t, id)
		far, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(far.Close(), c.Close()); err != nil {
			t.Fatal(err)
		}
	}
	d.log.Await(t, 1, "msg", "connection", "route", "zone")
	d.log.Await(t, 1, "msg", "connection", "route", "network")
}
