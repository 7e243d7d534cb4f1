//go:build interop

package interop

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/soht/sohtemu"
)

func TestNginxWithoutBuffering(t *testing.T) {
	s := emulate(t, sohtemu.Options{IdlePoll: 5 * time.Millisecond})
	url := startNginx(t, s.Addr(), sohtemu.DefaultPath, "off", "1.1")
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) { everything(t, values{"url": url, "mode": mode}) })
	}
}

// everything is what a tunnel has to do.
func everything(t *testing.T, v values) {
	pingPong(t, v)
	for _, data := range contents(4 << 20) {
		down(t, v, data)
		up(t, v, data)
		both(t, v, data[:1<<20])
	}
}

// With buffering on, nginx keeps the last bytes of a stateful read back until a
// buffer is full or the target has ended: always towards a server that it
// speaks HTTP/1.0 with, its default, and now and then with HTTP/1.1. What waits
// for an answer waits for ever, and mode "stateless" is there for it. Nothing
// is lost either way.
func TestNginxWithBuffering(t *testing.T) {
	s := emulate(t, sohtemu.Options{IdlePoll: 5 * time.Millisecond})
	for _, version := range []string{"1.1", "1.0"} {
		url := startNginx(t, s.Addr(), sohtemu.DefaultPath, "on", version)
		t.Run(version+"/stateless", func(t *testing.T) { everything(t, values{"url": url, "mode": "stateless"}) })
		t.Run(version+"/stateful", func(t *testing.T) {
			v := values{"url": url, "mode": "stateful"}
			for _, data := range contents(4 << 20) {
				down(t, v, data)
				up(t, v, data)
			}
			if version == "1.0" {
				heldBack(t, v)
			}
		})
	}
}

// heldBack expects that a target's bytes come with its end and not before.
func heldBack(t *testing.T, v values) {
	end := make(chan struct{})
	c := mustConnect(t, nettest.Serve(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "hello")
		<-end
	}), v, nil)
	_ = c.SetReadDeadline(time.Now().Add(time.Second))
	if n, err := c.Read(make([]byte, 5)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d bytes came through the buffer (%v): the README says otherwise", n, err)
	}
	close(end)
	_ = c.SetReadDeadline(time.Now().Add(patience))
	if got, err := io.ReadAll(c); err != nil || string(got) != "hello" {
		t.Errorf("at the target's end: %q, %v", got, err)
	}
}

// A server behind the gateway that dies or is not there.
func TestNginxFailures(t *testing.T) {
	s := emulate(t, sohtemu.Options{})
	url := startNginx(t, s.Addr(), sohtemu.DefaultPath, "off", "1.1")
	for _, mode := range modes {
		action := map[string]string{"stateful": "read", "stateless": "readwrite"}[mode]
		s.SetFaults(sohtemu.Faults{On: map[string]sohtemu.Fault{action: {Cut: mode == "stateless", Drop: mode == "stateful"}}})
		c := mustConnect(t, nettest.Serve(t, nettest.Echo), values{"url": url, "mode": mode}, nil)
		_, _ = c.Write([]byte("hi"))
		if _, err := io.Copy(io.Discard, c); err == nil {
			t.Errorf("%s: a broken answer looks like a clean end", mode)
		}
		s.SetFaults(sohtemu.Faults{})
	}
	s.SetFaults(sohtemu.Faults{CutReadAfter: 50_000})
	c := mustConnect(t, nettest.Serve(t, func(c *net.TCPConn) { _, _ = c.Write(make([]byte, 100_000)) }), values{"url": url}, nil)
	if n, err := io.Copy(io.Discard, c); err == nil {
		t.Errorf("a read that was cut looks like a clean end, after %d bytes", n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := connect(t, "127.0.0.1:1", values{"url": url}, nil)
	var e *sdk.DialError
	if !errors.As(err, &e) || e.Reason != sdk.ReasonUnavailable || !strings.Contains(e.Message, "502") {
		t.Errorf("without a server: %v", err)
	}
}

func TestSquid(t *testing.T) { throughProxy(t, startSquid(t), "alice:p%40ss", modes) }

// tinyproxy closes its connections behind each answer and takes out the header
// that would say so.
func TestTinyproxy(t *testing.T) { throughProxy(t, startTinyproxy(t), "alice:pass", modes) }

func throughProxy(t *testing.T, proxy, login string, modes []string) {
	via := "http://" + login + "@" + proxy
	var s *sohtemu.Server
	for name, c := range map[string]sohtemu.Container{"Tomcat": sohtemu.Tomcat, "Jetty": sohtemu.Jetty} {
		s = emulate(t, sohtemu.Options{IdlePoll: 5 * time.Millisecond, Container: c})
		for _, mode := range modes {
			t.Run(name+"/"+mode, func(t *testing.T) {
				everything(t, values{"url": s.URL(), "mode": mode, "via": via})
			})
		}
	}
	t.Run("by CONNECT", func(t *testing.T) {
		everything(t, values{"url": s.URL(), "via": via, "via_connect": true})
	})
	t.Run("wrong password", func(t *testing.T) {
		_, err := connect(t, "127.0.0.1:1", values{"url": s.URL(), "via": "http://alice:wrong@" + proxy}, nil)
		var e *sdk.DialError
		if !errors.As(err, &e) || e.Reason != sdk.ReasonUnauthenticated {
			t.Errorf("got %v", err)
		}
	})
}
