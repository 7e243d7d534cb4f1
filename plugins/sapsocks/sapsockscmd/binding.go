package sapsockscmd

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/tunneld/tunneld/internal/plugincmd"
	"github.com/tunneld/tunneld/plugins/sapsocks/sapsocksemu"
)

// binding returns what leads to the emulator.
func (e *emulation) binding(s *sapsocksemu.Server, c plugincmd.Common) string {
	switch {
	case e.options.Trusted || e.print == printUpstream:
		return e.upstream(s, c)
	case e.print == printVCAP:
		return s.VCAPServices() + "\n"
	case e.print == printDefaultEnv:
		return fmt.Sprintf("{\n  \"VCAP_SERVICES\": %s\n}\n", s.VCAPServices())
	}
	return "export VCAP_SERVICES=" + plugincmd.ShellQuote(s.VCAPServices()) + "\n"
}

// upstream returns the block that leads to the emulator, with all written out but an X.509
// client's certificate, which a block can name only as a file.
func (e *emulation) upstream(s *sapsocksemu.Server, c plugincmd.Common) string {
	var attributes []plugincmd.Attribute
	add := func(name, value string) {
		attributes = append(attributes, plugincmd.Attribute{Name: name, Value: value})
	}
	var blocks []plugincmd.Block
	switch {
	case e.options.Trusted:
		add("proxy", plugincmd.Quote(s.Proxy()))
		add("auth", plugincmd.Quote("none"))
		return plugincmd.Upstream("sapsocks", attributes).String()
	case e.options.Grant == sapsocksemu.GrantX509:
		add("vcap_services", plugincmd.Quote(s.VCAPServices()))
	default:
		add("proxy", plugincmd.Quote(s.Proxy()))
		blocks = append(blocks, e.oauth(s))
	}
	// The one that can be reached without a location id needs none.
	if location := slices.Min(slices.Collect(maps.Keys(e.options.Connectors))); location != "" {
		add("location_id", plugincmd.Quote(location))
	}
	return plugincmd.Upstream("sapsocks", attributes, append(blocks, c.Trust()...)...).String()
}

func (e *emulation) oauth(s *sapsocksemu.Server) plugincmd.Block {
	b := plugincmd.Block{Head: "oauth", Attributes: []plugincmd.Attribute{
		{Name: "token_url", Value: plugincmd.Quote(s.TokenService())},
		{Name: "client_id", Value: plugincmd.Quote(s.ClientID())},
		{Name: "client_secret", Value: plugincmd.Quote(s.ClientSecret())},
	}}
	if e.options.Grant == sapsocksemu.GrantIAS {
		b.Attributes = append(b.Attributes, plugincmd.Attribute{Name: "resource", Value: plugincmd.Quote(sapsocksemu.Resource)})
	}
	return b
}

// credentialFiles are the names that a binding's folder may hold.
var credentialFiles = []string{
	"clientid", "clientsecret", "token_service_url", "url", "credential-type", "certificate", "key", "certurl",
	"onpremise_proxy_host", "onpremise_proxy_port", "onpremise_socks5_proxy_port",
}

// writeFolder writes a service binding as Kubernetes mounts one, also over an earlier one.
func writeFolder(folder string, credentials map[string]string) error {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return fmt.Errorf("write service binding: %w", err)
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return fmt.Errorf("write service binding: %w", err)
	}
	isBinding := len(entries) == 0
	for _, entry := range entries {
		if !slices.Contains(credentialFiles, entry.Name()) {
			return plugincmd.UsageError{Err: fmt.Errorf("%s holds %q, which belongs to no binding: give --service-binding a folder of its own", folder, entry.Name())}
		}
		isBinding = isBinding || entry.Name() == "clientid"
	}
	if !isBinding {
		return plugincmd.UsageError{Err: fmt.Errorf("%s is neither empty nor a binding's: give --service-binding a folder of its own", folder)}
	}
	for _, name := range credentialFiles {
		file := filepath.Join(folder, name)
		value, ok := credentials[name]
		if ok {
			err = os.WriteFile(file, []byte(value), 0o600)
		} else if err = os.Remove(file); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		if err != nil {
			return fmt.Errorf("write service binding: %w", err)
		}
	}
	return nil
}
