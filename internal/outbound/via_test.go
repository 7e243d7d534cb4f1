package outbound

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/proxytest"
)

func TestParseVia(t *testing.T) {
	for text, want := range map[string]string{
		"http://proxy":                 "http proxy:80",
		"http://proxy:3128":            "http proxy:3128",
		"http://proxy:3128/":           "http proxy:3128",
		"http://bücher.example":        "http xn--bcher-kva.example:80",
		"http://s3c_ü":                 "! its host is no name that can be looked up",
		" http://proxy:3128\n":         "http proxy:3128",
		"https://u:p@proxy":            "https proxy:443 u:p",
		"socks5://[fd00::1]":           "socks5 [fd00::1]:1080",
		"socks5h://u:p%40ss@proxy:1":   "socks5 proxy:1 u:p@ss",
		"http://us%20er:p%40ss%3A@x:1": "http x:1 us er:p@ss:",
		"ftp://s3cret":                 "! its scheme is not http, https or socks5",
		"s3cret:3128":                  "! its scheme is not http, https or socks5",
		"proxy":                        "! its scheme is not http, https or socks5",
		"http://":                      "! it names no host",
		"http://:3128":                 "! it names no host",
		"http://u:s3cret@":             "! it names no host",
		"http://proxy:0":               "! the port is not 1 to 65535",
		"http://proxy:99999":           "! the port is not 1 to 65535",
		"http://u:s3cret@proxy/path":   "! something follows the port",
		"http://u:s3cret@proxy?q":      "! something follows the port",
		"http://u:s3cret@proxy#q":      "! something follows the port",
		"http://u:s3c%zzret@proxy":     "! it cannot be read as a URL",
		"http://u:s3c ret@proxy\x7f":   "! it cannot be read as a URL",
		"socks5://" + strings.Repeat("s3cret", 50) + "@proxy": "! a SOCKS5 proxy takes user and password of up to 255 bytes each",
		"socks5://:s3cret@proxy":                              "! a SOCKS5 proxy takes no password without a user",
		"socks5://@proxy":                                     "socks5 proxy:1080",
		"socks5://:@proxy":                                    "socks5 proxy:1080",
		"http://:s3cret@proxy":                                "http proxy:80 :s3cret",
		"socks5://u@proxy":                                    "socks5 proxy:1080 u:",
	} {
		v, err := ParseVia(text)
		if err != nil {
			if got := "! " + err.Error(); got != want || strings.Contains(got, "s3c") {
				t.Errorf("%q: %s", text, got)
			}
			continue
		}
		got := v.proxy.scheme + " " + v.proxy.address()
		if name, password := v.proxy.credentials(); v.proxy.user != nil {
			got += " " + name + ":" + password
		}
		if got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
	if v, err := ParseVia(""); err != nil || !v.IsZero() || v.proxyFor("far:1") != nil {
		t.Errorf("none: %v", err)
	}
}

func TestViaIsNotPrinted(t *testing.T) {
	v := via(t, "http://alice:s3cret@proxy.corp:3128")
	var log bytes.Buffer
	l := slog.New(slog.NewTextHandler(&log, nil))
	l.Info("x", "via", v, "proxy", v.proxy, "in", struct{ V Via }{v})
	j, err := json.Marshal(struct{ V Via }{v})
	if err != nil {
		t.Fatal(err)
	}
	texts := []string{log.String(), string(j)}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		texts = append(texts, fmt.Sprintf(verb, v), fmt.Sprintf(verb, &v), fmt.Sprintf(verb, v.proxy), fmt.Sprintf(verb, []Via{v}), fmt.Sprintf(verb, Dialer{Via: v}))
	}
	for _, text := range texts {
		if strings.Contains(text, "s3cret") || strings.Contains(text, "alice") || strings.Contains(text, "proxy.corp") {
			t.Errorf("%s", text)
		}
	}
}

// unset takes the proxies of whoever runs the test away.
func unset(t *testing.T) {
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"} {
		t.Setenv(name, "")
		_ = os.Unsetenv(name)
	}
}

