package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/tunneld/tunneld/plugins/sapsocks/sapsocksemu"
)

// farEnds are the addresses of the far end's services, and the sapsocks proxy
// that leads to them. The far end prints them as one line of JSON.
type farEnds struct {
	Echo   string `json:",omitempty"`
	Sink   string `json:",omitempty"`
	Source string `json:",omitempty"`
	Proxy  string `json:",omitempty"` // of the emulated sapsocks
	VCAP   string `json:",omitempty"`
	Token  string `json:",omitempty"`

	tls tlsFiles // for those in between
}

// services are where a load's connections lead, by what it does.
type services struct{ echo, sink, source string }

func (s services) of(kind string) string {
	switch kind {
	case "up":
		return s.sink
	case "down":
		return s.source
	default:
		return s.echo
	}
}

func (f farEnds) services() services { return services{f.Echo, f.Sink, f.Source} }

// virtual are the names by which the emulated Cloud Connector knows the services.
var virtual = services{"echo.corp:7", "sink.corp:9", "source.corp:19"}

// runFar serves until its standard input ends.
func runFar() error {
	f, err := startServices()
	if err != nil {
		return err
	}
	return serveFar(f)
}

func startServices() (f farEnds, err error) {
	for _, s := range []struct {
		address *string
		serve   func(*net.TCPConn)
	}{
		{&f.Echo, echo},
		{&f.Sink, func(c *net.TCPConn) { repeat(c.Read) }},
		{&f.Source, func(c *net.TCPConn) { repeat(c.Write) }},
	} {
		if *s.address, err = listen(s.serve); err != nil {
			return farEnds{}, err
		}
	}
	return f, nil
}

// runProxy is the emulated sapsocks in front of the services: a process of its
// own, since each tunnel takes two descriptors there.
func runProxy(args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("usage: proxy ECHO SINK SOURCE")
	}
	emu, err := sapsocksemu.Start(sapsocksemu.Options{Connectors: connectors(services{args[0], args[1], args[2]})})
	if err != nil {
		return fmt.Errorf("start sapsocks far end: %w", err)
	}
	err = serveFar(farEnds{Proxy: emu.Proxy(), VCAP: emu.VCAPServices(), Token: emu.IssueToken(tokenLife)})
	return errors.Join(err, emu.Close())
}

func connectors(s services) map[string]map[string]string {
	return map[string]map[string]string{"": {virtual.echo: s.echo, virtual.sink: s.sink, virtual.source: s.source}}
}

// serveFar tells where the services are, and returns when the input ends.
func serveFar(f farEnds) error {
	if err := json.NewEncoder(os.Stdout).Encode(f); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// startFar runs one of the two as a process and takes up what it tells.
func startFar(ctx context.Context, f *farEnds, args ...string) (*process, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p, err := start(ctx, os.Stderr, exe, args...)
	if err != nil {
		return nil, err
	}
	line, err := p.out.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, f)
	}
	if err != nil {
		p.stop()
		return nil, fmt.Errorf("far end: %w", err)
	}
	return p, nil
}

func listen(serve func(*net.TCPConn)) (string, error) {
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return "", fmt.Errorf("start far end: %w", err)
	}
	go func() {
		for {
			c, err := ln.AcceptTCP()
			if err != nil {
				continue // out of descriptors for a moment; the process ends by its input
			}
			go func() {
				defer c.Close()
				serve(c)
			}()
		}
	}()
	return ln.Addr().String(), nil
}

func echo(c *net.TCPConn) {
	buf := make([]byte, 4<<10)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return
		}
	}
}

// repeat reads, or writes, until that fails.
func repeat(do func([]byte) (int, error)) {
	buf := make([]byte, 256<<10)
	for err := error(nil); err == nil; {
		_, err = do(buf)
	}
}
