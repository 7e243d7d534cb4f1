package tlsconf

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tunneld/tunneld/internal/follow"
)

// strictServer is one that wants a certificate of the authority, and resumes sessions.
func strictServer(t *testing.T, a *authority, name string, version uint16) *tls.Config {
	t.Helper()
	pair, err := tls.X509KeyPair(a.issue(name, time.Now().Add(time.Hour)))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.Certificate)
	return &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, MaxVersion: version}
}

func (c *Client) must(t *testing.T, name string) *tls.Config {
	t.Helper()
	config, err := c.Config(name)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// TestServersName: it is sent and verified in ASCII and without a dot.
func TestServersName(t *testing.T) {
	c := NewClient(ClientOptions{})
	for name, want := range map[string]string{"db.corp.": "db.corp", "bücher.example.": "xn--bcher-kva.example", "127.0.0.1": "127.0.0.1", "": ""} {
		if got := c.must(t, name).ServerName; got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
	if config, err := c.Config("ü_b"); err == nil {
		t.Errorf("%q", config.ServerName)
	}
}

// TestClientFollowsItsFiles: handshakes take the newest certificate that can be used,
// and resume no session of another.
func TestClientFollowsItsFiles(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			t.Parallel()
			a, f := newAuthority(t), newFolder(t)
			server := strictServer(t, a, "far.example", version)
			issue := func(name string) ([]byte, []byte) { return a.issue(name, time.Now().Add(time.Hour)) }
			one, oneKey := issue("one")
			pair := f.putPair("client", one, oneKey)
			c := NewClient(ClientOptions{CAFile: f.put("ca", a.PEM()), CertFile: pair.CertFile, KeyFile: pair.KeyFile})
			told := followed(t, c)
			old := c.must(t, "far.example")
			dial := func(config *tls.Config, name string, resumed bool) {
				t.Helper()
				s, err := meet(t, config, server)
				if err != nil {
					t.Fatal(err)
				}
				if s.clientName() != name || s.client.DidResume != resumed {
					t.Errorf("certificate %q, resumed %v; want %q, %v", s.clientName(), s.client.DidResume, name, resumed)
				}
			}
			dial(old, "one", false)
			dial(c.must(t, "far.example"), "one", true)

			two, twoKey := issue("two")
			f.put("client.crt", two)
			await(t, told, "cert_file and key_file", pair.CertFile, pair.KeyFile, "does not match")
			dial(c.must(t, "far.example"), "one", true)
			f.put("client.key", twoKey)
			await(t, told)
			dial(c.must(t, "far.example"), "two", false)
			dial(c.must(t, "far.example"), "two", true)
			// A configuration that is older has the newest certificate, too.
			dial(old, "two", false)
			dial(old, "two", false)
			dial(c.must(t, "far.example"), "two", true)

			f.put("ca", []byte("no PEM"))
			await(t, told, "ca_file", f.dir+"/ca", "no certificate in")
			dial(c.must(t, "far.example"), "two", true)
			if err := os.Remove(f.dir + "/ca"); err != nil {
				t.Fatal(err)
			}
			await(t, told, "ca_file", "no such file")
			dial(c.must(t, "far.example"), "two", true)
			f.put("ca", newAuthority(t).PEM())
			await(t, told)
			if _, err := meet(t, c.must(t, "far.example"), server); err == nil || !strings.Contains(err.Error(), "unknown authority") {
				t.Errorf("an authority that does not vouch for the server: %v", err)
			}
		})
	}
}

// TestClientWithoutFiles resumes sessions, one for each server.
func TestClientWithoutFiles(t *testing.T) {
	a := newAuthority(t)
	c := NewClient(ClientOptions{InsecureSkipVerify: true})
	server := func(name string) *tls.Config {
		s := strictServer(t, a, name, tls.VersionTLS13)
		s.ClientAuth = tls.NoClientCert
		return s
	}
	first, second := server("a.example"), server("b.example")
	dial := func(name string, server *tls.Config, resumed bool) {
		t.Helper()
		s, err := meet(t, c.must(t, name), server)
		if err != nil || s.client.DidResume != resumed || s.client.ServerName != name {
			t.Errorf("%s: resumed %v, %v; want %v", s.client.ServerName, s.client.DidResume, err, resumed)
		}
	}
	dial("a.example", first, false)
	dial("a.example", first, false) // not followed yet
	followed(t, c)
	dial("a.example", first, false)
	dial("b.example", second, false)
	dial("a.example", first, true)
	dial("b.example", second, true)
	c.Stop()
	dial("a.example", first, false)
}

