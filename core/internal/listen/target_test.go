package listen

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/text/unicode/norm"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/hostname"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// socksNamed is a whole handshake that asks for a host by name.
func socksNamed(host string, port uint16) string {
	b := append([]byte("\x05\x01\x00\x05\x01\x00\x03"), byte(len(host)))
	return string(binary.BigEndian.AppendUint16(append(b, host...), port))
}

// socksIPv6 is one that asks for an IPv6 address.
func socksIPv6(t *testing.T, ip string, port uint16) string {
	t.Helper()
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		t.Fatal(err)
	}
	sixteen := addr.As16()
	return string(binary.BigEndian.AppendUint16(append([]byte("\x05\x01\x00\x05\x01\x00\x04"), sixteen[:]...), port))
}

func connectTo(target string) string { return "CONNECT " + target + " HTTP/1.1\r\n\r\n" }

// TestTargetThatNoClientMayName: a client that asks for an address in a form that
// routes would take for a name is refused, in its own protocol and with a hint.
func TestTargetThatNoClientMayName(t *testing.T) {
	hosts := map[string][]string{
		"IPv6 zone": {
			"::1%a.corp", "::1%25a.corp", "::1%lo", "fe80::1%1", "FE80::1%eth0", "::ffff:127.0.0.1%a.corp", "::1%a.corp.",
		},
		"which IP address": {
			"2130706433", "0x7f.1", "0X7F000001", "127.1", "127.0.1", "0", "0.", "00", "0177.0.0.1", "127.0.0.01", "017700000001", "0x7f.0.0.0x1",
			"127.1.", "127.1..", "4294967297", "256.256.256.256", "1.2.3.4.5", "0x", "089",
			"１２７.1", "127。0。0。1", "127．0．0．1", "127｡1", "①27.1", "127.0.0.\u00ad1", "127.0.0.\u200d1", "٢١٣٠٧٠٦٤٣٣", "127.0.0.１", "１０.０.０.１",
		},
		"neither a name nor an IP address": {
			"::1%", "[::1]", "[::1%a.corp]", ":::1", "a:b", "127.0.0.1:80", "::ffff:0177.0.0.1", "::0x1", "a%b.corp", "：：1", "::1％a.corp", "\u00ad", ".", "127.0.0.1\u00a0",
		},
		"no name of a host":   {"ü_b.corp", "bücher\u2028.corp", "-ü.corp"},
		"more than 255 bytes": {"ü" + strings.Repeat(".abcdefgh", 28)},
		"Windows":             {"fe80--1s4.ipv6-literal.net", "--1.IPv6-Literal.net."},
	}
	for why, list := range hosts {
		for _, host := range list {
			t.Run(strconv.QuoteToASCII(host), func(t *testing.T) {
				refusal{KindSOCKS5, socksNamed(host, 80), greeted + "\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00"}.check(t, host, why)
				target := host + ":80"
				if _, err := netip.ParseAddr(host); err == nil {
					target = "[" + host + "]:80"
				}
				if _, _, err := splitTarget(target); err == nil && host[0] != '[' { // else no CONNECT can have it
					refusal{KindHTTP, connectTo(target), "HTTP/1.1 403 Forbidden"}.check(t, host, why)
				}
			})
		}
	}
}

// refusal is what a client sends, and the answer.
type refusal struct{ kind, send, answer string }

func (r refusal) check(t *testing.T, host, why string) {
	t.Helper()
	c, done := begin(t, r.kind, patience)
	send(t, c, r.send, thenEOF)
	o := await(t, done)
	if o.err != nil {
		t.Fatal(o.err)
	}
	denied := o.client.Denied
	if denied == nil {
		t.Fatalf("%s: it may be asked for", r.kind)
	}
	if denied.Stage != pluginv1.Stage_STAGE_REQUEST || denied.Reason != pluginv1.Reason_REASON_DENIED || denied.Retryable ||
		!strings.Contains(denied.Message, why) || !strings.Contains(denied.Message, host) || denied.Hint == "" {
		t.Errorf("%s: %+v, want %q", r.kind, denied, why)
	}
	o.client.Refuse(t.Context(), denied)
	got, err := io.ReadAll(c)
	checkAnswer(t, got, err, r.answer)
	if r.kind == KindHTTP && !bytes.Contains(got, []byte(denied.Hint)) {
		t.Errorf("no hint in %q", got)
	}
}

