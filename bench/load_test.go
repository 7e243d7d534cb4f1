package main

import (
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tunneld/tunneld/plugins/sapsocks/sapsocksemu"
)

// TestLoadCountsBrokenStreams has a server keep one connection and end all
// others: a load that passed would have measured one stream.
func TestLoadCountsBrokenStreams(t *testing.T) {
	const conns = 8
	for kind, serve := range map[string]func(*net.TCPConn){
		"up":   func(c *net.TCPConn) { repeat(c.Read) },
		"down": func(c *net.TCPConn) { repeat(c.Write) },
		"rr":   echo,
	} {
		t.Run(kind, func(t *testing.T) {
			var accepted atomic.Int64
			address, err := listen(func(c *net.TCPConn) {
				if accepted.Add(1) == 1 {
					serve(c)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			measured(t, loadFlags{kind: kind, address: address, n: conns}, conns-1, func() { accepted.Store(0) })
		})
	}
}

// TestLoadWaitsForABusyMachine has a far end that does nothing for longer than the
// measurement is to last.
func TestLoadWaitsForABusyMachine(t *testing.T) {
	for kind, serve := range map[string]func(*net.TCPConn){
		"down": func(c *net.TCPConn) { repeat(c.Write) },
		"rr":   echo,
		"crr":  echo,
	} {
		t.Run(kind, func(t *testing.T) {
			gate := make(chan struct{})
			address, err := listen(func(c *net.TCPConn) {
				<-gate
				serve(c)
			})
			if err != nil {
				t.Fatal(err)
			}
			const length = 100 * time.Millisecond
			time.AfterFunc(2*length, func() { close(gate) })
			got, err := loadFlags{kind: kind, address: address, n: 2, length: length}.run()
			if err != nil || got.PerSecond == 0 || got.Total == 0 || got.Failed > 0 {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

// TestAskedRowDoesEveryLoad has the load ask the proxy itself, which the row
// sapsocks is compared with.
func TestAskedRowDoesEveryLoad(t *testing.T) {
	far, err := startServices()
	if err != nil {
		t.Fatal(err)
	}
	emu, err := sapsocksemu.Start(sapsocksemu.Options{Connectors: connectors(far.services())})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := emu.Close(); err != nil {
			t.Error(err)
		}
	})
	far.Proxy, far.Token = emu.Proxy(), emu.IssueToken(tokenLife)
	asked, err := farAsked(t.Context(), settings{}, far, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range columns {
		t.Run(c.name, func(t *testing.T) {
			f, err := parseLoad(asked.loadArgs(c.kind, c.n, settings{})[1:])
			if err != nil {
				t.Fatal(err)
			}
			measured(t, f, 0, func() {})
		})
	}
}

// measured runs the load until something has moved and as many connections as
// wanted have failed: longer each time, since a busy machine may do nothing for
// a while. before is called before each run.
func measured(t *testing.T, f loadFlags, failed int64, before func()) {
	t.Helper()
	for f.length = 100 * time.Millisecond; ; f.length *= 2 {
		before()
		got, err := f.run()
		if err == nil && got.PerSecond > 0 && float64(got.Total) > got.PerSecond*f.length.Seconds()/2 && got.Failed == failed {
			return
		}
		if f.length > 5*time.Second {
			t.Fatalf("%+v, %v; want %d failed", got, err, failed)
		}
	}
}
