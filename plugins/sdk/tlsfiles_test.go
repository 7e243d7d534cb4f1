package sdk

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/plugins/sdk/internal/serve"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// secured is a plugin with tls blocks in all places that a block may have.
type secured struct {
	noDial `tunneld:"-"`
	TLS    TLS            `tunneld:"tls"`
	Absent *TLS           `tunneld:"absent"`
	Inner  *inner         `tunneld:"inner"`
	List   []inner        `tunneld:"list"`
	ByName map[string]TLS `tunneld:"by_name"`
}

type inner struct {
	TLS *TLS `tunneld:"tls"`
}

// started is an upstream in use.
type started struct {
	t       *testing.T
	dialer  *secured
	reports chan *pluginv1.UpstreamStatus
	log     chan string
}

// Write takes a line of the log.
func (s *started) Write(line []byte) (int, error) {
	s.log <- string(line)
	return len(line), nil
}

func startSecured(t *testing.T, config string) *started {
	t.Helper()
	built, err := Plugin{Name: "secured", Version: "1", New: func() Dialer { return new(secured) }}.build()
	if err != nil {
		t.Fatal(err)
	}
	s := &started{t: t, reports: make(chan *pluginv1.UpstreamStatus, 99), log: make(chan string, 99)}
	i := built.New().(*instance)
	s.dialer = i.dialer.(*secured)
	if ds := i.Decode(&pluginv1.Upstream{ConfigJson: []byte(config)}); len(ds) > 0 {
		t.Fatal(ds)
	}
	err = i.Start(serve.Env{
		Upstream: "x",
		Log:      slog.New(slog.NewTextHandler(s, nil)),
		Report:   func(st *pluginv1.UpstreamStatus) { s.reports <- st },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := i.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// await returns the first report that is as wanted.
func (s *started) await(wanted func(*pluginv1.UpstreamStatus) bool) *pluginv1.UpstreamStatus {
	s.t.Helper()
	late := time.After(30 * time.Second)
	for {
		select {
		case st := <-s.reports:
			if wanted(st) {
				return st
			}
		case <-late:
			s.t.Fatal("no such report")
		}
	}
}

// logged waits for a line with all the words.
func (s *started) logged(words ...string) {
	s.t.Helper()
	late := time.After(30 * time.Second)
next:
	for {
		select {
		case line := <-s.log:
			for _, w := range words {
				if !strings.Contains(line, w) {
					continue next
				}
			}
			return
		case <-late:
			s.t.Fatalf("no line with %q", words)
		}
	}
}

func config(t *testing.T, block TLS) *tls.Config {
	t.Helper()
	c, err := block.Config("far.example")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func pool(t *testing.T, file string) *x509.CertPool {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	p := x509.NewCertPool()
	p.AppendCertsFromPEM(content)
	return p
}

// TestTLSFilesAreFollowed while the upstream is in use, wherever the block stands: what
// cannot be used leaves what was, and is told in log and state.
func TestTLSFilesAreFollowed(t *testing.T) {
	one, key := pemFiles(t, selfSigned(t))
	two, otherKey := pemFiles(t, selfSigned(t))
	file, _ := pemFiles(t, selfSigned(t))
	nettest.ReplaceFile(t, file, one)
	body := fmt.Sprintf(`{"ca_file": %q, "min_version": "1.2"}`, file)
	s := startSecured(t, fmt.Sprintf(`{"tls": {"ca_file": %q, "cert_file": %q, "key_file": %q, "min_version": "1.2"},
		"inner": {"tls": %s}, "list": [{"tls": %s}], "by_name": {"a": %s}}`, file, one, key, body, body, body))
	blocks := map[string]TLS{"tls": s.dialer.TLS, "inner": *s.dialer.Inner.TLS, "list": *s.dialer.List[0].TLS, "by_name": s.dialer.ByName["a"]}
	trust := func(ca string) {
		t.Helper()
		for name, block := range blocks {
			if !config(t, block).RootCAs.Equal(pool(t, ca)) {
				t.Errorf("%s: other authorities", name)
			}
		}
	}
	trust(one)
	st := s.await(func(st *pluginv1.UpstreamStatus) bool { return len(st.GetCertificates()) > 0 })
	if c := st.GetCertificates()[0]; c.GetFile() != one || time.Until(c.GetNotAfter().AsTime()) > time.Hour || len(st.GetCertificates()) > 1 {
		t.Errorf("state %v", st)
	}
	healthy := func(st *pluginv1.UpstreamStatus) bool { return st.GetFileProblem() == "" }
	nettest.ReplaceFile(t, file, key)
	st = s.await(func(st *pluginv1.UpstreamStatus) bool { return st.GetFileProblem() != "" })
	if st.GetFileProblem() != "tls: ca_file: no certificate in "+file {
		t.Errorf("state %v", st)
	}
	for range 2 { // the forms of the block: with a certificate, and without
		s.logged("WARN", "stays in use", "no certificate in "+file)
	}
	trust(one)
	nettest.ReplaceFile(t, file, two)
	s.await(healthy)
	for range 2 {
		s.logged("INFO", "are in use")
	}
	trust(two)
	nettest.ReplaceFile(t, key, otherKey)
	s.await(func(st *pluginv1.UpstreamStatus) bool { return strings.Contains(st.GetFileProblem(), key) })
	config(t, s.dialer.TLS)
}

// TestTLSConfigIsTheCallers changes what Config returned.
func TestTLSConfigIsTheCallers(t *testing.T) {
	s := startSecured(t, `{}`)
	c := config(t, s.dialer.TLS)
	c.NextProtos, c.MinVersion = []string{"h2"}, tls.VersionTLS13
	if c := config(t, s.dialer.TLS); c.NextProtos != nil || c.MinVersion != tls.VersionTLS12 || c.ServerName != "far.example" {
		t.Errorf("configuration %+v", c)
	}
}

// TestTLSSessionsAreShared among the dials of an upstream, also where the user wrote no
// block, and not with a block that differs.
func TestTLSSessionsAreShared(t *testing.T) {
	s := startSecured(t, `{}`)
	req := &Request{kept: s.dialer.TLS.kept}
	first := config(t, req.TLS(s.dialer.Absent)).ClientSessionCache
	if first != config(t, req.TLS(nil)).ClientSessionCache {
		t.Error("two dials share no sessions")
	}
	named := TLS{ServerName: "other.example"}
	named.kept = req.kept
	if first != config(t, req.TLS(&named)).ClientSessionCache {
		t.Error("another name has sessions of its own")
	}
	careless := TLS{InsecureSkipVerify: true}
	careless.kept = req.kept
	if first == config(t, req.TLS(&careless)).ClientSessionCache {
		t.Error("a block that checks no certificate shares its sessions")
	}
	first.Put("x", new(tls.ClientSessionState))
	if _, ok := first.Get("x"); !ok {
		t.Error("sessions are not kept")
	}
}

// TestTLSOfAnUpstreamThatIsNotInUse reads the files at each use.
func TestTLSOfAnUpstreamThatIsNotInUse(t *testing.T) {
	one, key := pemFiles(t, selfSigned(t))
	two, _ := pemFiles(t, selfSigned(t))
	block := TLS{CAFile: one}
	if !config(t, block).RootCAs.Equal(pool(t, one)) {
		t.Error("other authorities")
	}
	nettest.ReplaceFile(t, one, two)
	if !config(t, block).RootCAs.Equal(pool(t, two)) {
		t.Error("the old authorities")
	}
	nettest.ReplaceFile(t, one, key)
	if _, err := block.Config("x"); err == nil || !strings.Contains(err.Error(), "tls: ca_file: no certificate in "+one) {
		t.Errorf("%v", err)
	}
}

// TestReportKeepsWhatTheSDKKnows: an author's report does not wipe it out.
func TestReportKeepsWhatTheSDKKnows(t *testing.T) {
	cert, key := pemFiles(t, selfSigned(t))
	s := startSecured(t, fmt.Sprintf(`{"tls": {"cert_file": %q, "key_file": %q, "min_version": "1.2"}}`, cert, key))
	kept := s.dialer.TLS.kept
	r := &reporter{knows: []known{kept}, send: func(st *pluginv1.UpstreamStatus) { s.reports <- st }}
	r.report(Status{Health: HealthFailing, Message: "why"})
	r.again()
	for range 2 {
		s.await(func(st *pluginv1.UpstreamStatus) bool {
			return st.GetHealth() == pluginv1.Health_HEALTH_FAILING && st.GetMessage() == "why" && len(st.GetCertificates()) == 1
		})
	}
}
