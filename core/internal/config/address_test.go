package config

import (
	"strings"
	"testing"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/unixsock"
)

func TestListenAddress(t *testing.T) {
	for _, c := range []struct {
		in       string
		ok, loop bool
	}{
		{"127.0.0.1:5432", true, true},
		{"127.255.0.9:0", true, true},
		{"[::1]:1", true, true},
		{"[::ffff:127.0.0.1]:1", true, true},
		{"localhost:1", true, true},
		{"LOCALHOST:1", true, true},
		{":1", true, false},
		{"0.0.0.0:1", true, false},
		{"[::]:1", true, false},
		{"10.1.2.3:65535", true, false},
		{"[fe80::1%eth0]:1", true, false},
		{"host.corp:1", true, false},
		{"localhost.corp:1", true, false},
		{"127.0.0.1", false, false},
		{"127.0.0.1:", false, false},
		{"127.0.0.1:65536", false, false},
		{"127.0.0.1:-1", false, false},
		{"127.0.0.1:+1", false, false},
		{"127.0.0.1:01", false, false},
		{"127.0.0.1:http", false, false},
		{"::1:5", false, false},
		{"a b:5", false, false},
		{"unix:///run/x", true, false},
		{"unix:///run/" + strings.Repeat("x", unixsock.MaxPath-len("/run/")), true, false},
		{"unix:///run/" + strings.Repeat("x", unixsock.MaxPath-len("/run/")+1), false, false},
		{"unix:///run/x/", false, false},
		{"unix:///run/x\n", false, false},
		{"unix://run/x", false, false},
		{"unix://", false, false},
		{"unix://@x", false, false},
		{"unix:@x", false, false},
		{"/run/x", false, false},
		{"fd://orders", true, false},
		{"fd://tunneld-a.socket", true, false},
		{"fd://", false, false},
		{"fd://a:b", false, false},
		{"fd://a b", false, false},
		{"", false, false},
	} {
		a, problem := parseListenAddress(c.in)
		if ok := problem == ""; ok != c.ok || ok && a.loopback() != c.loop {
			t.Errorf("%q: %+v, %q, loopback %v", c.in, a, problem, a.loopback())
		}
	}
}

func TestOverlaps(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"127.0.0.1:5", "127.0.0.1:5", true},
		{"fd://a", "fd://a", true},
		{"fd://a", "fd://b", false},
		{"fd://a", "0.0.0.0:0", false},
		{"unix:///a/b", "unix:///a/b", true},
		{"unix:///a/b", "unix:///a/./c/..//b", true},
		{"unix:///a/b", "unix:///a/c", false},
		{"unix:///a/b", "0.0.0.0:0", false},
		{"unix:///a/b", "fd://b", false},
		{"127.0.0.1:5", "127.0.0.1:6", false},
		{"127.0.0.1:0", "127.0.0.1:0", false},
		{"127.0.0.1:5", "127.0.0.2:5", false},
		{"0.0.0.0:5", "127.0.0.1:5", true},
		{"[::]:5", "127.0.0.1:5", true},
		{":5", "[fd00::1]:5", true},
		{"0.0.0.0:5", "host.corp:5", true},
		{"localhost:5", "127.0.0.1:5", true},
		{"localhost:5", "[::1]:5", true},
		{"localhost:5", "127.0.0.2:5", false},
		{"host.corp:5", "HOST.corp:5", true},
		{"host.corp:5", "10.0.0.1:5", false},
		{"[::ffff:10.0.0.1]:5", "10.0.0.1:5", true},
	} {
		a, problem1 := parseListenAddress(c.a)
		b, problem2 := parseListenAddress(c.b)
		if problem1 != "" || problem2 != "" || a.overlaps(b) != c.want || b.overlaps(a) != c.want {
			t.Errorf("%q and %q: %v, %v, want %v", c.a, c.b, a.overlaps(b), b.overlaps(a), c.want)
		}
	}
}

func TestTarget(t *testing.T) {
	for _, c := range []struct {
		in   string
		want tunnel.Target
	}{
		{"db.corp:5432", tunnel.Target{Host: "db.corp", Port: 5432}},
		{"db.corp.:5432", tunnel.Target{Host: "db.corp.", Port: 5432}},
		{"bücher.example:5432", tunnel.Target{Host: "xn--bcher-kva.example", Port: 5432}},
		{"bücher", tunnel.Target{Host: "xn--bcher-kva"}},
		{"10.1.2.3:1", tunnel.Target{Host: "10.1.2.3", Port: 1}},
		{"[fd00::1]:65535", tunnel.Target{Host: "fd00::1", Port: 65535}},
		{"label", tunnel.Target{Host: "label"}},
		{"my_label-1", tunnel.Target{Host: "my_label-1"}},
	} {
		if got, problem := parseTarget(c.in); got != c.want || problem != "" {
			t.Errorf("%q: %+v, %q", c.in, got, problem)
		}
	}
	for _, in := range []string{"", ":5", "db:", "db:0", "db:65536", "db:http", "a b:5", "ü b:5", "ü_b:5", "ü_b", "ü：5", "fd00::1", "[fd00::1]", "-x:5", "a..b:1", "http://a:1"} {
		if got, problem := parseTarget(in); problem == "" {
			t.Errorf("%q became %+v", in, got)
		}
	}
}
