package conformance

import (
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/core/conformance/internal/farend"
	"github.com/tunneld/tunneld/core/conformance/internal/poll"
	"github.com/tunneld/tunneld/core/internal/tunnel"
)

// forward is a far end: "forward FROM TO" leads connections to FROM on to TO.
func forward(args []string) int {
	if len(args) != 2 {
		fmt.Println("the frobnicator is not configured")
		return 5
	}
	return serveFarEnd(args[0], func(in *net.TCPConn) {
		out, err := net.Dial("tcp", args[1])
		if err != nil {
			_ = in.SetLinger(0)
			return
		}
		defer out.Close()
		done := make(chan struct{})
		pipe := func(to, from net.Conn) {
			if _, err := io.Copy(to, from); err != nil {
				_, _ = in.SetLinger(0), out.(*net.TCPConn).SetLinger(0)
				_, _ = in.Close(), out.Close()
			}
			_ = to.(*net.TCPConn).CloseWrite()
		}
		go func() {
			defer close(done)
			pipe(in, out)
		}()
		pipe(out, in)
		<-done
	})
}

// serveFarEnd serves connections to an address, each of which it closes, for as
// long as the process lives.
func serveFarEnd(address string, serve func(*net.TCPConn)) int {
	ln, err := net.Listen("tcp", address)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	for {
		in, err := ln.Accept()
		if err != nil {
			return 1
		}
		go func() {
			defer in.Close()
			serve(in.(*net.TCPConn))
		}()
	}
}

// farEndCommand runs a far end of the test binary, by way of a shell, so that
// there is a group to end.
func farEndCommand(t *testing.T, args ...string) []string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return append([]string{"/bin/sh", "-c", `sleep 0.2; "$@"; exit $?`, "sh", exe, "forward"}, args...)
}

// TestFarEnd starts a far end that takes a while, is told where it leads, and is
// ended with the run.
func TestFarEnd(t *testing.T) {
	t.Parallel()
	// A TCP connection of its own ends alike when the far end dies.
	o := options(t, rawName, "tells no cut from an end", rawBody("relay"))
	serve := freeTarget()
	o.Serve, o.NoRefused = serve, true
	o.FarEnd = farEndCommand(t, o.Target, serve)
	r := run1(t, o)
	results(t, r, map[string]Result{"refused": Skipped, "far-end-death": Declared})
	if c, err := net.Dial("tcp", o.Target); err == nil {
		_ = c.Close()
		t.Error("the far end still runs")
	}
}

// TestFarEndThatEnds: its last words are in the report.
func TestFarEndThatEnds(t *testing.T) {
	t.Parallel()
	o := options(t, rawName, "", rawBody("relay"))
	o.Target, o.Serve = freeTarget(), freeTarget()
	o.FarEnd = farEndCommand(t)
	r := run1(t, o)
	i := slices.IndexFunc(r.Checks, func(c Check) bool { return c.ID == "dial" })
	for _, want := range []string{"connection refused", "the far end has ended: exit status 5", "the frobnicator is not configured"} {
		if !strings.Contains(r.Checks[i].Detail, want) {
			t.Errorf("the dial tells %q, without %q", r.Checks[i].Detail, want)
		}
	}
	if !slices.Equal(r.Failed(), []string{"dial"}) {
		t.Errorf("failed: %v", r.Failed())
	}
}

// TestFarEndThatIsAnother: where something else has the far end's address, what
// was given cannot run there, and what answers is not what was to be tested.
func TestFarEndThatIsAnother(t *testing.T) {
	t.Parallel()
	o := options(t, rawName, "", rawBody("relay"))
	serve := freeTarget()
	o.Serve, o.NoRefused = serve, true
	command := []string{o.Target, serve}
	other, err := farend.Start(farEndCommand(t, command...))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	reached := func() bool {
		c, err := net.Dial("tcp", o.Target)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	}
	if !poll.Until(t.Context(), 10*time.Second, reached) {
		t.Fatal("the other far end does not start")
	}
	// One that ends before the first dial, and one that does during a later check.
	for _, wait := range []string{"0", "0.7"} {
		t.Run(wait, func(t *testing.T) {
			o := o
			o.FarEnd = append([]string{"/bin/sh", "-c", `sleep $0; exec "$@"`, wait}, farEndCommand(t, command...)...)
			r := run1(t, o)
			i := slices.IndexFunc(r.Checks, func(c Check) bool { return c.Result == Fail })
			if r.OK || len(r.Failed()) != 1 || r.Checks[i].Fix != farEndFix {
				t.Fatalf("failed: %v of %+v", r.Failed(), r)
			}
			for _, want := range []string{"the far end has ended: exit status 1", "address already in use"} {
				if !strings.Contains(r.Checks[i].Detail, want) {
					t.Errorf("%s tells %q, without %q", r.Checks[i].ID, r.Checks[i].Detail, want)
				}
			}
		})
	}
}

func TestParseTarget(t *testing.T) {
	for text, want := range map[string]tunnel.Target{
		"echo.corp:7": {Host: "echo.corp", Port: 7},
		"[::1]:7":     {Host: "::1", Port: 7},
		"echo.corp":   {}, ":7": {}, "echo:0": {}, "echo:65536": {}, "echo:x": {},
	} {
		got, err := parseTarget(text)
		if got != want || (err == nil) != (want != tunnel.Target{}) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}
