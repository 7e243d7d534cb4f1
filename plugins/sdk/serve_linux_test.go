package sdk_test

import "testing"

func TestServeKeepsTheChannelToItself(t *testing.T) {
	p := startProcess(t, "curious")
	p.configure("{}")
	resp, err := p.tunnels.Dial(p.ctx(), p.request(7, nil))
	if err != nil {
		t.Fatal(err)
	}
	if got := resp.GetError().GetMessage(); got != `channel="" sockets=0 err=<nil>` {
		t.Errorf("a process that the plugin starts has: %s", got)
	}
}
