package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/plugins/sdk/sdktest/fixture"
)

// pluginScript is a script that becomes the relay plugin of a third party.
func pluginScript(t *testing.T, comment string) []byte {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Appendf(nil, "#!/bin/sh\n# %s\nexec %q %s %s\n", comment, exe, asThirdParty, fixture.RelayName)
}

// throughScript is a configuration with the relay plugin, started by a command.
func throughScript(b *backend, command, extra string) string {
	return fmt.Sprintf("plugin %[1]q {\n command = %[2]s\n %[3]s\n}\nupstream %[1]q \"x\" {}\n", fixture.RelayName, command, extra) +
		listener("db", "127.0.0.1:0", b.addr, "") + route("all", "", "upstream."+fixture.RelayName+".x")
}

// changeInPlace writes another content of the same length into the same file, and
// gives it the time that it had.
func changeInPlace(t *testing.T, path string, text []byte) {
	t.Helper()
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if before.Size() != int64(len(text)) {
		t.Fatalf("%d bytes instead of %d", len(text), before.Size())
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, time.Time{}, before.ModTime()); err != nil {
		t.Fatal(err)
	}
}

// TestChangedFilesOfAPlugin: a reload notices another content of the program, of a
// script and of a program that another starts, whatever their size and time say.
func TestChangedFilesOfAPlugin(t *testing.T) {
	for what, command := range map[string]string{
		"program":         `[%q]`,
		"script":          `["/bin/sh", %q]`,
		"wrapped program": `["/usr/bin/env", "-u", "NOTHING", "A=b", %q, "/etc/passwd"]`,
	} {
		t.Run(what, func(t *testing.T) {
			b := startBackend(t)
			file := filepath.Join(t.TempDir(), "plugin")
			if err := os.WriteFile(file, pluginScript(t, "one"), 0o755); err != nil {
				t.Fatal(err)
			}
			d := startDaemon(t, throughScript(b, fmt.Sprintf(command, file), ""))
			c := d.dial(t, "tcp.db")
			server := b.next(t)
			if out := d.Reload(t.Context()); out.Error != "" || len(out.Changes) != 0 {
				t.Fatalf("reload of the same: %+v", out)
			}
			changeInPlace(t, file, pluginScript(t, "two"))
			out := d.Reload(t.Context())
			if out.Error != "" || len(out.Changes) != 1 || !strings.Contains(out.Changes[0], "plugin fixrelay: replaced by a new process") {
				t.Errorf("reload of another file: %+v", out)
			}
			send(t, server, "the old one's relay")
			closeWrite(t, server)
			wantRest(t, c, "the old one's relay")
			if out := d.Reload(t.Context()); out.Error != "" || len(out.Changes) != 0 {
				t.Errorf("reload of the same again: %+v", out)
			}
		})
	}
}

