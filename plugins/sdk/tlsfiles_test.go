package sdk

import (
	"bytes"
	"crypto/tls"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// secured is a plugin with a tls block.
type secured struct {
	noDial `tunneld:"-"`
	TLS    TLS `tunneld:"tls"`
}

// tlsFiles are a block with all its files, as a user wrote it.
type tlsFiles struct {
	t               *testing.T
	block           TLS
	ca, cert, key   string
	certPEM, keyPEM []byte
}

func keptTLS(t *testing.T) *tlsFiles {
	t.Helper()
	f := &tlsFiles{t: t}
	f.cert, f.key = pemFiles(t, selfSigned(t))
	f.ca, _ = pemFiles(t, selfSigned(t))
	f.certPEM, f.keyPEM = f.content(f.cert), f.content(f.key)
	for _, file := range []string{f.ca, f.cert, f.key} {
		f.age(file)
	}
	d := new(secured)
	config := `{"tls": {"ca_file": "` + f.ca + `", "cert_file": "` + f.cert + `", "key_file": "` + f.key + `", "min_version": "1.2"}}`
	if ds := decodeInto(t, []byte(config), d); len(ds) > 0 {
		t.Fatal(ds)
	}
	f.block = d.TLS
	return f
}

func (f *tlsFiles) content(file string) []byte {
	f.t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		f.t.Fatal(err)
	}
	return b
}

// age makes a file one that was changed an hour ago.
func (f *tlsFiles) age(file string) {
	f.t.Helper()
	hour := time.Now().Add(-time.Hour).Truncate(time.Hour)
	if err := os.Chtimes(file, hour, hour); err != nil {
		f.t.Fatal(err)
	}
}

// write changes a file in place.
func (f *tlsFiles) write(file string, content []byte) {
	f.t.Helper()
	if err := os.WriteFile(file, content, 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// replace puts a new file in a file's place.
func (f *tlsFiles) replace(file string, content []byte) {
	f.t.Helper()
	f.write(file+".new", content)
	if err := os.Rename(file+".new", file); err != nil {
		f.t.Fatal(err)
	}
}

func (f *tlsFiles) config() *tls.Config {
	f.t.Helper()
	c, err := f.block.Config("far.example")
	if err != nil {
		f.t.Fatal(err)
	}
	if c.ServerName != "far.example" || c.MinVersion != tls.VersionTLS12 || c.RootCAs == nil || len(c.Certificates) != 1 {
		f.t.Errorf("configuration %+v", c)
	}
	return c
}

// same says whether nothing was parsed between two configurations.
func same(a, b *tls.Config) bool {
	return a.RootCAs == b.RootCAs && &a.Certificates[0] == &b.Certificates[0]
}

// TestTLSFilesAreReadOnce garbles the files in a way that no look at them
// shows: who reads them again fails.
func TestTLSFilesAreReadOnce(t *testing.T) {
	f := keptTLS(t)
	first := f.config()
	for _, file := range []string{f.ca, f.cert, f.key} {
		f.write(file, bytes.Repeat([]byte("x"), len(f.content(file))))
		f.age(file)
	}
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			if c, err := f.block.Config("far.example"); err != nil || !same(first, c) {
				t.Errorf("read again: %v", err)
			}
		})
	}
	wait.Wait()
	// A copy is the same block, and one without some files another.
	other := f.block
	other.ServerName = "other.example"
	if c, err := other.Config("far.example"); err != nil || !same(first, c) || c.ServerName != "other.example" {
		t.Errorf("a copy: %+v, %v", c, err)
	}
	other.CAFile, other.CertFile, other.KeyFile = "", "", ""
	if c, err := other.Config("far.example"); err != nil || c.RootCAs != nil || c.Certificates != nil {
		t.Errorf("a copy without files: %+v, %v", c, err)
	}
}

// TestTLSConfigIsTheCallers changes what Config returned.
func TestTLSConfigIsTheCallers(t *testing.T) {
	f := keptTLS(t)
	c := f.config()
	c.NextProtos, c.RootCAs, c.MinVersion = []string{"h2"}, nil, tls.VersionTLS13
	if c := f.config(); c.NextProtos != nil {
		t.Errorf("configuration %+v", c)
	}
}

// TestTLSFilesAreReadAgain once they have changed, and only then.
func TestTLSFilesAreReadAgain(t *testing.T) {
	t.Run("replaced", func(t *testing.T) {
		f := keptTLS(t)
		first := f.config()
		caFile, _ := pemFiles(t, selfSigned(t))
		f.replace(f.ca, f.content(caFile))
		second := f.config()
		if second.RootCAs.Equal(first.RootCAs) {
			t.Error("the new authorities are not used")
		}
		if third := f.config(); !same(second, third) {
			t.Error("parsed again, though nothing had changed")
		}
	})
	t.Run("touched", func(t *testing.T) {
		f := keptTLS(t)
		first := f.config()
		f.replace(f.cert, f.certPEM)
		if second := f.config(); !same(first, second) {
			t.Error("parsed again, though the content is the same")
		}
	})
	t.Run("within the file system's step of time", func(t *testing.T) {
		f := keptTLS(t)
		// Not past while the test runs, however slow.
		at := time.Now().Add(time.Minute)
		stamp := func() {
			if err := os.Chtimes(f.ca, at, at); err != nil {
				t.Fatal(err)
			}
		}
		// All of one length.
		padded := func(file string) []byte {
			b := f.content(file)
			return append(b, bytes.Repeat([]byte("\n"), 4096-len(b))...)
		}
		f.write(f.ca, padded(f.ca))
		stamp()
		first := f.config()
		other, _ := pemFiles(t, selfSigned(t))
		f.write(f.ca, padded(other))
		stamp()
		if second := f.config(); second.RootCAs.Equal(first.RootCAs) {
			t.Error("a change in the same instant is not seen")
		}
	})
	t.Run("half rotated", func(t *testing.T) {
		f := keptTLS(t)
		first := f.config()
		cert, key := pemFiles(t, selfSigned(t))
		f.replace(f.cert, f.content(cert))
		if _, err := f.block.Config("far.example"); err == nil || !strings.Contains(err.Error(), "cert_file and key_file") {
			t.Errorf("a certificate without its key: %v", err)
		}
		f.replace(f.key, f.content(key))
		if second := f.config(); bytes.Equal(second.Certificates[0].Certificate[0], first.Certificates[0].Certificate[0]) {
			t.Error("the new certificate is not used")
		}
	})
	t.Run("lost", func(t *testing.T) {
		f := keptTLS(t)
		first := f.config()
		if err := os.Remove(f.ca); err != nil {
			t.Fatal(err)
		}
		if _, err := f.block.Config("far.example"); err == nil || !strings.Contains(err.Error(), f.ca) {
			t.Errorf("without the file: %v", err)
		}
		f.replace(f.ca, []byte("no certificate"))
		if _, err := f.block.Config("far.example"); err == nil || !strings.Contains(err.Error(), "no certificate in "+f.ca) {
			t.Errorf("without a certificate: %v", err)
		}
		caFile, _ := pemFiles(t, selfSigned(t))
		f.replace(f.ca, f.content(caFile))
		if second := f.config(); second.RootCAs.Equal(first.RootCAs) {
			t.Error("the new authorities are not used")
		}
	})
}
