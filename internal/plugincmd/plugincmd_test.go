package plugincmd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/internal/cmdtest"
)

func TestReadSecret(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"good": " s3cret \r\n", "empty": " \n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if s, err := ReadSecret(nil, filepath.Join(dir, "good"), "key"); err != nil || s != "s3cret" {
		t.Errorf("%q, %v", s, err)
	}
	if s, err := ReadSecret(strings.NewReader("s3cret\n"), "-", "key"); err != nil || s != "s3cret" {
		t.Errorf("%q, %v", s, err)
	}
	var usage UsageError
	if _, err := ReadSecret(nil, filepath.Join(dir, "empty"), "key"); !errors.As(err, &usage) || !strings.Contains(err.Error(), "contains no key") {
		t.Errorf("%v", err)
	}
	if _, err := ReadSecret(nil, filepath.Join(dir, "none"), "key"); err == nil || errors.As(err, &usage) || !strings.HasPrefix(err.Error(), "read key: ") {
		t.Errorf("%v", err)
	}
}

// What a value holds is never taken for a template or an end of the text.
func TestQuote(t *testing.T) {
	for text, want := range map[string]string{
		`plain`:            `"plain"`,
		`C:\tls "x"`:       `"C:\\tls \"x\""`,
		"${env(\"X\")}%{x": `"$${env(\"X\")}%%{x"`,
		"a\nb\x00ü":        `"a\U0000000ab\U00000000ü"`,
	} {
		if got := Quote(text); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
	if got := ShellQuote(`it's`); got != `'it'\''s'` {
		t.Error(got)
	}
}

func TestBlock(t *testing.T) {
	c := Common{TLS: true, CAFile: "/tmp/ca.pem"}
	got := Upstream("websocks", []Attribute{{"url", `"wss://h"`}, {"username", `"al"`}}, c.Trust()...).String()
	want := `upstream "websocks" "emulated" {
  url      = "wss://h"
  username = "al"
  tls {
    ca_file = "/tmp/ca.pem"
  }
}
`
	if got != want {
		t.Error(got)
	}
	if len(Common{}.Trust()) > 0 {
		t.Error("a plain emulator is trusted by an authority")
	}
}

// fake is an emulator that only listens.
func fake(add func(*cobra.Command), started func(*cobra.Command, Common) error) *cobra.Command {
	cmd := Emulation{
		Protocol: "fake", Short: "Emulate nothing", Address: "127.0.0.1:0", Secure: "speak TLS",
		Start: func(cmd *cobra.Command, c Common) (FarEnd, error) {
			if err := started(cmd, c); err != nil {
				return FarEnd{}, err
			}
			l, err := net.Listen("tcp", c.Address)
			if err != nil {
				return FarEnd{}, err
			}
			c.Log.Debug("it listens")
			return FarEnd{Paste: l.Addr().String(), CA: []byte("authority"), Close: l.Close}, nil
		},
	}.Command()
	if add != nil {
		add(cmd)
	}
	return cmd
}

func TestEmulation(t *testing.T) {
	ca := filepath.Join(t.TempDir(), "ca.pem")
	var common Common
	note := func(_ *cobra.Command, c Common) error { common = c; return nil }
	e := cmdtest.Start(t, fake(nil, note), "--tls-ca-file", ca)
	if b, err := os.ReadFile(ca); err != nil || string(b) != "authority" || !common.TLS || common.CAFile != ca {
		t.Errorf("%q, %v, %+v", b, err, common)
	}
	err := cmdtest.Fails(t, fake(nil, note), "0 picks a free one", "--address", e.Out)
	var usage UsageError
	if errors.As(err, &usage) {
		t.Error("an address in use is no wrong command line")
	}
	if log := e.Stop(t); !strings.Contains(log, "it listens") {
		t.Errorf("logged %q", log)
	}
	if c, err := net.Dial("tcp", e.Out); err == nil {
		_ = c.Close()
		t.Error("it listens after its end")
	}
	cmdtest.Fails(t, fake(nil, note), "nosuch", "--tls-ca-file", filepath.Join(t.TempDir(), "nosuch", "ca.pem"))
}

func TestFlags(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"bob", "al"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("of "+name+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var (
		step  int
		word  = "b"
		octet byte
		count int
		pairs map[string]string
		users *UserFiles
		read  map[string]string
	)
	add := func(cmd *cobra.Command) {
		step, octet, count, pairs = 0, 0, 0, nil
		Choose(cmd, &step, "step", "a step", map[string]int{"first": 1, "second": 2})
		Choose(cmd, &word, "word", "a word", Words("a", "b"))
		Hex(cmd, &octet, "octet", "a byte")
		Number(cmd, &count, "count", "how `MANY`", 2, 9)
		Pairs(cmd, &pairs, "map", "HOST=HOST", "a mapping")
		users = Logins(cmd)
	}
	started := func(cmd *cobra.Command, _ Common) (err error) {
		read, err = users.Read(cmd.InOrStdin())
		return err
	}
	al, bob := filepath.Join(dir, "al"), filepath.Join(dir, "bob")
	cmdtest.Start(t, fake(add, started), "--step", "second", "--octet", "8F", "--count", "9", "--map", "a=b=c", "--map", "d=e", "--user", "bob="+bob, "--user", "al="+al)
	if step != 2 || word != "b" || octet != 0x8f || count != 9 || fmt.Sprint(pairs) != "map[a:b=c d:e]" || fmt.Sprint(read) != "map[al:of al bob:of bob]" {
		t.Error(step, word, octet, count, pairs, read)
	}
	if got := fmt.Sprint(users.Attributes()); got != fmt.Sprintf(`[{username "al"} {password trimspace(file("%s"))}]`, al) {
		t.Error(got)
	}
	for _, wrong := range [][2]string{
		{"--step=third", "not one of first, second"}, {"--octet=100", "not a byte in hex"},
		{"--count=1", "not a number from 2 to 9"}, {"--count=10", "not a number from 2 to 9"}, {"--count=x", "not a number from 2 to 9"}, {"--map=a", "not HOST=HOST"},
		{"--address=20016", "not HOST:PORT"}, {"--address=127.0.0.1:http", "not HOST:PORT"}, {"--address=127.0.0.1:65536", "not HOST:PORT"},
		{"--map==a", "not HOST=HOST"}, {"--user=al", "not NAME=FILE"}, {"--user=al=" + filepath.Join(dir, "none"), `user "al": read password`},
	} {
		cmdtest.Fails(t, fake(add, started), wrong[1], wrong[0])
	}
	cmdtest.Fails(t, fake(add, started), "given twice", "--map=a=b", "--map=a=c")
	help := fake(add, started).Flags().FlagUsages()
	for _, want := range []string{"--map HOST=HOST ", "--octet HEX ", "--count MANY ", "--step WORD ", "a step: first, second\n", "(default b)\n", "--user NAME=FILE "} {
		if !strings.Contains(help, want) {
			t.Errorf("%q is missing in\n%s", want, help)
		}
	}
}
