package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unicode"

	"github.com/tunneld/tunneld/plugins/sdk/sdktest/fixture"
)

// thirdParty is the plugin block of a plugin that is not bundled.
func thirdParty(t *testing.T, name, extra string) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("plugin %q {\n command = [%q, %q, %q]\n %s\n}\n", name, exe, asThirdParty, name, extra)
}

func fileSHA256(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// TestKilledThirdPartyRelay kills a pinned plugin in the middle of a download: a
// reset for the client and for the far end, and never a clean end.
func TestKilledThirdPartyRelay(t *testing.T) {
	b := startBackend(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, thirdParty(t, fixture.RelayName, fmt.Sprintf("sha256 = %q", fileSHA256(t, exe)))+
		fmt.Sprintf("upstream %q \"x\" {}\n", fixture.RelayName)+
		listener("db", "127.0.0.1:0", b.addr, "")+route("all", "", "upstream."+fixture.RelayName+".x"))
	c := d.dial(t, "tcp.db")
	server := b.next(t)
	feeding := make(chan error, 1)
	go func() {
		chunk := make([]byte, 64<<10)
		for {
			if _, err := server.Write(chunk); err != nil {
				feeding <- err
				return
			}
		}
	}()
	if _, err := io.CopyN(io.Discard, c, 1<<20); err != nil {
		t.Fatal(err)
	}
	pids := children(t)
	if len(pids) != 1 {
		t.Fatalf("children: %q", pids)
	}
	var pid int
	if _, err := fmt.Sscan(pids[0], &pid); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("read: %v; want a reset", err)
	}
	if err := <-feeding; !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		t.Errorf("the far end's write: %v; want a reset", err)
	}
	d.log.Await(t, 1, "msg", "connection", "path", "relay", "reason", "plugin_died")
	d.dial(t, "tcp.db")
	send(t, b.next(t), "a new one")
}

// TestReplacedPluginProgram: a reload after an upgrade of the plugin's file
// starts the new one beside the old one, whose relays live on.
func TestReplacedPluginProgram(t *testing.T) {
	b := startBackend(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "plugin")
	install := func(comment string) {
		t.Helper()
		text := fmt.Sprintf("#!/bin/sh\n# %s\nexec %q %s %s\n", comment, exe, asThirdParty, fixture.RelayName)
		if err := os.WriteFile(program+".new", []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(program+".new", program); err != nil {
			t.Fatal(err)
		}
	}
	install("one")
	config := fmt.Sprintf("plugin %[1]q {\n command = [%[2]q]\n}\nupstream %[1]q \"x\" {}\n", fixture.RelayName, program) +
		listener("db", "127.0.0.1:0", b.addr, "") + route("all", "", "upstream."+fixture.RelayName+".x")
	d := startDaemon(t, config)
	c := d.dial(t, "tcp.db")
	server := b.next(t)

	d.mustReload(t)
	if n := len(d.log.Matching("msg", "plugin started")); n != 1 {
		t.Fatalf("%d plugins were started for an unchanged file", n)
	}
	install("two")
	d.mustReload(t)
	d.log.Await(t, 2, "msg", "plugin started")
	send(t, server, "the old one's relay")
	closeWrite(t, server)
	wantRest(t, c, "the old one's relay")
	again := d.dial(t, "tcp.db")
	by := b.next(t)
	send(t, by, "the new one's relay")
	closeWrite(t, by)
	wantRest(t, again, "the new one's relay")
	closeWrite(t, c)
	// Its last relay has ended, and with it the old one.
	d.log.Await(t, 1, "msg", "plugin stopped")
}

// TestSlowClientKeepsItsPlugin: a client whose handshake lasts over several
// reloads is dialed for by the plugin that its generation has.
func TestSlowClientKeepsItsPlugin(t *testing.T) {
	b := startBackend(t)
	config := func(version int) string {
		return thirdParty(t, fixture.DirectName, fmt.Sprintf("env = { V = \"%d\" }", version)) +
			fmt.Sprintf("upstream %q \"x\" {}\n", fixture.DirectName) +
			"listener \"http\" \"web\" { address = \"127.0.0.1:0\" }\n" + route("all", "", "upstream."+fixture.DirectName+".x")
	}
	d := startDaemon(t, config(1))
	c := d.dial(t, "http.web")
	if _, err := fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\n", b.addr); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the client is not accepted", func() bool { return d.Status().Listeners[0].Connections == 1 })

	d.mustReload(t)
	d.reload(t, config(2))
	d.reload(t, config(3))
	// The second plugin has no client, and goes; the first has one.
	d.log.Await(t, 1, "msg", "plugin stopped")
	if _, err := fmt.Fprint(c, "\r\n"); err != nil {
		t.Fatal(err)
	}
	want := "HTTP/1.1 200 "
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("answer %q, %v", got, err)
	}
	b.next(t)
	d.log.Await(t, 2, "msg", "plugin stopped")
}

