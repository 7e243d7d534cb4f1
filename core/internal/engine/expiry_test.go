package engine

import (
	"crypto/x509"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tunneld/tunneld/core/status"
	"github.com/tunneld/tunneld/internal/logtest"
)

// TestCertificatesThatEnd are warned of from 14 days before on, at once and then every
// day, also those that appear later, until another one is there.
func TestCertificatesThatEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const day = 24 * time.Hour
		begun := time.Now()
		cert := func(file string, after time.Duration) []status.Certificate {
			return []status.Certificate{{File: file, NotAfter: begun.Add(after)}}
		}
		var mu sync.Mutex
		s := status.Status{
			Listeners: []status.Listener{{ID: "tcp.soon", Certificates: cert("a.pem", 13*day+time.Hour)}, {ID: "tcp.later", Certificates: cert("b.pem", 16*day)}},
			Upstreams: []status.Upstream{{ID: "direct.over", Certificates: cert("c.pem", -time.Hour)}, {ID: "soht.x"}},
		}
		log := logtest.New(patience)
		x := newExpiry(slog.New(slog.NewJSONHandler(log, nil)), func() status.Status {
			mu.Lock()
			defer mu.Unlock()
			return s
		})
		count := func(want int, pairs ...string) {
			t.Helper()
			synctest.Wait()
			if n := len(log.Matching(append([]string{"level", "WARN"}, pairs...)...)); n != want {
				t.Errorf("after %s: %q %d times, want %d\n%s", time.Since(begun), pairs, n, want, log)
			}
		}
		x.begin(true)
		count(1, "msg", "certificate ends soon", "listener", "tcp.soon", "file", "a.pem", "days_left", "13")
		count(1, "msg", "certificate has ended", "upstream", "direct.over", "file", "c.pem")
		count(2)
		// A plugin tells of its certificate a moment after the start.
		mu.Lock()
		s.Upstreams[1].Certificates = cert("d.pem", 10*day)
		mu.Unlock()
		time.Sleep(2 * time.Minute)
		count(1, "msg", "certificate ends soon", "upstream", "soht.x")
		count(3)
		time.Sleep(23 * time.Hour)
		count(3)
		time.Sleep(2 * time.Hour)
		count(2, "listener", "tcp.soon")
		count(6)
		count(0, "listener", "tcp.later")
		// Something else was put in force, and then a whole configuration.
		x.begin(false)
		count(6)
		x.begin(true)
		count(9)
		mu.Lock()
		s.Listeners[0].Certificates = cert("a.pem", 90*day)
		s.Upstreams = nil
		mu.Unlock()
		time.Sleep(2 * day)
		count(3, "listener", "tcp.soon")
		count(1, "listener", "tcp.later", "days_left", "13")
		x.stop()
		x.begin(true)
		told := len(log.Matching("level", "WARN"))
		time.Sleep(5 * day)
		count(told)
	})
}

// TestCertificatesThatEndAreTold by a daemon at its start and at a reload.
func TestCertificatesThatEndAreTold(t *testing.T) {
	d := newTLSDoor(t)
	d.cert, d.key = d.authority.Files(t, &x509.Certificate{DNSNames: []string{"door.example"}, NotAfter: time.Now().Add(13*24*time.Hour + time.Hour)})
	config := func(echo string) string { return d.config(echo, "", "") }
	r := start(t, nil, config)
	for _, id := range []string{"tcp.t", "socks5.s", "http.h"} {
		r.log.Await(t, 1, "level", "WARN", "msg", "certificate ends soon", "listener", id, "file", d.cert, "days_left", "13")
	}
	r.reload(t, config(r.echo))
	r.log.Await(t, 2, "msg", "certificate ends soon", "listener", "tcp.t")
	cert, key := d.authority.Files(t, &x509.Certificate{NotAfter: time.Now().Add(90 * 24 * time.Hour)})
	d.cert, d.key = cert, key
	r.reload(t, config(r.echo))
	if n := len(r.log.Matching("msg", "certificate ends soon")); n != 6 {
		t.Error(fmt.Sprint(n, " warnings"))
	}
}
