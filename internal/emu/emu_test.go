package emu

import (
	"crypto/x509"
	"fmt"
	"strings"
	"testing"
)

func TestListenOnThisMachineAlone(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0", "127.0.0.1", "nonsense"} {
		if l, err := Listen(address); err == nil {
			_ = l.Close()
			t.Errorf("%q was listened on", address)
		}
	}
	for _, address := range []string{"", "127.0.0.1:0", "127.0.0.2:0", "localhost:0"} {
		l, err := Listen(address)
		if err != nil {
			if strings.HasPrefix(address, "127.0.0.2") {
				continue // not every system has the whole of 127.0.0.0/8
			}
			t.Fatalf("%q: %v", address, err)
		}
		_ = l.Close()
	}
}

func TestCheckHostPort(t *testing.T) {
	if err := CheckHostPort("db.corp:5432", "[::1]:65535"); err != nil {
		t.Error(err)
	}
	for _, text := range []string{"", "db.corp", ":5432", "db.corp:", "db.corp:0", "db.corp:65536", "db.corp:http", "::1:80"} {
		if err := CheckHostPort("db.corp:5432", text, "as wrong"); err == nil || err.Error() != fmt.Sprintf("%q is not host:port with a port from 1 to 65535", text) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestAuthority(t *testing.T) {
	a, err := NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	server, err := a.Server("relay.example", "192.0.2.7")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"localhost", "127.0.0.1", "::1", "relay.example", "192.0.2.7"} {
		if _, err := server.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: a.Pool()}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	client, err := a.Client("sb-client!b1|x!b2")
	if err != nil {
		t.Fatal(err)
	}
	usage := x509.VerifyOptions{Roots: a.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if _, err := client.Leaf.Verify(usage); err != nil || client.Leaf.Subject.CommonName != "sb-client!b1|x!b2" {
		t.Errorf("%v, %v", client.Leaf.Subject, err)
	}
	if other, err := NewAuthority(); err != nil {
		t.Fatal(err)
	} else if _, err := server.Leaf.Verify(x509.VerifyOptions{DNSName: "localhost", Roots: other.Pool()}); err == nil {
		t.Error("another authority vouches for it")
	}
}
