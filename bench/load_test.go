package main

import (
	"net"
	"sync/atomic"
	"testing"
	"time"
)

// TestLoadCountsBrokenStreams has a server keep one connection and end all
// others: a load that passed would have measured one stream.
func TestLoadCountsBrokenStreams(t *testing.T) {
	const conns = 8
	for kind, serve := range map[string]func(*net.TCPConn){
		"up":   func(c *net.TCPConn) { discard(c) },
		"down": func(c *net.TCPConn) { produce(c) },
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
			f := loadFlags{kind: kind, address: address, n: conns, length: 500 * time.Millisecond}
			run := bulk
			if kind == "rr" {
				run = roundTrips
			}
			got, err := run(f)
			if err != nil || got.PerSecond == 0 || got.Failed != conns-1 {
				t.Errorf("%+v, %v; want %d failed", got, err, conns-1)
			}
		})
	}
}
