package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/socks5"
)

// asksSOCKS asks a socks5 listener for a target, and returns the connection if that is granted.
func asksSOCKS(t *testing.T, d *daemonRig, host, port string) (net.Conn, socks5.Code) {
	t.Helper()
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	c := d.dial(t, "socks5.apps")
	b, err := socks5.AppendGreeting(nil, socks5.MethodNone)
	if err == nil {
		b, err = socks5.AppendRequest(b, socks5.Request{Command: socks5.Connect, Address: socks5.Address{Host: host, Port: uint16(n)}})
	}
	if err != nil {
		t.Fatal(err)
	}
	send(t, c, string(b))
	if _, err := socks5.ReadMethod(c); err != nil {
		t.Fatal(err)
	}
	reply, err := socks5.ReadReply(c)
	if err != nil {
		t.Fatal(err)
	}
	return c, reply.Code
}

// asksHTTP asks an http listener, and returns the status, what the tunnel brings then, and the
// text of a refusal.
func asksHTTP(t *testing.T, d *daemonRig, host, port string) (io.Reader, int, string) {
	t.Helper()
	c := d.dial(t, "http.web")
	send(t, c, "CONNECT "+net.JoinHostPort(host, port)+" HTTP/1.1\r\n\r\n")
	r := bufio.NewReader(c)
	res, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect})
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode == http.StatusOK {
		return r, res.StatusCode, ""
	}
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r, res.StatusCode, string(text)
}

// ownAddress is one that others reach this machine by.
func ownAddress(t *testing.T) (string, bool) {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if ip := netip.MustParsePrefix(a.String()).Addr(); ip.Is4() && ip.IsGlobalUnicast() {
			return ip.String(), true
		}
	}
	return "", false
}

