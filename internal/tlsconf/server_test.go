package tlsconf

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"
)

func (s *Server) must(t *testing.T) *tls.Config {
	t.Helper()
	config, err := s.Config()
	if err != nil {
		t.Fatal(err)
	}
	return config
}

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
	c := NewClient(ClientOptions{InsecureSkipVerify: true})
	dial := func(name, want string) {
		t.Helper()
		client := c.must(t, name)
		client.NextProtos = []string{"one", "two"}
		got, err := meet(t, client, s.must(t))
		if err != nil {
			t.Fatal(err)
		}
		if got.serverName() != want || got.client.NegotiatedProtocol != "two" {
			t.Errorf("%s: certificate %q, protocol %q", name, got.serverName(), got.client.NegotiatedProtocol)
		}
	}
	dial("a.example", "a.example")
	dial("b.example", "b.example")
	for _, other := range []string{"c.example", "", "127.0.0.1"} {
		dial(other, "a.example")
	}
	before := s.must(t)
	f.put("b.crt", []byte("broken"))
	await(t, told, "cert_file", f.dir+"/b.crt")
	dial("b.example", "b.example")
	if s.must(t) != before {
		t.Error("a file of no use changes the configuration, and with it the tickets' keys")
	}
	pair("b", "c.example")
	await(t, told)
	dial("c.example", "c.example")
	dial("b.example", "a.example")
	if certs := s.Certificates(); len(certs) != 2 || certs[1].File != f.dir+"/b.crt" || time.Until(certs[1].NotAfter) > time.Hour {
		t.Errorf("certificates %v", certs)
	}
}

// TestServerPrefersTheVeryName to a wildcard, whatever the order, and looks at what the
// client can verify.
func TestServerPrefersTheVeryName(t *testing.T) {
	a, f := newAuthority(t), newFolder(t)
	var pairs []Pair
	for _, name := range []string{"first.example", "*.b.example", "Web.b.example"} {
		cert, key := a.issue(name, time.Now().Add(time.Hour))
		pairs = append(pairs, f.putPair(strings.Trim(name, "*."), cert, key))
	}
	s := NewServer(ServerOptions{Pairs: pairs})
	for name, want := range map[string]string{"web.b.example": "Web.b.example", "WEB.b.example": "Web.b.example", "mail.b.example": "*.b.example", "a.web.b.example": "first.example"} {
		got, err := meet(t, &tls.Config{ServerName: name, InsecureSkipVerify: true}, s.must(t))
		if err != nil || got.serverName() != want {
			t.Errorf("%s: %q, %v; want %q", name, got.serverName(), err, want)
		}
	}
}

// TestServerWantsCertificates of its authorities, and of those that it has now.
func TestServerWantsCertificates(t *testing.T) {
	a, other, f := newAuthority(t), newAuthority(t), newFolder(t)
	hour := time.Now().Add(time.Hour)
	cert, key := a.issue("far.example", hour)
	s := NewServer(ServerOptions{Pairs: []Pair{f.putPair("server", cert, key)}, ClientCAFile: f.put("clients", a.PEM())})
	told := followed(t, s)
	cert, key = a.issue("client", hour)
	pair := f.putPair("client", cert, key)
	known := NewClient(ClientOptions{CertFile: pair.CertFile, KeyFile: pair.KeyFile, InsecureSkipVerify: true})
	followed(t, known)
	for range 2 {
		got, err := meet(t, known.must(t, "far.example"), s.must(t))
		if err != nil || got.clientName() != "client" || s.User(got.server) != "client" {
			t.Errorf("certificate %q, user %q, %v", got.clientName(), s.User(got.server), err)
		}
	}
	if _, err := meet(t, NewClient(ClientOptions{InsecureSkipVerify: true}).must(t, "far.example"), s.must(t)); err == nil {
		t.Error("a client without a certificate is served")
	}
	f.put("clients", other.PEM())
	await(t, told)
	if _, err := meet(t, known.must(t, "far.example"), s.must(t)); err == nil {
		t.Error("a client of an authority that is not trusted any more is served")
	}
}

// visitor is a client that resumes sessions and remembers them, whatever becomes of the
// server.
type visitor struct {
	t      *testing.T
	config *tls.Config
}

func newVisitor(t *testing.T, version uint16, cert, key []byte) visitor {
	t.Helper()
	c := &tls.Config{ServerName: "far.example", InsecureSkipVerify: true, MaxVersion: version, ClientSessionCache: tls.NewLRUClientSessionCache(0)}
	if cert != nil {
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return visitor{t, c}
}

func (v visitor) visits(s *Server, resumed bool) seen {
	v.t.Helper()
	got, err := meet(v.t, v.config, s.must(v.t))
	if err != nil || got.server.DidResume != resumed || got.client.DidResume != resumed {
		v.t.Errorf("resumed %v, want %v; %v", got.server.DidResume, resumed, err)
	}
	return got
}

func (v visitor) isRefused(s *Server) error {
	v.t.Helper()
	got, err := meet(v.t, v.config, s.must(v.t))
	if err == nil {
		v.t.Errorf("served as %q, resumed %v", s.User(got.server), got.server.DidResume)
	}
	return err
}

var bothVersions = map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13}