// TestTargetAsRouted: an address has one form, whatever form it came in, and a
// name is left alone.
func TestTargetAsRouted(t *testing.T) {
	for _, tt := range []struct{ kind, send, want string }{
		{KindSOCKS5, socksNamed("10.0.0.1", 80), "10.0.0.1:80"},
		{KindSOCKS5, socksNamed("10.0.0.1.", 80), "10.0.0.1:80"},
		{KindSOCKS5, socksNamed("::ffff:10.0.0.1", 80), "10.0.0.1:80"},
		{KindSOCKS5, socksNamed("::FFFF:A00:1", 80), "10.0.0.1:80"},
		{KindSOCKS5, socksNamed("FD00:0:0::1", 80), "[fd00::1]:80"},
		{KindSOCKS5, socksIPv6(t, "::ffff:10.0.0.1", 80), "10.0.0.1:80"},
		{KindSOCKS5, socksIPv6(t, "fd00::1", 80), "[fd00::1]:80"},
		{KindHTTP, connectTo("10.0.0.1.:80"), "10.0.0.1:80"},
		{KindHTTP, connectTo("[::FFFF:10.0.0.1]:80"), "10.0.0.1:80"},
		{KindHTTP, connectTo("[FD00:0::1]:80"), "[fd00::1]:80"},
		{KindSOCKS5, socksNamed("DB.Corp.", 80), "DB.Corp.:80"},
		{KindSOCKS5, socksNamed("bücher.example", 80), "xn--bcher-kva.example:80"},
		{KindHTTP, connectTo("BÜCHER.example.:80"), "xn--bcher-kva.example.:80"},
		{KindSOCKS5, socksNamed("10.0.0.1.corp", 80), "10.0.0.1.corp:80"},
		{KindSOCKS5, socksNamed("db.1", 80), "db.1:80"},
		{KindHTTP, connectTo("0xdx:80"), "0xdx:80"},
		{KindHTTP, connectTo("1a.2:80"), "1a.2:80"},
		{KindHTTP, connectTo("１.corp:80"), "1.corp:80"},
		{KindHTTP, connectTo("_sip.db-1:80"), "_sip.db-1:80"},
	} {
		c, done := begin(t, tt.kind, patience)
		send(t, c, tt.send, thenEOF)
		o := await(t, done)
		if o.err != nil {
			t.Fatal(o.err)
		}
		if got, denied := o.client.Target, o.client.Denied; got.String() != tt.want || denied != nil {
			t.Errorf("%q: %s, %v; want %s", tt.send, got, denied, tt.want)
		}
		o.client.Refuse(t.Context(), &tunnel.DialError{Reason: pluginv1.Reason_REASON_REFUSED})
	}
}

// inetAton says whether inet_aton(3) of C libraries takes s for an address: one to
// four numbers as strtoul has them, of any size.
func inetAton(s string) bool {
	parts := strings.Split(strings.TrimRight(s, ". \t\n\v\f\r"), ".")
	for _, p := range parts {
		_, err := strconv.ParseUint(p, 0, 64)
		if err != nil || strings.ContainsAny(p, "_oObB+-") {
			return false
		}
	}
	return len(parts) <= 4
}

// FuzzNameIsNoAddress: what passes as a name is no address to Go, to a C library,
// or to either after the mapping of full-width and other compatible characters;
// and an address that passes has its one form.
func FuzzNameIsNoAddress(f *testing.F) {
	for _, s := range []string{
		"db.corp", "::1%a.corp", "127.1", "0x7f.1", "2130706433", "0177.0.0.1", "127.0.0.1.", "[::1]", "::ffff:10.0.0.1", "１２７。１", "0x", "a:b",
		"10.0.0.1.corp", "1.2.3.4.5", "fe80::1%25eth0", "٣.1", "127.0.0.1\u00ad", "\xff.1",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, host string) {
		if len(host) > 255 {
			return // no protocol carries it
		}
		got, denied := named(host, 80)
		if denied != nil {
			if denied.Message == "" || denied.Hint == "" {
				t.Fatalf("%q: %+v", host, denied)
			}
			return
		}
		if ip, err := netip.ParseAddr(got.Host); err == nil {
			if ip.Zone() != "" || ip.Is4In6() || ip.String() != got.Host {
				t.Fatalf("%q is passed on as the address %q", host, got.Host)
			}
			return
		}
		if ascii, err := hostname.ASCII(host); err != nil || got.Host != ascii {
			t.Fatalf("%q is passed on as the name %q", host, got.Host)
		}
		for _, s := range []string{host, norm.NFKC.String(host)} {
			s = strings.ReplaceAll(s, "。", ".")
			bare := strings.TrimSuffix(strings.TrimPrefix(strings.TrimRight(s, "."), "["), "]")
			_, err := netip.ParseAddr(bare)
			if err == nil || net.ParseIP(bare) != nil || inetAton(s) {
				t.Fatalf("%q passes as a name, and is an address", host)
			}
		}
	})
}
