package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/plugins/sapsocks/sapsocksemu"
)

// TestSecretsThatAreNotThereYet: what another try may find is no fault of the
// configuration. A variable that is not set stays one: nobody sets it later.
func TestSecretsThatAreNotThereYet(t *testing.T) {
	s := startSapsocks(t, sapsocksemu.Options{})
	dir := t.TempDir()
	empty, gone := filepath.Join(dir, "empty"), filepath.Join(dir, "gone")
	if err := os.Mkdir(empty, 0o700); err != nil {
		t.Fatal(err)
	}
	half := filepath.Join(dir, "half")
	if err := os.Mkdir(half, 0o700); err != nil {
		t.Fatal(err)
	}
	const metadata = `{"credentialProperties":[{"name":"clientid","format":"text"}]}`
	if err := os.WriteFile(filepath.Join(half, ".metadata"), []byte(metadata), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		body   string
		status int
	}{
		"file":            {fmt.Sprintf("token = file(%q)", gone), exitFailed},
		"ca_file":         {fmt.Sprintf("token = \"t\"\ntls {\n ca_file = %q\n}", gone), exitFailed},
		"cert_file":       {fmt.Sprintf("token = \"t\"\ntls {\n cert_file = %q\n key_file = %[1]q\n}", gone), exitFailed},
		"oauth.cert_file": {fmt.Sprintf("oauth {\n token_url = \"https://127.0.0.1:1/x\"\n client_id = \"c\"\n cert_file = %q\n key_file = %[1]q\n}", gone), exitFailed},
		"binding":         {fmt.Sprintf("service_binding = %q", gone), exitFailed},
		"empty binding":   {fmt.Sprintf("service_binding = %q", empty), exitFailed},
		"half a binding":  {fmt.Sprintf("service_binding = %q", half), exitFailed},
		"variable":        {`token = env("TUNNELD_TEST_NOT_SET")`, exitInvalid},
		"folder":          {fmt.Sprintf("token = file(%q)", empty), exitInvalid},
		"both":            {fmt.Sprintf("token = file(%q)\nunknown = 1", gone), exitInvalid},
		"both, elsewhere": {fmt.Sprintf("token = file(%q)\n}\nnonsense {", gone), exitInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			place, socket := runIn(t)
			config := place + "upstream \"sapsocks\" \"onprem\" {\n proxy = \"127.0.0.1:1\"\n" + tc.body + "\n}\n" +
				listener("db", "127.0.0.1:0", "db.corp:5432", "") + route("all", "", "upstream.sapsocks.onprem")
			p := runProgram(t, 0, config)
			if status := p.status(t); status != tc.status {
				t.Errorf("run: exit status %d, want %d", status, tc.status)
			}
			var errs strings.Builder
			if status := run(t.Context(), []string{"validate", p.path}, strings.NewReader(""), io.Discard, &errs); status != tc.status {
				t.Errorf("validate: exit status %d, want %d:\n%s", status, tc.status, errs.String())
			}
			p = runProgram(t, 1, place+s.onprem(""))
			p.write(t, config)
			if status := run(t.Context(), []string{"reload", "--control", socket}, strings.NewReader(""), io.Discard, &errs); status != tc.status {
				t.Errorf("reload: exit status %d, want %d:\n%s", status, tc.status, errs.String())
			}
		})
	}
}
