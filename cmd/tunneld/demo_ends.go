package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"github.com/tunneld/tunneld/plugins/sapsocks/sapsocksemu"
)

// farEnd is an emulated far end and the upstream that leads to it.
type farEnd struct {
	protocol string // the plugin's name
	name     string // of upstream, listener and route
	target   string
	body     string // of the upstream block
	path     string // the data path that it must take
	close    func() error
}

// demoTarget is the name of the echo service behind the far ends: only they
// know where it leads.
const demoTarget = "echo.corp:7000"

// startFarEnds starts an emulator for each row of the demo. Those that were
// started are returned with an error as well.
func startFarEnds(dir, echo string) ([]farEnd, error) {
	var ends []farEnd
	for _, start := range []func(dir, echo string) (farEnd, error){
		sapsocksEnd,
	} {
		e, err := start(dir, echo)
		if err != nil {
			return ends, err
		}
		ends = append(ends, e)
	}
	return ends, nil
}

func sapsocksEnd(dir, echo string) (farEnd, error) {
	emu, err := sapsocksemu.Start(sapsocksemu.Options{
		Connectors: map[string]map[string]string{"berlin": {demoTarget: echo}},
	})
	if err != nil {
		return farEnd{}, err
	}
	file := filepath.Join(dir, "vcap_services.json")
	if err := os.WriteFile(file, []byte(emu.VCAPServices()), 0o600); err != nil {
		return farEnd{}, err
	}
	return farEnd{
		protocol: "sapsocks",
		name:     "sapsocks",
		target:   demoTarget,
		body: `
			vcap_services = file("vcap_services.json") # on Cloud Foundry: env("VCAP_SERVICES")
			location_id = "berlin"`,
		path:  "direct",
		close: emu.Close,
	}, nil
}

// demoConfig is the configuration that leads to the far ends.
func demoConfig(ends []farEnd) []byte {
	var b bytes.Buffer
	b.WriteString("log {\n format = \"json\"\n}\n")
	for _, e := range ends {
		fmt.Fprintf(&b, `
upstream %[1]q %[2]q {%[3]s
}

listener "tcp" %[2]q {
address = "127.0.0.1:0"
target = %[4]q
}

route %[2]q {
match {
listeners = [listener.tcp.%[2]s]
}
upstreams = [upstream.%[1]s.%[2]s]
}
`, e.protocol, e.name, e.body, e.target)
	}
	return b.Bytes()
}
