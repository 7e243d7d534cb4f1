package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/tunneld/tunneld/plugins/azrelay/azrelayemu"
	"github.com/tunneld/tunneld/plugins/sapsocks/sapsocksemu"
	"github.com/tunneld/tunneld/plugins/soht/sohtemu"
	"github.com/tunneld/tunneld/plugins/websocks/websocksemu"
)

// farEnd is an emulated far end and the upstream that leads to it.
type farEnd struct {
	protocol string // the plugin's name
	name     string // of upstream, listener and route
	target   string
	body     string // of the upstream block
	timeouts string // of the listener block
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
		websocksPlainEnd, websocksTLSEnd,
		sohtStatefulEnd, sohtStatelessEnd,
		azrelayRawEnd, azrelayBridgeEnd,
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

func websocksPlainEnd(dir, echo string) (farEnd, error) {
	return websocksEnd(dir, echo, farEnd{name: "websocks-plain", path: "direct"})
}

func websocksTLSEnd(dir, echo string) (farEnd, error) {
	return websocksEnd(dir, echo, farEnd{name: "websocks-tls", path: "relay"})
}

// websocksEnd serves wss:// where the tunnel has to be a relay.
func websocksEnd(dir, echo string, e farEnd) (farEnd, error) {
	secure := e.path == "relay"
	emu, err := websocksemu.Start(websocksemu.Options{
		TLS:     secure,
		Users:   map[string]string{"alice": "open-sesame"},
		Targets: map[string]string{demoTarget: echo},
	})
	if err != nil {
		return farEnd{}, err
	}
	e.protocol, e.target, e.close = "websocks", demoTarget, emu.Close
	e.body = fmt.Sprintf("\nurl = %q\nusername = \"alice\"\npassword = \"open-sesame\"", emu.URL())
	if secure {
		pem, err := os.ReadFile(emu.CAFile())
		if err != nil {
			return e, err
		}
		e.body += "\ntls {\nca_file = " + strconv.Quote(filepath.Join(dir, e.name+"-ca.pem")) + "\n}"
		return e, os.WriteFile(filepath.Join(dir, e.name+"-ca.pem"), pem, 0o600)
	}
	return e, nil
}

func sohtStatefulEnd(_, echo string) (farEnd, error) { return sohtEnd(echo, "stateful") }

func sohtStatelessEnd(_, echo string) (farEnd, error) { return sohtEnd(echo, "stateless") }

func sohtEnd(echo, mode string) (farEnd, error) {
	emu, err := sohtemu.Start(sohtemu.Options{Hosts: map[string]string{demoTarget: echo}})
	if err != nil {
		return farEnd{}, err
	}
	return farEnd{
		protocol: "soht",
		name:     "soht-" + mode,
		target:   demoTarget,
		body:     fmt.Sprintf("\nurl = %q\nmode = %q", emu.URL(), mode),
		// The protocol cannot end one direction alone: after the client has
		// ended, the far end is given this long to finish its answer.
		timeouts: "\ntimeouts {\nhalf_close = \"1s\"\n}",
		path:     "relay",
		close:    emu.Close,
	}, nil
}

func azrelayRawEnd(_, echo string) (farEnd, error) {
	return azrelayEnd(azrelayemu.Forward{Framing: azrelayemu.FramingRaw, Target: echo}, "hybrid-connection")
}

func azrelayBridgeEnd(_, echo string) (farEnd, error) {
	return azrelayEnd(azrelayemu.Forward{Framing: azrelayemu.FramingAzbridge, Ports: map[string]string{"7000": echo}}, demoTarget)
}

func azrelayEnd(f azrelayemu.Forward, target string) (farEnd, error) {
	const hybridConnection = "demo"
	f.HybridConnection = hybridConnection
	emu, err := azrelayemu.Start(azrelayemu.Options{
		Keys:    map[string]azrelayemu.Key{"send": {Value: "key-of-the-demo", Rights: azrelayemu.Send}},
		Forward: []azrelayemu.Forward{f},
	})
	if err != nil {
		return farEnd{}, err
	}
	return farEnd{
		protocol: "azrelay",
		name:     "azrelay-" + f.Framing,
		target:   target,
		body: fmt.Sprintf(`
namespace = "demo.servicebus.windows.net"
endpoint = %q # the emulated service
hybrid_connection = %q
key_name = "send"
key = "key-of-the-demo"
framing = %q`, "ws://"+emu.Addr(), hybridConnection, f.Framing),
		path:  "relay",
		close: func() error { emu.Close(); return nil },
	}, nil
}

// demoConfig is the configuration that leads to the far ends. dir is for what the
// daemon needs.
func demoConfig(dir string, ends []farEnd) []byte {
	var b bytes.Buffer
	// Its control socket is not in the place of the user's own daemon.
	fmt.Fprintf(&b, "log {\n format = \"json\"\n}\n\ncontrol {\n address = %q\n}\n", "unix://"+filepath.Join(dir, "control.sock"))
	for _, e := range ends {
		fmt.Fprintf(&b, `
upstream %[1]q %[2]q {%[3]s
}

listener "tcp" %[2]q {
address = "127.0.0.1:0"
target = %[4]q%[5]s
}

route %[2]q {
match {
listeners = [listener.tcp.%[2]s]
}
upstreams = [upstream.%[1]s.%[2]s]
}
`, e.protocol, e.name, e.body, e.target, e.timeouts)
	}
	return b.Bytes()
}
