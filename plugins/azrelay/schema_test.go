package azrelay_test

import (
	"maps"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/plugins/azrelay"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest"
)

// TestSchemaRefuses: what the schema says needs no code of the plugin's.
func TestSchemaRefuses(t *testing.T) {
	p := sdktest.Start(t, azrelay.Plugin())
	good := map[string]any{"namespace": "ns.example", "hybrid_connection": "hc1"}
	for path, values := range map[string]map[string]any{
		"token_in":           {"token_in": "cookie"},
		"token_ttl":          {"token_ttl": "59s"},
		"framing":            {"framing": "tcp"},
		"timeouts.connect":   {"timeouts": map[string]any{"connect": "0s"}},
		"timeouts.handshake": {"timeouts": map[string]any{"handshake": "0s"}},
		"timeouts.accept":    {"timeouts": map[string]any{"accept": "0s"}},
		"connection_string":  {"connection_string": "Endpoint=sb://ns/;SharedAccessKeyName=a;SharedAccessKey=b"},
	} {
		all := maps.Clone(good)
		maps.Copy(all, values)
		ds := p.Validate(t, "bridge", all)
		if len(ds) != 1 || strings.Join(ds[0].Path, ".") != path || ds[0].Warning {
			t.Errorf("%s: %+v", path, ds)
		}
	}
	if ds := p.Validate(t, "bridge", good); len(ds) > 0 {
		t.Errorf("%+v", ds)
	}
}