// TestChangedHashedFile: a file that has a hash and has changed is noticed by a
// reload, which refuses it.
func TestChangedHashedFile(t *testing.T) {
	b := startBackend(t)
	dir := t.TempDir()
	file, library := filepath.Join(dir, "plugin"), filepath.Join(dir, "library")
	if err := os.WriteFile(file, pluginScript(t, "one"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(library, []byte("one"), 0o644); err != nil {
		t.Fatal(err)
	}
	config := func(content string) string {
		sum := sha256.Sum256([]byte(content))
		return throughScript(b, fmt.Sprintf("[%q]", file), fmt.Sprintf("files = { %q = %q }", library, hex.EncodeToString(sum[:])))
	}
	d := startDaemon(t, config("one"))
	changeInPlace(t, library, []byte("two"))
	d.reloadFails(t, config("one"), library+" has the sha256", "it was changed or replaced")
	d.reload(t, config("two"))
	d.dial(t, "tcp.db")
	b.next(t)
}

// TestPluginRestart restarts a plugin by the command: the new process takes the new
// connections, and what is open goes on in the old one.
func TestPluginRestart(t *testing.T) {
	place, socket := runIn(t)
	b := startBackend(t)
	file := filepath.Join(t.TempDir(), "plugin")
	if err := os.WriteFile(file, pluginScript(t, "one"), 0o755); err != nil {
		t.Fatal(err)
	}
	config := place + throughScript(b, fmt.Sprintf("[%q]", file), "")
	d := startDaemon(t, config)
	c := d.dial(t, "tcp.db")
	server := b.next(t)
	restart := func(name string) (status int, out, errs string) {
		t.Helper()
		var o, e bytes.Buffer
		status = run(t.Context(), []string{"plugin", "restart", "--control", socket, name}, strings.NewReader(""), &o, &e)
		return status, o.String(), e.String()
	}
	pid := func() int {
		for _, p := range d.Status().Plugins {
			if !p.Retired {
				return p.PID
			}
		}
		t.Fatal("no plugin is in use")
		return 0
	}

	// What stands in the file by now has no part in it.
	d.write(t, "broken {")
	before, generation := pid(), d.Status().Generation
	status, out, errs := restart(fixture.RelayName)
	if status != exitOK || !strings.Contains(out, "restarted in ") || !strings.Contains(out, "plugin fixrelay: replaced by a new process") {
		t.Fatalf("status %d: %s%s", status, out, errs)
	}
	if now := d.Status(); pid() == before || now.Generation != generation+1 || now.Reloads != 0 {
		t.Errorf("process %d, before %d; %+v", pid(), before, now)
	}
	again := d.dial(t, "tcp.db")
	by := b.next(t)
	send(t, by, "the new one's relay")
	closeWrite(t, by)
	wantRest(t, again, "the new one's relay")
	send(t, server, "the old one's relay")
	closeWrite(t, server)
	wantRest(t, c, "the old one's relay")
	closeWrite(t, c)
	d.log.Await(t, 1, "msg", "plugin stopped")

	// One that does not start leaves all as it was.
	if err := os.WriteFile(file, []byte("#!/bin/sh\necho out of order >&2\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	before = pid()
	if status, out, errs := restart(fixture.RelayName); status != exitFailed || !strings.Contains(errs, "the plugin was not restarted") || !strings.Contains(errs, "out of order") {
		t.Errorf("status %d: %s%s", status, out, errs)
	}
	if status, _, errs := restart("nosuch"); status != exitFailed || !strings.Contains(errs, `no upstream has the plugin "nosuch"; in use: fixrelay`) {
		t.Errorf("status %d: %s", status, errs)
	}
	if pid() != before {
		t.Errorf("process %d, before %d", pid(), before)
	}
	d.dial(t, "tcp.db")
	b.next(t)
}

// TestPluginThatOthersCanChange: it is warned of, and refused where a hash is to vouch
// for it.
func TestPluginThatOthersCanChange(t *testing.T) {
	b := startBackend(t)
	folder := t.TempDir()
	program := filepath.Join(folder, "plugin")
	text := pluginScript(t, "one")
	if err := os.WriteFile(program, text, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(folder, 0o777); err != nil {
		t.Fatal(err)
	}
	validate := func(extra string) (status int, errs string) {
		t.Helper()
		file := filepath.Join(t.TempDir(), "tunneld.hcl")
		if err := os.WriteFile(file, []byte(throughScript(b, fmt.Sprintf("[%q]", program), extra)), 0o600); err != nil {
			t.Fatal(err)
		}
		var o, e bytes.Buffer
		status = run(t.Context(), []string{"validate", file}, strings.NewReader(""), &o, &e)
		return status, e.String()
	}
	says := folder + " is writable for everybody (mode 0777): chmod o-w it"
	status, errs := validate("")
	if status != exitOK || !strings.Contains(errs, `Warning: others can change the plugin "fixrelay"`) || !strings.Contains(errs, says) {
		t.Errorf("without a hash: status %d, %s", status, errs)
	}
	sum := sha256.Sum256(text)
	status, errs = validate(fmt.Sprintf("sha256 = %q", hex.EncodeToString(sum[:])))
	if status != exitFailed || strings.Contains(errs, "Warning:") || !strings.Contains(errs, says) || !strings.Contains(errs, "does not start") {
		t.Errorf("with a hash: status %d, %s", status, errs)
	}
}