// TestPluginThatIsNotTheOne: a program with another hash is not run, neither at
// the start nor in a reload.
func TestPluginThatIsNotTheOne(t *testing.T) {
	b := startBackend(t)
	rest := fmt.Sprintf("upstream %q \"x\" {}\n", fixture.DirectName) +
		listener("db", "127.0.0.1:0", b.addr, "") + route("all", "", "upstream."+fixture.DirectName+".x")
	d := startDaemon(t, thirdParty(t, fixture.DirectName, "")+rest)
	d.reloadFails(t, thirdParty(t, fixture.DirectName, fmt.Sprintf("sha256 = %q", strings.Repeat("0", 64)))+rest,
		`the plugin "fixdirect" does not start`, "tunneld.hcl line 5", "sha256")
	c := d.dial(t, "tcp.db")
	server := b.next(t)
	send(t, server, "the old one")
	closeWrite(t, server)
	wantRest(t, c, "the old one")
	if n := len(children(t)); n != 1 {
		t.Errorf("%d plugins run", n)
	}
}

// TestLastWordsOfAPlugin: whoever starts a plugin that ends before its handshake
// prints why, without the log's dress.
func TestLastWordsOfAPlugin(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tunneld.hcl")
	config := thirdParty(t, misfitPlugin.Name, "") + fmt.Sprintf("upstream %q \"x\" {}\n", misfitPlugin.Name) +
		listener("db", "127.0.0.1:0", "127.0.0.1:1", "") + route("all", "", "upstream.misfit.x")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"validate", file},
		{"plugin", "schema", "--config", file, "misfit"},
		{"plugin", "list", "--config", file},
		{"plugin", "test", "--config", file, "--upstream", "misfit.x", "--target", "127.0.0.1:1"},
		{"run", "--config", file},
	} {
		t.Run(strings.Join(args[:2], " "), func(t *testing.T) {
			var out, errs bytes.Buffer
			if status := run(t.Context(), args, strings.NewReader(""), &out, &errs); status == exitOK {
				t.Error("status 0")
			}
			printed := strings.Join(strings.Fields(out.String()+errs.String()), " ")
			for _, want := range []string{
				"it ended (exit status 1) before its handshake; it printed: ",
				`the plugin cannot be served: plugin "misfit": schema of main.misfit: misfit.UserID: type uint16`,
			} {
				if !strings.Contains(printed, want) {
					t.Errorf("without %q:\n%s", want, printed)
				}
			}
			if strings.Contains(printed, `{"`) || strings.Contains(printed, "\ufffd") {
				t.Errorf("it is not for people:\n%s", printed)
			}
		})
	}
}