// TestServerResumes sessions, also with clients' certificates, as long as nothing has
// changed that they depend on.
func TestServerResumes(t *testing.T) {
	for name, version := range bothVersions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, other, f := newAuthority(t), newAuthority(t), newFolder(t)
			hour := time.Now().Add(time.Hour)
			cert, key := a.issue("far.example", hour)
			o := ServerOptions{Pairs: []Pair{f.putPair("server", cert, key)}}

			s, v := NewServer(o), newVisitor(t, version, nil, nil)
			v.visits(s, false)
			v.visits(s, true) // also where the files are read each time
			told := followed(t, s)
			v.visits(s, false)
			v.visits(s, true)
			cert, key = a.issue("far.example", hour)
			f.putPair("server", cert, key)
			await(t, told)
			v.visits(s, false)

			o.ClientCAFile, o.AllowSAN = f.put("clients", a.PEM()), []string{"*.corp", "*@corp"}
			cert, key = a.issue("web.corp", hour)
			s, v = NewServer(o), newVisitor(t, version, cert, key)
			told = followed(t, s)
			v.visits(s, false)
			for range 3 {
				if got := v.visits(s, true); s.User(got.server) != "web.corp" {
					t.Errorf("user %q of a session that is resumed", s.User(got.server))
				}
			}
			// The client's authority stays, and the ticket is of no use all the same.
			f.put("clients", append(other.PEM(), a.PEM()...))
			await(t, told)
			v.visits(s, false)
			v.visits(s, true)
			o.AllowSAN = []string{"*.corp"}
			changed := NewServer(o)
			followed(t, changed)
			v.visits(changed, false)
			v.visits(changed, true)
			o.AllowSAN = []string{"mail.corp"}
			var refused *SANError
			if err := v.isRefused(NewServer(o)); !errors.As(err, &refused) || !strings.Contains(err.Error(), "web.corp") {
				t.Errorf("refused for %v", err)
			}
			f.put("clients", other.PEM())
			await(t, told)
			v.isRefused(s)
		})
	}
}

// TestResumedClientsAreVerified: should a ticket be good where it is not to be, allow_san
// holds, and so does the end of the client's certificate.
func TestResumedClientsAreVerified(t *testing.T) {
	for name, version := range bothVersions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, f := newAuthority(t), newFolder(t)
			now := time.Now()
			cert, key := a.issue("far.example", now.Add(time.Hour))
			o := ServerOptions{Pairs: []Pair{f.putPair("server", cert, key)}, ClientCAFile: f.put("clients", a.PEM())}
			cert, key = a.issue("web.corp", now.Add(10*time.Minute))
			// A client forgets its session where it is refused.
			v, gone, clock := newVisitor(t, version, cert, key), newVisitor(t, version, cert, key), now
			server := func(allow ...string) *Server {
				o.AllowSAN = allow
				s := NewServer(o)
				s.now = func() time.Time { return clock }
				followed(t, s)
				s.must(t).SetSessionTicketKeys([][32]byte{{1}})
				return s
			}
			one, same, another := server("web.corp"), server("*.corp"), server("mail.corp")
			v.visits(one, false)
			v.visits(same, true)
			gone.visits(one, false)
			var refused *SANError
			if err := gone.isRefused(another); !errors.As(err, &refused) {
				t.Errorf("refused for %v", err)
			}
			v.visits(one, true)
			clock = now.Add(11 * time.Minute)
			var invalid x509.CertificateInvalidError
			if err := v.isRefused(one); !errors.As(err, &invalid) || invalid.Reason != x509.Expired {
				t.Errorf("refused for %v", err)
			}
		})
	}
}

// TestTicketsAreNotTooLarge: a client with many certificates is served, and does each
// handshake anew.
func TestTicketsAreNotTooLarge(t *testing.T) {
	for name, version := range bothVersions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, f := newAuthority(t), newFolder(t)
			hour := time.Now().Add(time.Hour)
			cert, key := a.issue("far.example", hour)
			s := NewServer(ServerOptions{Pairs: []Pair{f.putPair("server", cert, key)}, ClientCAFile: f.put("clients", a.PEM())})
			followed(t, s)
			cert, key = a.issue("web.corp", hour)
			few := newVisitor(t, version, append(cert, a.PEM()...), key)
			few.visits(s, false)
			few.visits(s, true)
			large := &x509.Certificate{NotAfter: hour}
			for i := range 300 {
				large.DNSNames = append(large.DNSNames, fmt.Sprintf("web-%d.department.corp.example", i))
			}
			cert, key = a.Issue(t, large)
			many := newVisitor(t, version, cert, key)
			many.visits(s, false)
			many.visits(s, false)
		})
	}
}