func TestViaEnvironment(t *testing.T) {
	for name, tt := range map[string]struct {
		env     map[string]string
		address string
		want    string // "": without a proxy
	}{
		"nothing":               {nil, "far:443", ""},
		"a proxy":               {map[string]string{"HTTPS_PROXY": "http://proxy:3128"}, "far:5432", "proxy:3128"},
		"in small letters":      {map[string]string{"https_proxy": "socks5://proxy"}, "far:22", "proxy:1080"},
		"both":                  {map[string]string{"HTTPS_PROXY": "http://one", "https_proxy": "http://two"}, "far:22", "one:80"},
		"without a scheme":      {map[string]string{"HTTPS_PROXY": "proxy:3128"}, "far:443", "proxy:3128"},
		"for others":            {map[string]string{"HTTP_PROXY": "http://proxy", "ALL_PROXY": "http://proxy"}, "far:80", ""},
		"not for a name":        {map[string]string{"HTTPS_PROXY": "http://proxy", "NO_PROXY": "far"}, "far:443", ""},
		"not for a domain":      {map[string]string{"HTTPS_PROXY": "http://proxy", "no_proxy": "a,.corp"}, "db.corp:443", ""},
		"not for an absolute":   {map[string]string{"HTTPS_PROXY": "http://proxy", "no_proxy": "a,.corp"}, "db.corp.:443", ""},
		"not for a port":        {map[string]string{"HTTPS_PROXY": "http://proxy", "NO_PROXY": "far:443"}, "far:443", ""},
		"but for another":       {map[string]string{"HTTPS_PROXY": "http://proxy", "NO_PROXY": "far:443"}, "far:444", "proxy:80"},
		"not for a network":     {map[string]string{"HTTPS_PROXY": "http://proxy", "NO_PROXY": "10.0.0.0/8"}, "10.1.2.3:443", ""},
		"not for anything":      {map[string]string{"HTTPS_PROXY": "http://proxy", "NO_PROXY": "*"}, "far:443", ""},
		"not for this machine":  {map[string]string{"HTTPS_PROXY": "http://proxy"}, "127.0.0.1:443", ""},
		"a proxy that is wrong": {map[string]string{"HTTPS_PROXY": "ftp://u:s3cret@proxy"}, "far:443", "! the variable HTTPS_PROXY: its scheme is not http, https or socks5"},
	} {
		t.Run(name, func(t *testing.T) {
			unset(t)
			for k, v := range tt.env {
				t.Setenv(k, v)
			}
			v, err := ParseVia(Environment)
			got := ""
			if err != nil {
				got = "! " + err.Error()
			} else if p := v.proxyFor(tt.address); p != nil {
				got = p.address()
			}
			if got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

func TestParseBind(t *testing.T) {
	for text, want := range map[string]string{
		"":                 "invalid IP",
		"127.0.0.1":        "127.0.0.1",
		"::ffff:127.0.0.1": "127.0.0.1",
		"fe80::1%eth0":     "fe80::1%eth0",
		"eth0":             "! it is not an IP address",
		"127.0.0.1:80":     "! it is not an IP address",
		"0.0.0.0":          "! connections cannot be made from it",
		"::":               "! connections cannot be made from it",
		"224.0.0.1":        "! connections cannot be made from it",
		"255.255.255.255":  "! connections cannot be made from it",
	} {
		ip, err := ParseBind(text)
		got := ip.String()
		if err != nil {
			got = "! " + err.Error()
		}
		if got != want || err != nil && ip != (netip.Addr{}) {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

// TestUse: an HTTP proxy has plain requests as such, with its credentials, and all
// others through CONNECT; a SOCKS5 proxy has connections alone.
func TestUse(t *testing.T) {
	web := serve(t, func(c *net.TCPConn) {
		_, _ = c.Read(make([]byte, 1024))
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nweb")
	})
	asked := make(chan string, 2)
	proxy := serve(t, func(c *net.TCPConn) {
		b := make([]byte, 1024)
		n, _ := c.Read(b)
		asked <- string(b[:n])
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nproxy")
	})
	get := func(via Via, url string) (string, error) {
		transport := &http.Transport{}
		(&Dialer{Via: via}).Use(transport)
		defer transport.CloseIdleConnections()
		answer, err := (&http.Client{Transport: transport}).Get(url)
		if err != nil {
			return "", err
		}
		defer answer.Body.Close()
		b, err := io.ReadAll(answer.Body)
		return string(b), err
	}
	if got, err := get(Via{}, "http://"+web+"/"); got != "web" {
		t.Errorf("without a proxy: %q, %v", got, err)
	}
	if got, err := get(via(t, "socks5://"+proxytest.SOCKS5(t, "", "").Addr), "http://"+web+"/"); got != "web" {
		t.Errorf("through SOCKS5: %q, %v", got, err)
	}
	if got, err := get(via(t, "http://u:p@"+proxy), "http://far.invalid/path"); got != "proxy" {
		t.Errorf("by an HTTP proxy: %q, %v", got, err)
	}
	if got := <-asked; !strings.HasPrefix(got, "GET http://far.invalid/path HTTP/1.1\r\n") || !strings.Contains(got, "\r\nProxy-Authorization: Basic dTpw\r\n") {
		t.Errorf("asked with %q", got)
	}
	_, _ = get(via(t, "http://u:p@"+proxy), "https://far.invalid/path")
	if got := <-asked; !strings.HasPrefix(got, "CONNECT far.invalid:443 HTTP/1.1\r\n") {
		t.Errorf("asked with %q", got)
	}
}