// TestPluginSteersNoTerminal: what a plugin says of itself is printed in lines that
// are only text.
func TestPluginSteersNoTerminal(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tunneld.hcl")
	config := thirdParty(t, brazenPlugin.Name, "") + fmt.Sprintf("upstream %q \"x\" {\n secret = \"first-line\\nsecond-line\"\n}\n", brazenPlugin.Name) +
		listener("db", "127.0.0.1:0", "127.0.0.1:1", "") + route("all", "", "upstream.brazen.x")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"validate", file},
		{"plugin", "list", "--config", file},
		{"plugin", "schema", "--config", file, "brazen"},
		{"plugin", "schema", "--config", file, "--format", "hcl", "brazen"},
		{"plugin", "schema", "--config", file, "--format", "json", "brazen"},
		{"plugin", "schema", "--config", file, "--format", "markdown", "brazen"},
		{"plugin", "test", "--config", file, "--upstream", "brazen.x", "--target", "127.0.0.1:1"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			var out, errs bytes.Buffer
			run(t.Context(), args, strings.NewReader(""), &out, &errs)
			printed := out.String() + errs.String()
			if !strings.Contains(printed, "brazen words") && !strings.Contains(printed, "the configuration is valid") {
				t.Errorf("printed %q", printed)
			}
			for _, r := range printed {
				if r != '\n' && r != '\t' && !unicode.IsPrint(r) {
					t.Fatalf("%U in %q", r, printed)
				}
			}
			for _, secret := range []string{"s3cret", "second-line"} {
				if strings.Contains(printed, secret) {
					t.Errorf("%s in %q", secret, printed)
				}
			}
		})
	}
}

// TestWordsOfAPlugin: its own diagnostics stand at their lines, at the start and
// in a reload, and what it says of a sensitive value is cut out.
func TestWordsOfAPlugin(t *testing.T) {
	config := func(body string) string {
		return thirdParty(t, fixture.DirectName, "") + fmt.Sprintf("upstream %q \"x\" {\n%s\n}\n", fixture.DirectName, body) +
			listener("db", "127.0.0.1:0", "127.0.0.1:1", "") + route("all", "", "upstream."+fixture.DirectName+".x")
	}
	d := startDaemon(t, config(""))
	d.reloadFails(t, config("secret = \"canary-5\"\ninvalid = \"canary-5 does not fit\""),
		"Error: (sensitive) does not fit", "line 11, in upstream \"fixdirect\" \"x\"", "  11: invalid =", "Leave it out.")
	d.reloadFails(t, config("fail_start = \"no such tenant\""), "no such tenant")
	d.write(t, config("warn = \"this is old\""))
	if out := d.Reload(t.Context()); out.Error != "" || !strings.Contains(out.Diagnostics, "Warning: this is old") {
		t.Errorf("%+v", out)
	}
	// A plugin that dies of a configuration takes nothing with it.
	d.write(t, config("crash_in = \"configure\""))
	if out := d.Reload(t.Context()); !strings.Contains(out.Error, "exit status 3") {
		t.Errorf("%+v", out)
	}
	d.write(t, config(""))
	d.mustReload(t)
	d.dialReset(t, "tcp.db")
	d.log.Await(t, 1, "msg", "connection failed", "reason", "refused")
}

// TestFaultsOfAPluginAreFallenOver: a panic in a dial, and a dial that brings
// nothing, say nothing of the target, which the next upstream may well reach.
func TestFaultsOfAPluginAreFallenOver(t *testing.T) {
	b := startBackend(t)
	for _, fault := range []string{`panic_in = "dial"`, `nothing = true`} {
		t.Run(fault, func(t *testing.T) {
			d := startDaemon(t, thirdParty(t, fixture.RelayName, "")+
				fmt.Sprintf("upstream %q \"x\" {\n %s\n}\nupstream \"direct\" \"next\" {}\n", fixture.RelayName, fault)+
				listener("db", "127.0.0.1:0", b.addr, "")+route("all", "", "upstream."+fixture.RelayName+".x", "upstream.direct.next"))
			c := d.dial(t, "tcp.db")
			if _, err := io.WriteString(c, "by the next"); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len("by the next"))
			if _, err := io.ReadFull(b.next(t), got); err != nil || string(got) != "by the next" {
				t.Errorf("the target read %q, %v", got, err)
			}
			d.log.Await(t, 1, "msg", "upstream failed, the next is tried", "upstream", fixture.RelayName+".x",
				"stage", "plugin", "reason", "unavailable")
		})
	}
}
