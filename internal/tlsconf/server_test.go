package tlsconf

import (
	"crypto/tls"
	"strings"
	"testing"
	"time"
)

// TestServerFollowsItsFiles, chooses by the client's word, and keeps what it has
// where a file is of no use.
func TestServerFollowsItsFiles(t *testing.T) {
	a, f := newAuthority(t), newFolder(t)
	pair := func(file, name string) Pair {
		cert, key := a.issue(name, time.Now().Add(time.Hour))
		return f.putPair(file, cert, key)
	}
	s := NewServer(ServerOptions{Pairs: []Pair{pair("a", "a.example"), pair("b", "b.example")}, ALPN: []string{"two", "one"}})
	told := followed(t, s)
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	config := s.Config()
	c := NewClient(ClientOptions{InsecureSkipVerify: true})
	dial := func(name, want string) {
		t.Helper()
		client := c.must(t, name)
		client.NextProtos = []string{"one", "two"}
		got, err := meet(t, client, config)
		if err != nil {
			t.Fatal(err)
		}
		if got.serverName() != want || got.client.NegotiatedProtocol != "two" {
			t.Errorf("%s: certificate %q, protocol %q", name, got.serverName(), got.client.NegotiatedProtocol)
		}
	}
	dial("a.example", "a.example")
	dial("b.example", "b.example")
	dial("c.example", "a.example")
	f.put("b.crt", []byte("broken"))
	await(t, told, "cert_file", f.dir+"/b.crt")
	dial("b.example", "b.example")
	pair("b", "c.example")
	await(t, told)
	dial("c.example", "c.example")
	dial("b.example", "a.example")
}

// TestServerWantsCertificates of its authorities, and of those that it has now.
func TestServerWantsCertificates(t *testing.T) {
	a, other, f := newAuthority(t), newAuthority(t), newFolder(t)
	hour := time.Now().Add(time.Hour)
	cert, key := a.issue("far.example", hour)
	s := NewServer(ServerOptions{Pairs: []Pair{f.putPair("server", cert, key)}, ClientCAFile: f.put("clients", a.pem())})
	told := followed(t, s)
	config := s.Config()
	cert, key = a.issue("client", hour)
	pair := f.putPair("client", cert, key)
	known := NewClient(ClientOptions{CertFile: pair.CertFile, KeyFile: pair.KeyFile, InsecureSkipVerify: true})
	followed(t, known)
	for range 2 {
		if got, err := meet(t, known.must(t, "far.example"), config); err != nil || got.clientName() != "client" {
			t.Errorf("certificate %q, %v", got.clientName(), err)
		}
	}
	if _, err := meet(t, NewClient(ClientOptions{InsecureSkipVerify: true}).must(t, "far.example"), config); err == nil {
		t.Error("a client without a certificate is served")
	}
	f.put("clients", other.pem())
	await(t, told)
	if _, err := meet(t, known.must(t, "far.example"), config); err == nil {
		t.Error("a client of an authority that is not trusted any more is served")
	}
}

func TestServerOptions(t *testing.T) {
	a, f := newAuthority(t), newFolder(t)
	cert, key := a.issue("far.example", time.Now().Add(time.Hour))
	pair := f.putPair("server", cert, key)
	for _, tc := range []struct {
		options ServerOptions
		wrong   string
	}{
		{ServerOptions{Pairs: []Pair{pair}}, ""},
		{ServerOptions{Pairs: []Pair{pair}, MinVersion: "1.2", MaxVersion: "1.2"}, ""},
		{ServerOptions{}, "no certificate"},
		{ServerOptions{Pairs: []Pair{pair}, MinVersion: "1.1"}, "min_version"},
		{ServerOptions{Pairs: []Pair{pair}, MaxVersion: "1.4"}, "max_version"},
		{ServerOptions{Pairs: []Pair{pair}, MinVersion: "1.3", MaxVersion: "1.2"}, "in this order"},
		{ServerOptions{Pairs: []Pair{pair}, ClientCAFile: pair.KeyFile}, "client_ca_file: no certificate in " + pair.KeyFile},
		{ServerOptions{Pairs: []Pair{{CertFile: pair.CertFile, KeyFile: f.dir + "/none"}}}, "no such file"},
	} {
		err := NewServer(tc.options).Check()
		if (err == nil) != (tc.wrong == "") || err != nil && !strings.Contains(err.Error(), tc.wrong) {
			t.Errorf("%+v: %v", tc.options, err)
		}
	}
	// Until they are followed, the files are read for each connection.
	s := NewServer(ServerOptions{Pairs: []Pair{pair}, MaxVersion: "1.2"})
	c := NewClient(ClientOptions{InsecureSkipVerify: true})
	if got, err := meet(t, c.must(t, "x"), s.Config()); err != nil || got.client.Version != tls.VersionTLS12 {
		t.Errorf("version %x, %v", got.client.Version, err)
	}
}
