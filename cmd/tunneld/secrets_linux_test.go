package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tunneld/tunneld/core"
	"github.com/tunneld/tunneld/plugins/sapsocks/sapsocksemu"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest/fixture"
)

// canary is in each planted secret.
const canary = "canary-7f3a9c"

// withoutCanary looks for a planted secret in a file of every process that the
// daemon has started, and of the daemon itself.
func withoutCanary(t *testing.T, daemon int, file string, except func(cmdline string) bool) {
	t.Helper()
	pids := append(descendants(t, daemon), daemon)
	if len(pids) < 4 {
		t.Fatalf("processes %v; want the daemon and three plugins", pids)
	}
	for _, pid := range pids {
		dir := filepath.Join("/proc", fmt.Sprint(pid))
		cmdline, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil {
			t.Fatal(err)
		}
		if except(string(cmdline)) {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b, []byte(canary)) {
			t.Errorf("a secret is in the %s of %q", file, cmdline)
		}
	}
}

// descendants lists the processes that parent has started.
func descendants(t *testing.T, parent int) []int {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	var out []int
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // gone meanwhile
		}
		var pid, ppid int
		var state string
		_, rest, _ := strings.Cut(string(b), ") ")
		if _, err := fmt.Sscan(string(b), &pid); err != nil {
			continue
		}
		if _, err := fmt.Sscan(rest, &state, &ppid); err == nil && ppid == parent {
			out = append(out, pid)
		}
	}
	return out
}

// TestSecretsOfAProgram plants secrets where users put them: in a variable of
// the daemon's environment, in files, in bodies and in a plugin's environment.
// They are nowhere but there, whatever goes wrong.
func TestSecretsOfAProgram(t *testing.T) {
	s := startSapsocks(t, sapsocksemu.Options{ClientSecret: canary + "-client-secret"})
	dir := t.TempDir()
	file := filepath.Join(dir, "password")
	if err := os.WriteFile(file, []byte(canary+"-password\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("VCAP_SERVICES", s.emu.VCAPServices())
	config := func(more string) string {
		return `
upstream "sapsocks" "onprem" {
  vcap_services = env("VCAP_SERVICES")
}
upstream "sapsocks" "given" {
  proxy = "` + s.emu.Proxy() + `"
  token = "` + canary + `-token"
}
upstream "websocks" "other" {
  url      = "ws://127.0.0.1:1"
  username = "alice"
  password = trimspace(file("` + file + `"))
}
` + thirdParty(t, fixture.DirectName, "env = { API_KEY = \""+canary+"-env\" }") +
			fmt.Sprintf("upstream %q \"x\" {\n secret = %q\n print = \"I was dialed\"\n}\n", fixture.DirectName, canary+"-secret") +
			listener("db", "127.0.0.1:0", "db.corp:5432", "") + listener("given", "127.0.0.1:0", "db.corp:5432", "") +
			listener("other", "127.0.0.1:0", "db.corp:5432", "") + listener("x", "127.0.0.1:0", "127.0.0.1:1", "") +
			route("given", "match {\n listeners = [listener.tcp.given]\n }", "upstream.sapsocks.given") +
			route("other", "match {\n listeners = [listener.tcp.other]\n }", "upstream.websocks.other") +
			route("x", "match {\n listeners = [listener.tcp.x]\n }", "upstream."+fixture.DirectName+".x") +
			route("all", "", "upstream.sapsocks.onprem") + more
	}
	p := runProgram(t, 4, config(""))
	pingPong(t, dialTCP(t, p.address(t, "tcp.db")), "it works")
	// Each way of failing that has a secret at hand.
	for _, f := range []sapsocksemu.Faults{
		{AuthStatus: 1},
		{AuthStatus: 1, RefuseByReply: true},
		{AuthStatus: 1, Token: sapsocksemu.TokenFaults{Status: 401, Body: canary + "-echoed"}},
		{AuthStatus: 1, Token: sapsocksemu.TokenFaults{Status: 500, Body: canary + "-echoed", ContentType: "text/html"}},
		{AuthStatus: 1, Token: sapsocksemu.TokenFaults{Body: `{"access_token": "` + canary + `-broken`}},
		{AuthStatus: 1, Token: sapsocksemu.TokenFaults{Redirect: "http://127.0.0.1:1/" + canary}},
	} {
		s.emu.SetFaults(f)
		for _, id := range []string{"tcp.db", "tcp.given", "tcp.other", "tcp.x"} {
			dialReset(t, p.address(t, id))
		}
	}
	p.log.Await(t, 6*4, "msg", "connection failed")
	s.emu.SetFaults(sapsocksemu.Faults{})

	withoutCanary(t, p.cmd.Process.Pid, "cmdline", func(string) bool { return false })
	// The daemon's own environment is where the user has put it; the third
	// party's plugin has what its block gives it.
	withoutCanary(t, p.cmd.Process.Pid, "environ", func(cmdline string) bool {
		return !strings.Contains(cmdline, "\x00serve\x00") && !strings.Contains(cmdline, fixture.RelayName)
	})
	for _, pid := range descendants(t, p.cmd.Process.Pid) {
		env, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pid), "environ"))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(env, []byte("VCAP_SERVICES")) || bytes.Contains(env, []byte("client-secret")) {
			t.Errorf("the daemon's environment is in that of process %d", pid)
		}
	}

	// A configuration with mistakes next to its secrets, by a signal.
	broken := config("nonsense = \"" + canary + "-nonsense\"\n")
	broken = strings.Replace(broken, "token =", "tokne =", 1)
	broken = strings.Replace(broken, "secret =", "secret = 1 + ", 1)
	if err := os.WriteFile(p.path, []byte(jsonLog+broken), 0o600); err != nil {
		t.Fatal(err)
	}
	p.signal(t, syscall.SIGHUP)
	p.log.Await(t, 1, "msg", "reload failed, the old configuration stays in force")
	p.signal(t, syscall.SIGTERM)
	p.log.Await(t, 1, "msg", "stopping") // two that are pending at a time are one
	p.signal(t, syscall.SIGTERM)
	if status := p.status(t); status != exitOK {
		t.Errorf("exit status %d", status)
	}
	if !strings.Contains(p.log.String(), "tokne") {
		t.Error("the mistakes were not told")
	}
	if log := p.log.String(); strings.Contains(log, canary) {
		for line := range strings.Lines(log) {
			if strings.Contains(line, canary) {
				t.Errorf("a secret is in the log: %s", line)
			}
		}
	}
}

