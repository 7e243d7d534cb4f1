package engine

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/core/status"
	"github.com/tunneld/tunneld/internal/follow"
	"github.com/tunneld/tunneld/internal/logtest"
	"github.com/tunneld/tunneld/internal/tlsconf"
)

// identity is a certificate in files, and its key.
type identity struct{ cert, key string }

func newIdentity(t *testing.T) identity {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS() // for its certificate
	defer s.Close()
	pair := s.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	id := identity{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	put(t, id.cert, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]})))
	put(t, id.key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
	return id
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestTLSFilesOverGenerations: while a file of a direct upstream's tls block is broken,
// another generation goes on with what it held, and sessions of the one before are
// resumed. Status and metrics tell of the file, and when the certificate ends.
func TestTLSFilesOverGenerations(t *testing.T) {
	t.Parallel()
	resumed := make(chan bool, 1)
	target, ca := secured(t, func(c *tls.Conn) {
		resumed <- c.ConnectionState().DidResume
		_, _ = io.Copy(c, c) // the client sees what is missing
		_ = c.Close()
	})
	id := newIdentity(t)
	r := start(t, nil, func(string) string {
		return toyBlocks(t) + fmt.Sprintf(`
metrics { address = "127.0.0.1:0" }
upstream "direct" "d" {
  tls {
    ca_file   = %q
    cert_file = %q
    key_file  = %q
  }
}
upstream "toy" "other" {}
listener "tcp" "l" {
  address = "127.0.0.1:0"
  target  = %q
}
route "r" {
  upstreams = [upstream.direct.d]
}
`, ca, id.cert, id.key, target)
	})
	at, _ := r.at(t, "tcp.l")
	visits := func(wantResumed bool) {
		t.Helper()
		visit(t, at[0])
		if is := <-resumed; is != wantResumed {
			t.Errorf("the session is resumed: %v", is)
		}
	}
	anew := func() {
		t.Helper()
		if out := r.RestartPlugin(t.Context(), toyName); out.Error != "" {
			t.Fatal(out.Error)
		}
	}
	visits(false)
	visits(true)
	anew()
	visits(true)

	certificate := func(s status.Status) bool {
		c := s.Upstreams[0].Certificates
		return len(c) == 1 && c[0].File == id.cert && !c[0].NotAfter.IsZero()
	}
	if s := r.Status(); !certificate(s) || s.Upstreams[0].FileProblem != "" {
		t.Errorf("status %+v", s.Upstreams[0])
	}
	_, page := get(t, r.metricsSockets()[0].bound(), "/metrics")
	for _, want := range []string{`tunneld_upstream_certificate_expires_timestamp_seconds{upstream="direct.d"}`, `tunneld_upstream_file_problem{upstream="direct.d"} 0`} {
		if !strings.Contains(page, want) {
			t.Errorf("no %s", want)
		}
	}

	was, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	put(t, ca, "half a")
	anew() // before or after the follower has seen it
	visits(true)
	s := r.await(t, "a broken file is not told of", func(s status.Status) bool { return s.Upstreams[0].FileProblem != "" })
	if problem := s.Upstreams[0].FileProblem; !strings.Contains(problem, "tls: ca_file") || !strings.Contains(problem, ca) || !certificate(s) {
		t.Errorf("status %+v", s.Upstreams[0])
	}
	r.log.Await(t, 1, "level", "WARN", "upstream", "direct.d", "msg", "a file of a tls block has changed and cannot be used: the old content stays in use")
	anew()
	visits(true)
	if r.Status().Upstreams[0].FileProblem == "" {
		t.Error("the problem is forgotten")
	}
	put(t, ca, string(was))
	r.await(t, "a file that is mended is told of", func(s status.Status) bool { return s.Upstreams[0].FileProblem == "" })
	visits(false) // it may be another authority
}

// made is client without a configuration that has the upstream.
func (all *tlsFiles) made(upstream string, o tlsconf.ClientOptions) *tlsconf.Client {
	all.ready = map[tlsKey]tlsSide{clientKey(upstream, o): tlsconf.NewClient(o)}
	defer all.forget()
	return all.client(upstream, o)
}

// TestTLSFilesAreReadBefore the commit: it may not wait for a file system, nor fail.
func TestTLSFilesAreReadBefore(t *testing.T) {
	d, id := newTLSDoor(t), newIdentity(t)
	all := newTLSFiles(&follow.Follower{}, slog.New(slog.DiscardHandler))
	defer all.retain(nil)
	path := filepath.Join(t.TempDir(), "tunneld.hcl")
	put(t, path, d.config("db:1", d.mutual("spiffe://corp/*"), "")+fmt.Sprintf("upstream \"direct\" \"d\" {\n tls {\n cert_file = %q\n key_file = %q\n }\n}\n", id.cert, id.key))
	cfg, diags := config.Parse(path)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	if err := all.prepare(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{d.cert, d.key, d.auth, id.cert, id.key} {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	certificates := 0
	for _, l := range cfg.Listeners {
		certificates += len(all.server(l.ID(), l.TLS.Server).Certificates())
	}
	for _, u := range cfg.Upstreams {
		if u.TLS != nil {
			certificates += len(all.client(u.ID(), u.TLS.Client).Certificates())
		}
	}
	if certificates != len(cfg.Listeners)+1 {
		t.Errorf("%d certificates are in use", certificates)
	}
	// Those that are in use are not read again.
	if all.forget(); all.prepare(t.Context(), cfg) != nil || len(all.ready) > 0 {
		t.Errorf("%d are read again", len(all.ready))
	}
}

// TestTLSClients: an upstream keeps its client as long as its options are the same, what
// is of no use from the beginning is told, and no client is kept that nobody has.
func TestTLSClients(t *testing.T) {
	log := logtest.New(patience)
	all := newTLSFiles(&follow.Follower{Settle: time.Millisecond}, slog.New(slog.NewJSONHandler(log, nil)))
	defer all.retain(nil)
	id := newIdentity(t)
	authority := tlsconf.ClientOptions{CAFile: id.cert}
	first := all.made("direct.d", authority)
	if all.made("direct.d", authority) != first || all.made("direct.e", authority) == first {
		t.Error("each upstream has one client")
	}
	both := tlsconf.ClientOptions{CAFile: filepath.Join(t.TempDir(), "ca.pem"), CertFile: id.cert, KeyFile: id.key}
	all.made("direct.d", both)
	all.made("direct.d", tlsconf.ClientOptions{CAFile: both.CAFile})
	certificates, problem := all.state(ofUpstream, "direct.d")
	if len(certificates) != 0 || strings.Count(problem, both.CAFile) != 1 {
		t.Errorf("%v, %q", certificates, problem)
	}
	if certificates, problem := all.state(ofUpstream, "direct.e"); len(certificates) > 0 || problem != "" {
		t.Errorf("of another: %v, %q", certificates, problem)
	}
	log.Await(t, 2, "level", "WARN", "upstream", "direct.d", "msg", "the files of a tls block cannot be used: connections fail until they can")
	was, err := os.ReadFile(id.cert)
	if err != nil {
		t.Fatal(err)
	}
	put(t, both.CAFile, string(was))
	log.Await(t, 2, "level", "INFO", "upstream", "direct.d", "msg", "the files of a tls block have changed, and are in use")
	if certificates, problem := all.state(ofUpstream, "direct.d"); len(certificates) != 1 || problem != "" {
		t.Errorf("once it is there: %v, %q", certificates, problem)
	}
	all.retain(map[tlsKey]bool{clientKey("direct.d", authority): true})
	if len(all.byKey) != 1 || all.made("direct.d", authority) != first {
		t.Errorf("%d clients are kept", len(all.byKey))
	}
}
