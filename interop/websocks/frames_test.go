//go:build interop

package interop

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/tunneld/tunneld/plugins/sdk/sdktest"
	"github.com/tunneld/tunneld/plugins/websocks"
	"github.com/tunneld/tunneld/plugins/websocks/websocksemu"
)

// conversation is what a client and a server said to each other, each behind
// its HTTP head.
type conversation struct {
	client, server         []byte
	clientHead, serverHead string
}

// record takes down a conversation of the plugin with the emulated server.
func record(t *testing.T) conversation {
	t.Helper()
	s := emulate(t, websocksemu.Options{})
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_ = l.SetDeadline(time.Now().Add(patience))
	var up, down bytes.Buffer
	done := make(chan struct{})
	go func() {
		defer close(done)
		near, err := l.AcceptTCP()
		if err != nil {
			t.Errorf("accept: %v", err)
			return
		}
		defer near.Close()
		far, err := net.Dial("tcp", s.Address())
		if err != nil {
			t.Errorf("dial: %v", err)
			return
		}
		defer far.Close()
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			_, _ = io.Copy(far, io.TeeReader(near, &up))
			_ = far.(*net.TCPConn).CloseWrite()
		}()
		_, _ = io.Copy(near, io.TeeReader(far, &down))
		_ = near.CloseWrite()
		<-sent
	}()

	u := sdktest.Start(t, websocks.Plugin()).Configure(t, "paas", values{"url": "ws://" + l.Addr().String()})
	c := mustDial(t, u, websocksemu.EchoTarget)
	if _, err := io.WriteString(c, strings.Repeat("data", 20_000)); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, c); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	<-done
	var v conversation
	v.clientHead, v.client = cutHead(t, up.Bytes())
	v.serverHead, v.server = cutHead(t, down.Bytes())
	return v
}

func cutHead(t *testing.T, b []byte) (string, []byte) {
	t.Helper()
	head, rest, ok := bytes.Cut(b, []byte("\r\n\r\n"))
	if !ok {
		t.Fatalf("no head in %d bytes", len(b))
	}
	return string(head), rest
}

// replay is a server that has upgraded and then says what was recorded.
type replay struct{ io.Reader }

func (replay) Write(b []byte) (int, error) { return len(b), nil }
func (replay) Close() error                { return nil }

func (r replay) RoundTrip(q *http.Request) (*http.Response, error) {
	accept := sha1.Sum([]byte(q.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return &http.Response{
		StatusCode: http.StatusSwitchingProtocols,
		Header: http.Header{
			"Upgrade":              {"websocket"},
			"Connection":           {"Upgrade"},
			"Sec-Websocket-Accept": {base64.StdEncoding.EncodeToString(accept[:])},
		},
		Body: r,
	}, nil
}

// TestStreamIsOneFrame has an independent, strict parser of frames read what
// the plugin and the server send: one binary message that has begun and not
// ended, and in it SOCKS and the data. Frames of the plugin are not masked, so
// the parser reads them in a client's role.
func TestStreamIsOneFrame(t *testing.T) {
	v := record(t)
	for name, stream := range map[string][]byte{"client": v.client, "server": v.server} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			conn, _, err := websocket.Dial(ctx, "http://recorded", &websocket.DialOptions{
				HTTPClient: &http.Client{Transport: replay{bytes.NewReader(stream)}},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.CloseNow()
			conn.SetReadLimit(-1)
			kind, r, err := conn.Reader(ctx)
			if err != nil || kind != websocket.MessageBinary {
				t.Fatalf("message of type %v: %v", kind, err)
			}
			payload, err := io.ReadAll(r)
			if err == nil {
				t.Errorf("the message has an end")
			}
			if want := stream[10:]; !bytes.Equal(payload, want) {
				t.Errorf("%d bytes of payload, want the %d behind the frame's header", len(payload), len(want))
			}
			if !bytes.HasPrefix(payload, []byte("\x05")) || !bytes.HasSuffix(payload, []byte("datadata")) {
				t.Errorf("payload from %q to %q", payload[:10], payload[len(payload)-10:])
			}
		})
	}
}