// TestSecretsInProblems: whatever is wrong around a secret, it is not in what
// validate says.
func TestSecretsInProblems(t *testing.T) {
	secret := canary + "-secret"
	for name, body := range map[string]string{
		"misspelt":            `tokne = "` + secret + `"`,
		"of another type":     `token = ["` + secret + `"]`,
		"a block instead":     "token {\n value = \"" + secret + "\"\n}",
		"without its end":     `token = "` + secret,
		"without quotes":      `token = ` + secret,
		"twice":               "token = \"" + secret + "\"\n token = \"" + secret + "\"",
		"an unknown function": `token = decrypt("` + secret + `")`,
		"bad JSON":            `token = jsondecode("{` + secret + `")`,
		"bad base64":          `token = base64decode("` + secret + `!")`,
		"a template":          "token = \"x${nothing." + strings.ReplaceAll(secret, "-", "_") + "}\"",
		"a heredoc":           "token = <<EOT\n" + secret + "\nEOT\nauth = 1 2",
		"as credentials":      `vcap_services = "{\"connectivity\": \"` + secret + `\"}"`,
		"a broken binding":    `vcap_services = "` + secret + `"`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "tunneld.hcl")
			text := "upstream \"sapsocks\" \"onprem\" {\n  proxy = \"p:1\"\n  " + body + "\n}\n"
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			diags, err := core.Validate(context.Background(), options(path))
			if err != nil {
				t.Fatal(err)
			}
			shown := told(diags) + fmt.Sprintf("%v %+v %#v %s", diags, diags, diags, diags.Error())
			if !diags.HasErrors() || strings.Contains(strings.ReplaceAll(shown, "_", "-"), canary) {
				t.Errorf("errors: %v; shown:\n%s", diags.HasErrors(), told(diags))
			}
		})
	}
}
