package sdk

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

func protocolPage(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/plugin-protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}

// The page for authors in other languages names everything in the contract.
func TestProtocolPageIsComplete(t *testing.T) {
	page := protocolPage(t)
	var names []string
	for _, s := range []string{"PluginService", "TunnelService"} {
		service := pluginv1.File_tunneld_plugin_v1_plugin_proto.Services().ByName(protoreflect.Name(s))
		names = append(names, string(service.FullName()))
		for i := range service.Methods().Len() {
			names = append(names, string(service.Methods().Get(i).Name()))
		}
	}
	for n := range pluginv1.Stage_name {
		if n != 0 {
			names = append(names, Stage(n).String())
		}
	}
	for n := range pluginv1.Reason_name {
		if n != 0 {
			names = append(names, Reason(n).String())
		}
	}
	for n, kind := range pluginv1.Kind_name {
		if n != 0 {
			names = append(names, kind)
		}
	}
	for _, name := range names {
		if !strings.Contains(page, name) {
			t.Errorf("the page does not have %q", name)
		}
	}
}

// The examples of values in the page are what the SDK reads.
func TestProtocolPageValues(t *testing.T) {
	var all struct {
		noDial   `tunneld:"-"`
		String   string            `tunneld:"string"`
		Bool     bool              `tunneld:"bool"`
		Int      int               `tunneld:"int"`
		Float    float64           `tunneld:"float"`
		Single   Timeouts          `tunneld:"single"`
		Duration time.Duration     `tunneld:"duration"`
		Size     Size              `tunneld:"size"`
		List     []string          `tunneld:"list"`
		Map      map[string]string `tunneld:"map"`
		Repeated []server          `tunneld:"repeated"`
		Labelled map[string]server `tunneld:"labelled"`
	}
	page := protocolPage(t)
	values := map[string]json.RawMessage{}
	row := regexp.MustCompile("(?m)^\\| (?:`KIND_([A-Z]+)`|block, ([a-z]+)) \\|.*\\| `(.*)` \\|$")
	for _, m := range row.FindAllStringSubmatch(page, -1) {
		values[strings.ToLower(m[1]+m[2])] = json.RawMessage(m[3])
	}
	if len(values) != 11 {
		t.Fatalf("%d values are shown: %s", len(values), values)
	}
	config, err := json.Marshal(values)
	if err != nil {
		t.Fatal(err)
	}
	if ds := decodeInto(t, config, &all); len(ds) != 0 {
		t.Errorf("%v in %s", ds, config)
	}
	if all.Size != 32*KiB || all.Duration != 1500*time.Millisecond || len(all.Repeated) != 2 || all.Labelled["alice"].Port != 1 {
		t.Errorf("values are %+v", all)
	}
}