func TestServerOptions(t *testing.T) {
	a, f := newAuthority(t), newFolder(t)
	cert, key := a.issue("far.example", time.Now().Add(time.Hour))
	pair := f.putPair("server", cert, key)
	pairs := []Pair{pair}
	for _, tc := range []struct {
		options ServerOptions
		wrong   string
	}{
		{ServerOptions{Pairs: pairs}, ""},
		{ServerOptions{Pairs: pairs, MinVersion: "1.2", MaxVersion: "1.2"}, ""},
		{ServerOptions{Pairs: pairs, CipherSuites: []string{"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"}}, ""},
		{ServerOptions{}, "no certificate"},
		{ServerOptions{Pairs: pairs, MinVersion: "1.1"}, "min_version"},
		{ServerOptions{Pairs: pairs, MaxVersion: "1.4"}, "max_version"},
		{ServerOptions{Pairs: pairs, MinVersion: "1.3", MaxVersion: "1.2"}, "in this order"},
		{ServerOptions{Pairs: pairs, ClientCAFile: pair.KeyFile}, "client_ca_file: no certificate in " + pair.KeyFile},
		{ServerOptions{Pairs: pairs, CipherSuites: []string{"x"}}, "cipher_suites: name 1"},
		{ServerOptions{Pairs: pairs, AllowSAN: []string{"a", "*"}}, "allow_san: pattern 2"},
		{ServerOptions{Pairs: []Pair{{CertFile: pair.CertFile, KeyFile: f.dir + "/none"}}}, "no such file"},
	} {
		err := NewServer(tc.options).Check()
		if (err == nil) != (tc.wrong == "") || err != nil && !strings.Contains(err.Error(), tc.wrong) {
			t.Errorf("%+v: %v", tc.options, err)
		}
	}
	// Until they are followed, the files are read for connections.
	s := NewServer(ServerOptions{Pairs: pairs, MaxVersion: "1.2", CipherSuites: []string{"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"}})
	c := NewClient(ClientOptions{InsecureSkipVerify: true})
	if got, err := meet(t, c.must(t, "x"), s.must(t)); err != nil || got.client.Version != tls.VersionTLS12 || got.client.CipherSuite != tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 {
		t.Errorf("version %x, suite %x, %v", got.client.Version, got.client.CipherSuite, err)
	}
}