// TestClientThatIsNotFollowed reads its files again, but not for each connection. What they
// hold is told apart by the cache of sessions, by which a user of configurations knows which
// connections are of an older one.
func TestClientThatIsNotFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, f := newAuthority(t), newFolder(t)
		c := NewClient(ClientOptions{CAFile: f.put("ca", a.PEM())})
		first := c.must(t, "x")
		time.Sleep(readAgain)
		if again := c.must(t, "x"); again.ClientSessionCache != first.ClientSessionCache {
			t.Error("the same files make another state")
		}
		f.put("ca", newAuthority(t).PEM())
		if again := c.must(t, "x"); again.ClientSessionCache != first.ClientSessionCache {
			t.Error("the files are read for each connection")
		}
		time.Sleep(readAgain)
		changed := c.must(t, "x")
		if changed.ClientSessionCache == first.ClientSessionCache || changed.RootCAs.Equal(first.RootCAs) {
			t.Error("other files make the same state")
		}
		was := f.put("ca.old", a.PEM())
		if err := os.Remove(f.dir + "/ca"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(readAgain)
		for range 2 {
			if _, err := c.Config("x"); err == nil {
				t.Error("a file that is gone is in use")
			}
		}
		if err := os.Rename(was, f.dir+"/ca"); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Config("x"); err == nil {
			t.Error("files of no use are read for each connection")
		}
		time.Sleep(readAgain)
		c.must(t, "x")
	})
}

// TestFollowTakesWhatWasRead, and what has changed since once the follower sees it. Where there
// are too many files to be followed, it is in use, too.
func TestFollowTakesWhatWasRead(t *testing.T) {
	a, other, f := newAuthority(t), newAuthority(t), newFolder(t)
	c := NewClient(ClientOptions{CAFile: f.put("ca", a.PEM())})
	c.Read()
	f.put("ca", other.PEM())
	told := followed(t, c)
	before := c.must(t, "x").RootCAs
	await(t, told)
	if after := c.must(t, "x").RootCAs; after.Equal(before) {
		t.Error("what was read before is not where it begins")
	}

	full := &follow.Follower{}
	var many []follow.File
	for range 4096 {
		many = append(many, follow.File{Path: f.dir + "/none"})
	}
	watch, err := full.Follow(many, func() {})
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Stop()
	c = NewClient(ClientOptions{CAFile: f.dir + "/ca"})
	c.Read()
	if err := c.Follow(full, func(error) {}); err == nil {
		t.Fatal("any number of files can be followed")
	}
	if err := os.Remove(f.dir + "/ca"); err != nil {
		t.Fatal(err)
	}
	if err := c.Check(); err != nil {
		t.Errorf("what was read is not in use: %v", err)
	}
}

// TestClientThatBeginsWithoutItsFiles has them once they are there.
func TestClientThatBeginsWithoutItsFiles(t *testing.T) {
	a, f := newAuthority(t), newFolder(t)
	c := NewClient(ClientOptions{CAFile: f.dir + "/ca"})
	told := followed(t, c)
	if _, err := c.Config("x"); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("without its file: %v", err)
	}
	f.put("ca", a.PEM())
	await(t, told)
	if c.must(t, "x").RootCAs == nil {
		t.Error("no authorities")
	}
}

// TestClientDoesNotPressItsCertificate on a server that names other authorities.
func TestClientDoesNotPressItsCertificate(t *testing.T) {
	a, f := newAuthority(t), newFolder(t)
	other := namedAuthority(t, "another")
	cert, key := other.issue("stranger", time.Now().Add(time.Hour))
	pair := f.putPair("client", cert, key)
	c := NewClient(ClientOptions{CertFile: pair.CertFile, KeyFile: pair.KeyFile, InsecureSkipVerify: true})
	server := strictServer(t, a, "far.example", tls.VersionTLS12)
	server.ClientAuth = tls.VerifyClientCertIfGiven
	if s, err := meet(t, c.must(t, "far.example"), server); err != nil || s.clientName() != "" {
		t.Errorf("certificate %q, %v", s.clientName(), err)
	}
}

func TestClientVersions(t *testing.T) {
	for text, want := range map[string]uint16{"": tls.VersionTLS12, "1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13} {
		if c := NewClient(ClientOptions{MinVersion: text}).must(t, "x"); c.MinVersion != want {
			t.Errorf("%q: %x", text, c.MinVersion)
		}
	}
	if _, err := NewClient(ClientOptions{MinVersion: "1.1"}).Config("x"); err == nil {
		t.Error("1.1 is taken")
	}
}

// TestCertificates says when the first one of a chain ends.
func TestCertificates(t *testing.T) {
	a, f := newAuthority(t), newFolder(t)
	late, soon := time.Now().Add(48*time.Hour), time.Now().Add(24*time.Hour).Truncate(time.Second)
	leaf, key := a.issue("leaf", late)
	inner, _ := a.issue("inner", soon)
	pair := f.putPair("client", append(leaf, inner...), key)
	c := NewClient(ClientOptions{CertFile: pair.CertFile, KeyFile: pair.KeyFile})
	if all := c.Certificates(); len(all) != 1 || all[0].File != pair.CertFile || !all[0].NotAfter.Equal(soon) {
		t.Errorf("%+v", all)
	}
	s := NewServer(ServerOptions{Pairs: []Pair{pair}})
	if all := s.Certificates(); len(all) != 1 || all[0].File != pair.CertFile || !all[0].NotAfter.Equal(soon) {
		t.Errorf("%+v", all)
	}
	if all := NewClient(ClientOptions{}).Certificates(); all != nil {
		t.Errorf("%+v", all)
	}
	if all := NewClient(ClientOptions{CertFile: "/none", KeyFile: "/none"}).Certificates(); all != nil {
		t.Errorf("%+v", all)
	}
}
