package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tunneld/tunneld/plugins/sapsocks/sapsocksemu"
)

// mkfifo makes a FIFO that nobody writes to: whoever reads it in the plain way
// waits for ever.
func mkfifo(t *testing.T, path string) string {
	t.Helper()
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestFIFOsHangNothing: wherever a user may name a file, one that gives nothing is
// an error of the reload, at once; the old configuration stays, and a signal still
// ends the daemon.
func TestFIFOsHangNothing(t *testing.T) {
	s := startSapsocks(t, sapsocksemu.Options{})
	dir := t.TempDir()
	fifo := mkfifo(t, filepath.Join(dir, "fifo"))
	binding := filepath.Join(dir, "binding")
	if err := os.Mkdir(binding, 0o700); err != nil {
		t.Fatal(err)
	}
	mkfifo(t, filepath.Join(binding, "clientid"))
	sapsocks := func(body string) string {
		return "upstream \"sapsocks\" \"onprem\" {\n proxy = \"127.0.0.1:1\"\n" + body + "\n}\n"
	}
	oauth := func(body string) string {
		return sapsocks("oauth {\n token_url = \"https://127.0.0.1:1/x\"\n client_id = \"c\"\n" + body + "\n}")
	}
	for name, config := range map[string]string{
		"file":            sapsocks(fmt.Sprintf("token = file(%q)", fifo)),
		"ca_file":         sapsocks(fmt.Sprintf("token = \"t\"\ntls {\n ca_file = %q\n}", fifo)),
		"tls.cert_file":   sapsocks(fmt.Sprintf("token = \"t\"\ntls {\n cert_file = %q\n key_file = %[1]q\n}", fifo)),
		"oauth.cert_file": oauth(fmt.Sprintf("cert_file = %q\nkey_file = %[1]q", fifo)),
		"binding's file":  sapsocks(fmt.Sprintf("service_binding = %q", binding)),
		"binding":         sapsocks(fmt.Sprintf("service_binding = %q", fifo)),
		"configuration":   "",
	} {
		t.Run(name, func(t *testing.T) {
			place, socket := runIn(t)
			p := runProgram(t, 1, place+s.onprem(""))
			want := "it is a FIFO or pipe, not a regular file"
			switch {
			case name == "binding":
				want = "not a directory"
				fallthrough
			case config != "":
				p.write(t, place+config+listener("db", "127.0.0.1:0", "db.corp:5432", "")+route("all", "", "upstream.sapsocks.onprem"))
			default:
				if err := os.Remove(p.path); err != nil {
					t.Fatal(err)
				}
				mkfifo(t, p.path)
			}
			if r := reloadBy(t, socket); r.Error == "" || !strings.Contains(r.Diagnostics, want) {
				t.Errorf("%+v; want %q", r, want)
			}
			conn := dialTCP(t, p.address(t, "tcp.db"))
			pingPong(t, conn, "the old one serves")
			conn.Close()
			p.signal(t, syscall.SIGTERM)
			if status := p.status(t); status != exitOK {
				t.Errorf("exit status %d", status)
			}
		})
	}
}

// TestFIFOsHangNoCommand: nor do the commands that read a file themselves wait.
func TestFIFOsHangNoCommand(t *testing.T) {
	dir := t.TempDir()
	fifo := mkfifo(t, filepath.Join(dir, "x.hcl"))
	for _, args := range [][]string{
		{"validate", fifo},
		{"validate", dir},
		{"run", "--config", fifo},
		{"fmt", fifo},
		{"fmt", dir},
		{"plugin", "list", "--config", fifo},
		{"azrelay", "token", "--namespace", "n", "--hybrid-connection", "h", "--key-name", "k", "--key-file", fifo},
		{"emulate", "azrelay", "--key-file", fifo},
	} {
		var errs strings.Builder
		if status := run(t.Context(), args, strings.NewReader(""), io.Discard, &errs); status == exitOK {
			t.Errorf("%q succeeded", args)
		}
		if got := errs.String(); args[0] != "plugin" && !strings.Contains(got, "it is a FIFO or pipe") {
			t.Errorf("%q: %s", args, got)
		}
	}
}

// TestFmtDropsAByteOrderMark, though nothing else is to be changed.
func TestFmtDropsAByteOrderMark(t *testing.T) {
	const text = "upstream \"direct\" \"local\" {}\n"
	path := filepath.Join(t.TempDir(), "x.hcl")
	if err := os.WriteFile(path, []byte("\ufeff"+text), 0o600); err != nil {
		t.Fatal(err)
	}
	format := func(stdin string, args ...string) (int, string) {
		var out strings.Builder
		status := run(t.Context(), append([]string{"fmt"}, args...), strings.NewReader(stdin), &out, io.Discard)
		return status, out.String()
	}
	if status, _ := format("", "--check", path); status != exitFailed {
		t.Errorf("--check: exit status %d", status)
	}
	if status, _ := format("\ufeff"+text, "--check", "-"); status != exitFailed {
		t.Errorf("--check -: exit status %d", status)
	}
	if status, out := format("\ufeff"+text, "-"); status != exitOK || out != text {
		t.Errorf("-: exit status %d, %q", status, out)
	}
	status, _ := format("", path)
	if got, err := os.ReadFile(path); status != exitOK || err != nil || string(got) != text {
		t.Errorf("exit status %d, %q, %v", status, got, err)
	}
}
