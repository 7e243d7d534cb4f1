package soht

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"html"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest"
)

// What must be told to nobody, in any form, nor the beginning of it.
const (
	canaryPassword = "pass&w+rd é\"<canary"
	canaryToken    = "t0ken/canary+x=="
	canaryVia      = "via&canary:1"
)

var canaries = values{
	"username": "alice", "password": canaryPassword,
	"headers": values{"Authorization": "Bearer " + canaryToken},
	"via":     "http://bob:" + url.QueryEscape(canaryVia) + "@",
}

// leaks returns what of the canaries is in a text.
func leaks(text string) string {
	for _, form := range []string{text, html.UnescapeString(text), strings.ReplaceAll(text, `\`, "")} {
		if plain, err := url.QueryUnescape(form); err == nil {
			form += " " + plain
		}
		for _, s := range []string{"canary", "pass&", "t0ke", "via&", base64.StdEncoding.EncodeToString([]byte("bob:" + canaryVia))[:6]} {
			if strings.Contains(form, s) {
				return s
			}
		}
	}
	return ""
}

// echoing is a server that repeats what it was sent; say gets the request as it
// came, and writes the whole answer.
func echoing(t *testing.T, say func(w io.Writer, head, form string)) string {
	return nettest.Serve(t, func(c *net.TCPConn) {
		br := bufio.NewReader(c)
		for {
			var head bytes.Buffer
			r, err := http.ReadRequest(bufio.NewReader(io.TeeReader(br, &head)))
			if err != nil {
				return
			}
			form, err := io.ReadAll(r.Body)
			if err != nil {
				return
			}
			before, _, _ := strings.Cut(head.String(), "\r\n\r\n")
			say(c, before, string(form))
		}
	})
}

// body answers with 200 and what f makes of the request.
func body(f func(head, form string) string) func(io.Writer, string, string) {
	return func(w io.Writer, head, form string) {
		r := http.Response{StatusCode: http.StatusOK, ProtoMajor: 1, ProtoMinor: 1}
		text := f(head, form)
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
		_ = r.Write(w)
	}
}

func quoted(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

var echoes = map[string]func(io.Writer, string, string){
	"the form":    body(func(_, form string) string { return form }),
	"the headers": body(func(head, _ string) string { return head[strings.Index(head, "Authorization"):] }),
	"the proxy's": body(func(head, _ string) string { return head[max(strings.Index(head, "Proxy-Auth"), 0):] }),
	"in a page": body(func(head, form string) string {
		plain, _ := url.QueryUnescape(form)
		return "<html>" + html.EscapeString(plain) + html.EscapeString(head)
	}),
	"in JSON": body(func(head, form string) string {
		plain, _ := url.QueryUnescape(form)
		return quoted(plain) + quoted(head)
	}),
	"as a refusal": body(func(_, form string) string { return "FAIL - " + form + "\n" }),
	"in a refused token": body(func(head, _ string) string {
		_, token, _ := strings.Cut(head, "Bearer ")
		return "FAIL - token " + token
	}),
	"where the quote ends": body(func(_, form string) string {
		_, password, _ := strings.Cut(form, "password=")
		return strings.Repeat(".", maxQuote-len("pass%26w")) + password
	}),
	"in a redirect": func(w io.Writer, head, form string) {
		_, password, _ := strings.Cut(form, "password=")
		_, token, _ := strings.Cut(head, "Bearer ")
		token, _, _ = strings.Cut(token, "\r\n")
		_, _ = io.WriteString(w, "HTTP/1.1 302 Found\r\nLocation: http://bob:"+url.QueryEscape(canaryVia)+"@x/"+password+"/"+url.PathEscape(token)+"?"+form+"\r\nContent-Length: 0\r\n\r\n")
	},
	"without HTTP": func(w io.Writer, head, form string) { _, _ = io.WriteString(w, form+"\r\n\r\n") },
	"as a header":  func(w io.Writer, head, form string) { _, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\n"+form+"\r\n\r\n") },
	"as its own header": func(w io.Writer, head, form string) {
		_, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Length: "+form+"\r\n\r\n")
	},
}

// A server that repeats what it was sent makes nothing of it known: not in the
// dial's error, which the log has, nor in the upstream's state.
func TestNoSecretOfADial(t *testing.T) {
	for name, say := range echoes {
		t.Run(name, func(t *testing.T) {
			addr := echoing(t, func(w io.Writer, head, form string) {
				if form == "" { // the question whether connections are kept
					body(func(string, string) string { return "" })(w, head, form)
					return
				}
				say(w, head, form)
			})
			v := values{"url": "http://soht.corp/service"}
			for k, value := range canaries {
				v[k] = value
			}
			v["via"] = v["via"].(string) + addr
			var log lockedBuffer
			p := sdktest.StartWithLog(t, Plugin(), slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
			u := p.Configure(t, "test", v)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			_, err := u.Dial(ctx, "db.corp:1")
			e := dialError(t, err)
			st := u.AwaitStatus(ctx, t, func(st sdk.Status) bool { return st.Health != sdk.HealthUnknown })
			for _, text := range []string{e.Message, e.Hint, st.Message, log.String()} {
				if s := leaks(text); s != "" {
					t.Errorf("%q has %q", text, s)
				}
			}
		})
	}
}

// A short secret is taken out where it is told, and nowhere else: what is known of
// the text would tell it.
func TestShortSecrets(t *testing.T) {
	v := values{"username": "alice", "password": "o", "headers": values{"X": "t"}}
	v["url"] = "http://" + echoing(t, body(func(_, form string) string { return form + " got" }))
	_, err := dial(t, v, "db.corp:1")
	if e := dialError(t, err); !strings.HasSuffix(e.Message, "action=open&host=db.corp&port=1&username=alice&[redacted] got") {
		t.Errorf("message %q", e.Message)
	}
	v["url"] = "http://" + nettest.Serve(t, func(*net.TCPConn) {})
	_, err = dial(t, v, "db.corp:1")
	if e := dialError(t, err); strings.Contains(e.Error(), "[redacted]") {
		t.Errorf("got %v", e)
	}
}

// The same of what ends a tunnel: its requests carry the headers as well.
func TestNoSecretOfATunnel(t *testing.T) {
	modes(t, func(t *testing.T, mode string) {
		for name, say := range echoes {
			t.Run(name, func(t *testing.T) {
				addr := echoing(t, func(w io.Writer, head, form string) {
					if strings.HasPrefix(form, "action=open&") {
						body(func(string, string) string { return "SUCCESS\n1\n" })(w, head, form)
						return
					}
					say(w, head, form)
				})
				c := &Config{
					URL: "http://" + addr, Mode: mode, WriteSize: 1024, Username: "alice", Password: sdk.NewSecret(canaryPassword),
					Headers:  map[string]string{"Authorization": "Bearer " + canaryToken},
					Timeouts: sdk.Timeouts{Connect: patience, Handshake: patience},
				}
				stream := bare(t, c, "db.corp:1")
				_, _ = stream.Write([]byte("hi"))
				_, err := io.Copy(io.Discard, stream)
				if err == nil || errors.Is(err, io.EOF) {
					t.Fatalf("the tunnel ends with %v", err)
				}
				if s := leaks(err.Error()); s != "" {
					t.Errorf("%q has %q", err, s)
				}
			})
		}
	})
}

// lockedBuffer is a log that several goroutines write.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
