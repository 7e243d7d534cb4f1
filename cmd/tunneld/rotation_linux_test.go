package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/plugins/sapsocks/sapsocksemu"
)

// TestPluginDiesDuringARotation: a plugin that finds half a service binding when it
// is started again cannot be configured, for none of its upstreams. That shows, and
// it is over when the binding is whole, without anybody's doing.
func TestPluginDiesDuringARotation(t *testing.T) {
	s := startSapsocks(t, sapsocksemu.Options{})
	folder := t.TempDir()
	for name, text := range s.emu.Credentials() {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d := startDaemon(t, withMetrics+s.upstream("")+fmt.Sprintf("upstream \"sapsocks\" \"bound\" {\n service_binding = %q\n}\n", folder)+
		listener("a", "127.0.0.1:0", "db.corp:5432", "")+listener("b", "127.0.0.1:0", "db.corp:5432", "")+
		route("a", "match {\n  listeners = [listener.tcp.a]\n }", "upstream.sapsocks.bound")+route("b", "", "upstream.sapsocks.onprem"))
	for _, id := range []string{"tcp.a", "tcp.b"} {
		pingPong(t, d.dial(t, id), "before")
	}
	file, aside := filepath.Join(folder, "clientid"), filepath.Join(folder, "clientid.new")
	if err := os.Rename(file, aside); err != nil {
		t.Fatal(err)
	}
	killPlugin(t, d.log, "sapsocks")
	d.log.Await(t, 1, "level", "ERROR", "plugin", "sapsocks", "generation", "1")
	d.log.Await(t, 2, "msg", "plugin started", "plugin", "sapsocks")
	d.dialReset(t, "tcp.b")
	failed := d.log.Await(t, 1, "msg", "connection failed", "stage", "plugin", "reason", "unavailable")[0]
	const why = `it was restarted and no longer accepts its configuration: upstream "bound": no client id`
	if err, hint := fmt.Sprint(failed["err"]), fmt.Sprint(failed["hint"]); !strings.Contains(err, why) || !strings.Contains(hint, "asked again") {
		t.Errorf("err %s, hint %s", err, hint)
	}
	if code, text := d.served(t, "/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(text, "plugin sapsocks was restarted") {
		t.Errorf("/readyz: %d %s", code, text)
	}
	if p := d.Status().Plugins; len(p) != 1 || p[0].Status != "running" || !strings.Contains(p[0].Refused, "no client id") {
		t.Errorf("status %+v", p)
	}
	if err := os.Rename(aside, file); err != nil {
		t.Fatal(err)
	}
	d.log.Await(t, 1, "msg", "restarted plugin accepts its configuration again")
	for _, id := range []string{"tcp.a", "tcp.b"} {
		pingPong(t, d.dial(t, id), "after")
	}
	if code, text := d.served(t, "/readyz"); code != http.StatusOK {
		t.Errorf("/readyz: %d %s", code, text)
	}
}
