package sdk_test

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"syscall"
	"testing"
)

// What a plugin starts has neither the channel nor an ignored SIGPIPE.
func TestServeLeavesNothingToChildren(t *testing.T) {
	p := startProcess(t, "curious")
	p.configure("{}")
	resp, err := p.tunnels.Dial(p.ctx(), p.request(7, nil))
	if err != nil {
		t.Fatal(err)
	}
	got := resp.GetError().GetMessage()
	m := regexp.MustCompile(`^channel="" sockets=0 ignored=([0-9a-f]{16}) err=<nil>$`).FindStringSubmatch(got)
	if m == nil {
		t.Fatalf("a process that the plugin starts has: %s", got)
	}
	if mask, err := strconv.ParseUint(m[1], 16, 64); err != nil || mask&(1<<(syscall.SIGPIPE-1)) != 0 {
		t.Errorf("a process that the plugin starts ignores %s, %v", m[1], err)
	}
}

// A standard error that nobody reads does not end the plugin: its tunnels would
// end with it, and not as they should.
func TestServeOutlivesTheReaderOfStandardError(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t}
	p.launch("printer", w)
	p.connect()
	p.configure("{}")
	for _, f := range []*os.File{w, r} {
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		resp, err := p.tunnels.Dial(p.ctx(), p.request(7, nil))
		if err != nil {
			t.Fatalf("the plugin does not answer: %v", err)
		}
		if got, want := resp.GetError().GetMessage(), fmt.Sprint("print: write /dev/stderr: ", syscall.EPIPE); got != want {
			t.Errorf("it says %q, want %q", got, want)
		}
	}
}