// TestThisMachineIsClosed: clients that name their target reach nothing of this machine, however
// they write it, until the listener says that they may, by the line that the refusal names.
// Nothing of this holds for a target that the configuration has.
func TestThisMachineIsClosed(t *testing.T) {
	const serves = "hello from inside"
	greets := func(c net.Conn) {
		_, _ = io.WriteString(c, serves)
		c.Close()
	}
	port := ""
	for port == "" {
		var six net.Listener
		six, port = listenIPv6(t)
		four, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err != nil {
			port = "" // somebody else has it
			continue
		}
		t.Cleanup(func() { four.Close() })
		for _, ln := range []net.Listener{four, six} {
			go func() {
				for {
					c, err := ln.Accept()
					if err != nil {
						return // closed
					}
					greets(c)
				}
			}()
		}
	}
	config := func(lines string) string {
		return "upstream \"direct\" \"x\" {}\n" + listener("fixed", "127.0.0.1:0", "localhost:"+port, "") + route("all", "", "upstream.direct.x") +
			"listener \"socks5\" \"apps\" {\n address = \"127.0.0.1:0\"\n" + lines + "}\nlistener \"http\" \"web\" {\n address = \"127.0.0.1:0\"\n" + lines + "}\n"
	}
	d := startDaemon(t, config(""))
	for _, l := range []string{`listener "socks5" "apps"`, `listener "http" "web"`} {
		d.log.Await(t, 1, "msg", "configuration note", "block", l)
	}
	targets := map[string]struct{ why, line string }{
		"127.0.0.1":          {"a loopback address (127.0.0.0/8)", `"127.0.0.1/32"`},
		"127.9.9.9":          {"a loopback address (127.0.0.0/8)", `"127.9.9.9/32"`},
		"::1":                {"the loopback address", `"::1/128"`},
		"::ffff:127.0.0.1":   {"a loopback address (127.0.0.0/8)", `"127.0.0.1/32"`},
		"localhost":          {"a loopback address (127.0.0.0/8)", `"127.0.0.1/32"`},
		"0.0.0.0":            {"an unspecified address (0.0.0.0/8)", `"0.0.0.0/32"`},
		"::":                 {"the unspecified address", `"::/128"`},
		"169.254.169.254":    {"a cloud's metadata service", `"169.254.169.254/32"`},
		"fd00:ec2::254":      {"a cloud's metadata service", `"fd00:ec2::254/128"`},
		"64:ff9b::127.0.0.1": {"as 127.0.0.1 a loopback address (127.0.0.0/8)", `"64:ff9b::7f00:1/128"`},
		"255.255.255.255":    {"the broadcast address", `"255.255.255.255/32"`},
		"ff02::1":            {"a multicast address (ff00::/8)", `"ff02::1/128"`},
	}
	own, has := ownAddress(t)
	if has {
		targets[own] = struct{ why, line string }{"an address of this machine", `"` + own + `/32"`}
	}
	for host, want := range targets {
		if _, code := asksSOCKS(t, d, host, port); code != socks5.NotAllowed {
			t.Errorf("%s: SOCKS reply %d", host, code)
		}
		_, status, text := asksHTTP(t, d, host, port)
		for _, part := range []string{"reason: denied\nclients of listener.http.web may not reach ", want.why, "allow_targets = [", want.line, "in listener.http.web"} {
			if status != http.StatusForbidden || !strings.Contains(text, part) {
				t.Errorf("%s: %d, no %q in\n%s", host, status, part, text)
			}
		}
	}
	for _, id := range []string{"socks5.apps", "http.web"} {
		for _, line := range d.log.Await(t, 10, "msg", "connection failed", "listener", id, "reason", "denied") {
			text, _ := line["err"].(string)
			hint, _ := line["hint"].(string)
			if !strings.Contains(text, "clients of listener."+id+" may not reach") || !strings.Contains(hint, "write allow_targets = [") || !strings.Contains(hint, "in listener."+id) {
				t.Errorf("%v", line)
			}
		}
	}
	heard := func(r io.Reader, what string) {
		t.Helper()
		if got, err := io.ReadAll(r); string(got) != serves || err != nil {
			t.Errorf("%s: heard %q, %v", what, got, err)
		}
	}
	heard(d.dial(t, "tcp.fixed"), "the configuration's own target")

	line := ` allow_targets = ["127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::", "` + own + `"]` + "\n"
	d.reload(t, config(strings.Replace(line, `, ""`, "", 1)))
	for _, host := range []string{"127.0.0.1", "::1", "::ffff:127.0.0.1", "localhost", "0.0.0.0", "::"} {
		c, code := asksSOCKS(t, d, host, port)
		if code != socks5.Succeeded {
			t.Errorf("%s: SOCKS reply %d", host, code)
			continue
		}
		heard(c, host+" by SOCKS")
		tunnel, status, text := asksHTTP(t, d, host, port)
		if status != http.StatusOK {
			t.Errorf("%s: %d\n%s", host, status, text)
			continue
		}
		heard(tunnel, host+" by HTTP")
	}
	// Nothing listens there, which is another thing.
	if has {
		if _, code := asksSOCKS(t, d, own, port); code != socks5.ConnectionRefused {
			t.Errorf("%s: SOCKS reply %d", own, code)
		}
	}
	if _, code := asksSOCKS(t, d, "169.254.169.254", port); code != socks5.NotAllowed {
		t.Errorf("169.254.169.254: SOCKS reply %d", code)
	}
}

// TestReloadOfWhereClientsMayGo: it holds for new connections, and leaves the others alone.
func TestReloadOfWhereClientsMayGo(t *testing.T) {
	echo := nettest.Serve(t, nettest.Echo)
	host, port := splitAddress(echo)
	config := func(lines string) string {
		return "upstream \"direct\" \"x\" {}\n" + route("all", "", "upstream.direct.x") +
			fmt.Sprintf("listener \"socks5\" \"apps\" {\n address = %q\n%s}\n", "127.0.0.1:0", lines)
	}
	d := startDaemon(t, config(""))
	if _, code := asksSOCKS(t, d, host, port); code != socks5.NotAllowed {
		t.Fatalf("SOCKS reply %d", code)
	}
	d.reload(t, config(" allow_targets = [\"127.0.0.0/8\"]\n"))
	c, code := asksSOCKS(t, d, host, port)
	if code != socks5.Succeeded {
		t.Fatalf("SOCKS reply %d", code)
	}
	d.reload(t, config(" allow_targets = [\"127.0.0.0/8\"]\n deny_targets = [\"127.0.0.1\"]\n"))
	if _, code := asksSOCKS(t, d, host, port); code != socks5.NotAllowed {
		t.Errorf("SOCKS reply %d", code)
	}
	send(t, c, "still here")
	heard := make([]byte, len("still here"))
	if _, err := io.ReadFull(c, heard); err != nil || string(heard) != "still here" {
		t.Errorf("%q, %v", heard, err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