// TestServerProblems: what is wrong is said with its place, and of files, too.
func TestServerProblems(t *testing.T) {
	a, f := newAuthority(t), newFolder(t)
	now := time.Now()
	issue := func(file string, c *x509.Certificate) Pair {
		cert, key := a.Issue(t, c)
		return f.putPair(file, cert, key)
	}
	good := issue("good", &x509.Certificate{DNSNames: []string{"a.example", "b.example"}, NotAfter: now.Add(time.Hour)})
	same := issue("same", &x509.Certificate{DNSNames: []string{"B.example"}, NotAfter: now.Add(time.Hour)})
	other := issue("other", &x509.Certificate{DNSNames: []string{"*.a.example"}, NotAfter: now.Add(time.Hour)})
	late := issue("late", &x509.Certificate{NotAfter: now.Add(-time.Minute)})
	for _, tc := range []struct {
		name    string
		options ServerOptions
		at      time.Time
		want    []string // path, and what of the summary or detail
	}{
		{"good", ServerOptions{Pairs: []Pair{good, other}, ClientCAFile: f.put("ca", a.PEM()), AllowSAN: []string{"*.corp"}, ALPN: []string{"h2"}}, now, nil},
		{"nothing", ServerOptions{}, now, []string{"cert_file: there is no certificate"}},
		{"versions", ServerOptions{Pairs: []Pair{good}, MinVersion: "1.3", MaxVersion: "1.2"}, now, []string{"max_version: the newest version"}},
		{"suites", ServerOptions{Pairs: []Pair{good}, MinVersion: "1.3", CipherSuites: []string{"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "none"}}, now,
			[]string{"cipher_suites.1: not the name", "cipher_suites.0: the choice of cipher_suites has no effect"}},
		{"allow_san", ServerOptions{Pairs: []Pair{good}, AllowSAN: []string{"a", "10.0.0.1"}}, now, []string{"allow_san.1: wrong pattern", "allow_san.0: patterns for client certificates"}},
		{"alpn", ServerOptions{Pairs: []Pair{good}, ALPN: []string{"h2", "", strings.Repeat("x", 256)}}, now, []string{"alpn.1: wrong name", "alpn.2: wrong name"}},
		{"files", ServerOptions{Pairs: []Pair{{good.CertFile, same.KeyFile}, {f.dir + "/none", good.KeyFile}}, ClientCAFile: good.KeyFile}, now,
			[]string{"cert_file: cannot use the certificate: " + good.CertFile, "cert_file: cannot use the certificate: open ", "client_ca_file: cannot use the authorities: no certificate in "}},
		{"one name", ServerOptions{Pairs: []Pair{other, good, same}}, now, []string{"cert_file: two certificates for one name: b.example"}},
		{"expired", ServerOptions{Pairs: []Pair{late}}, now, []string{"cert_file: the certificate has expired on "}},
		{"too early", ServerOptions{Pairs: []Pair{good}}, now.Add(-2 * time.Hour), []string{"cert_file: the certificate is not valid before "}},
	} {
		got := append(tc.options.Problems(), tc.options.FileProblems(tc.at)...)
		if len(got) != len(tc.want) {
			t.Errorf("%s: %+v", tc.name, got)
			continue
		}
		for i, p := range got {
			if text := strings.Join(p.Path(), ".") + ": " + p.Summary; !strings.HasPrefix(text, tc.want[i]) || p.Detail == "" {
				t.Errorf("%s: %s, want %s", tc.name, text, tc.want[i])
			}
			if missing := strings.Contains(p.Summary, "no such file"); p.Machine != missing {
				t.Errorf("%s: machine %v: %s", tc.name, p.Machine, p.Summary)
			}
		}
	}
}

// TestUser is the name that is allowed, or else the first.
func TestUser(t *testing.T) {
	uri := func(s string) *url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	a := newAuthority(t)
	many := []*url.URL{uri("https://" + strings.Repeat("x", 300))}
	for i := range 9 {
		many = append(many, uri("spiffe://td/"+strings.Repeat("x", i+1)))
	}
	for _, tc := range []struct {
		name    string
		cert    x509.Certificate
		allow   []string
		want    string
		refused []string
	}{
		{"any, nothing", x509.Certificate{}, nil, "", nil},
		{"any", x509.Certificate{DNSNames: []string{"A.corp."}, EmailAddresses: []string{"a@corp"}}, nil, "a.corp", nil},
		{"any, a URI", x509.Certificate{DNSNames: []string{"a.corp"}, URIs: []*url.URL{uri("spiffe://TD/Web")}}, nil, "spiffe://td/Web", nil},
		{"any, only mail", x509.Certificate{EmailAddresses: []string{"Alice@CORP"}}, nil, "Alice@corp", nil},
		{"any, none that counts", x509.Certificate{DNSNames: []string{"a b", "a\nb"}, EmailAddresses: []string{"@corp", "x"}}, nil, "", nil},
		{"by mail", x509.Certificate{DNSNames: []string{"a.corp"}, EmailAddresses: []string{"alice@corp"}}, []string{"*@corp"}, "alice@corp", nil},
		{"the first", x509.Certificate{DNSNames: []string{"a.corp", "b.corp"}}, []string{"b.*", "a.*"}, "a.corp", nil},
		{"refused", x509.Certificate{DNSNames: []string{"a.corp"}, EmailAddresses: []string{"a@corp"}}, []string{"b.*"}, "", []string{"it has a.corp, a@corp"}},
		{"refused, nothing", x509.Certificate{}, []string{"b.*"}, "", []string{"neither a DNS name nor"}},
		{"refused, none that counts", x509.Certificate{DNSNames: []string{"a\nb"}}, []string{"b.*"}, "", []string{"of its 1 names none can be compared"}},
		{"refused, many", x509.Certificate{URIs: many}, []string{"b.*"}, "", []string{"it has https://xxx", "…, spiffe://td/x, spiffe://td/xx, spiffe://td/xxx and 6 more"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.cert.NotAfter = time.Now().Add(time.Hour)
			tc.cert.Subject = pkix.Name{CommonName: "nobody"}
			text, _ := a.Issue(t, &tc.cert)
			block, _ := pem.Decode(text)
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			allowed, err := parseAllowed(tc.allow)
			if err != nil {
				t.Fatal(err)
			}
			got, err := allowed.user(cert)
			if got != tc.want || (err == nil) != (tc.refused == nil) {
				t.Errorf("%q, %v", got, err)
			}
			for _, want := range tc.refused {
				if err != nil && !strings.Contains(err.Error(), want) {
					t.Errorf("%v, want %s", err, want)
				}
			}
			if err != nil && len(err.Error()) > 2000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		})
	}
}
