package azrelay_test

import (
	"io"
	"strings"
	"testing"

	"github.com/gobwas/ws"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/plugins/azrelay/azrelayemu"
	"github.com/tunneld/tunneld/plugins/sdk"
)

// The tests of this file are named after the lines of the protocol's notes on
// azbridge's framing.

func TestThePreamble(t *testing.T) {
	for _, tt := range []struct {
		name     string
		over     map[string]any
		target   string
		preamble string
	}{
		{"the default port name is the port in decimal", nil, "db:5432", "\x01\x00\x00\x045432"},
		{"a port name", map[string]any{"port_name": "postgres"}, "db:5432", "\x01\x00\x00\x08postgres"},
		{"a port name in UTF-8, for a label", map[string]any{"port_name": "größe"}, "label", "\x01\x00\x00\x07größe"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			endpoint := scripted(t, nil, func(p *peer) {
				f, _ := p.frame()
				if string(f.Payload) != tt.preamble {
					p.t.Errorf("the preamble is %q", f.Payload)
				}
				// Data may follow in the same message, in any framing.
				p.send(ws.NewFrame(ws.OpBinary, false, []byte{1}), ws.NewFrame(ws.OpContinuation, false, []byte{0}),
					ws.NewFrame(ws.OpContinuation, true, []byte("\x00data")))
				p.want(ws.OpClose)
				p.finish()
			})
			over := map[string]any{"framing": "azbridge"}
			for k, v := range tt.over {
				over[k] = v
			}
			c := dial(t, upstream(t, plain(endpoint, over)), tt.target)
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if got := readAll(t, c); got != "data" {
				t.Errorf("read %q", got)
			}
		})
	}
}

func TestThePreambleIsSentOnlyWhereConfigured(t *testing.T) {
	endpoint := scripted(t, nil, func(p *peer) {
		if _, data := p.want(ws.OpClose); string(data) != "data" {
			p.t.Errorf("a plain listener saw %q", data)
		}
		p.finish()
	})
	c := dial(t, upstream(t, plain(endpoint, nil)), "db:5432")
	if _, err := io.WriteString(c, "data"); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	readAll(t, c)
}

func TestWaitForTheThreeBytes(t *testing.T) {
	endpoint := scripted(t, nil, func(p *peer) {
		p.frame()
		p.send(ws.NewBinaryFrame([]byte{1, 0}))
		p.drain() // the third byte never comes
	})
	e := dialError(t, upstream(t, plain(endpoint, map[string]any{"framing": "azbridge", "timeouts": map[string]any{"handshake": "1s"}})), "db:1")
	if e.Stage != sdk.StageRequest || e.Reason != sdk.ReasonTimeout || !strings.Contains(e.Hint, `framing = "raw"`) {
		t.Errorf("%v, %v", e, e.Reason)
	}
}

func TestAzbridgesRefusalsAreToldApart(t *testing.T) {
	for _, tt := range []struct {
		name    string
		answer  []ws.Frame
		reason  sdk.Reason
		message string
		hint    string
	}{
		{"00 00 00 unknown version", []ws.Frame{ws.NewBinaryFrame([]byte{0, 0, 0})}, sdk.ReasonProtocol, "version", "version"},
		{"00 00 01 a UDP forwarder was asked for a stream", []ws.Frame{ws.NewBinaryFrame([]byte{0, 0, 1})}, sdk.ReasonProtocol, "as UDP, but was asked for a stream", `forwards port "5432" as UDP`},
		{"00 00 ff a TCP forwarder was asked for datagrams", []ws.Frame{ws.NewBinaryFrame([]byte{0, 0, 0xff})}, sdk.ReasonProtocol, "as TCP, but was asked for datagrams", "asked for a stream"},
		{"an unknown port name: no bytes, Close 1000", []ws.Frame{closeFrame(1000, "")}, sdk.ReasonNotFound, "port name", `"5432"`},
		{"another answer", []ws.Frame{ws.NewBinaryFrame([]byte("SSH-2.0-x"))}, sdk.ReasonProtocol, "53 53 48", `framing = "raw"`},
		{"an error of the service", []ws.Frame{closeFrame(1011, "")}, sdk.ReasonUnavailable, "1011", ""},
		{"the end in the middle", []ws.Frame{ws.NewBinaryFrame([]byte{1, 0}), closeFrame(1000, "")}, sdk.ReasonProtocol, "answer", `framing = "raw"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			endpoint := scripted(t, nil, func(p *peer) {
				p.frame()
				p.send(tt.answer...)
				p.drain()
			})
			e := dialError(t, upstream(t, plain(endpoint, map[string]any{"framing": "azbridge"})), "db:5432")
			if e.Stage != sdk.StageRequest || e.Reason != tt.reason || !strings.Contains(e.Message, tt.message) || !strings.Contains(e.Hint, tt.hint) {
				t.Errorf("%v, %v", e, e.Reason)
			}
		})
	}
	t.Run("the emulated azbridge knows its ports", func(t *testing.T) {
		s := startEmulator(t, azrelayemu.Options{Forward: []azrelayemu.Forward{{
			HybridConnection: "hc1", Framing: azrelayemu.FramingAzbridge, Ports: map[string]string{"5432": nettest.Serve(t, nettest.Echo)}, UDPPorts: []string{"53"},
		}}})
		u := upstream(t, body(t, s, map[string]any{"framing": "azbridge"}))
		if e := dialError(t, u, "db:53"); e.Reason != sdk.ReasonProtocol || !strings.Contains(e.Hint, "as UDP") {
			t.Errorf("a UDP forwarder: %v, %v", e, e.Reason)
		}
		if e := dialError(t, u, "db:1234"); e.Reason != sdk.ReasonNotFound {
			t.Errorf("%v, %v", e, e.Reason)
		}
		dial(t, u, "db:5432")
	})
	t.Run("a label has no port", func(t *testing.T) {
		e := dialError(t, upstream(t, plain("ws://127.0.0.1:1", map[string]any{"framing": "azbridge"})), "label")
		if e.Stage != sdk.StageRequest || e.Reason != sdk.ReasonUnreachable || !e.Retryable || !strings.Contains(e.Hint, "port_name") {
			t.Errorf("%v, %v, retryable %v", e, e.Reason, e.Retryable)
		}
	})
}
