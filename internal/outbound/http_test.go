package outbound

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestAlertIsTheError: a server that wants a client certificate refuses with TLS 1.3 when
// the handshake is over for the client, while the transport writes the request. Its alert
// is the error, whatever fails first.
func TestAlertIsTheError(t *testing.T) {
	for name, size := range map[string]int{"a small request": 100, "one that is still being written": 8 << 20} {
		t.Run(name, func(t *testing.T) {
			body := make([]byte, size)
			server := httptest.NewUnstartedServer(http.NotFoundHandler())
			server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13}
			server.Config.ErrorLog = log.New(io.Discard, "", 0)
			server.StartTLS()
			defer server.Close()
			transport := &http.Transport{TLSClientConfig: server.Client().Transport.(*http.Transport).TLSClientConfig, DisableKeepAlives: true}
			new(Dialer).Use(transport)
			ReportAlerts(transport)
			for range 50 {
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL, bytes.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				answer, err := transport.RoundTrip(r)
				if err == nil {
					_ = answer.Body.Close()
					t.Fatal("the request is answered")
				}
				var alert tls.AlertError
				if !errors.As(err, &alert) && !strings.Contains(err.Error(), "tls: certificate required") {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestTransportsHandshakeHasATimeout of its own, also with a context that has none.
func TestTransportsHandshakeHasATimeout(t *testing.T) {
	silent := httptest.NewUnstartedServer(nil)
	defer silent.Close()
	transport := &http.Transport{DialContext: new(net.Dialer).DialContext, TLSHandshakeTimeout: 50 * time.Millisecond}
	ReportAlerts(transport)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+silent.Listener.Addr().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var timeout interface{ Timeout() bool }
	if answer, err := transport.RoundTrip(r); !errors.As(err, &timeout) || !timeout.Timeout() {
		if err == nil {
			_, _ = io.Copy(io.Discard, answer.Body)
			_ = answer.Body.Close()
		}
		t.Errorf("%v, want a timeout", err)
	}
}
