//go:build interop

package interop

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/proctest"
)

// blocks finds the code blocks of a page, and of what kind each is: "sh", "text" or "".
var blocks = regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$")

// TestTeamGateway does what the page of the example says, block by block: what is to run in
// a terminal of its own runs until the end, the others have to print what is shown, or it
// has to be in the log. Ports are free ones, everywhere the same.
func TestTeamGateway(t *testing.T) {
	const example = examples + "/team-gateway"
	dir := filepath.Join(t.TempDir(), "team-gateway")
	if err := os.CopyFS(dir, os.DirFS(example)); err != nil {
		t.Fatal(err)
	}
	page := read(t, filepath.Join(dir, "README.md"))
	config := read(t, filepath.Join(dir, "tunneld.hcl"))
	for _, at := range []string{"7080", "7443", "8443", "9443"} {
		free := port(nettest.FreeAddress(t))
		page, config = strings.ReplaceAll(page, at, free), strings.ReplaceAll(config, at, free)
	}
	write(t, filepath.Join(dir, "tunneld.hcl"), config)

	bin := t.TempDir()
	if err := os.Symlink(proctest.Tunneld(t), filepath.Join(bin, "tunneld")); err != nil {
		t.Fatal(err)
	}
	for _, tool := range []string{"openssl", "curl", "python3"} {
		proctest.Tool(t, tool)
	}
	var hosts string
	var door *proctest.Process
	said := "" // by the last command
	shell := func(text string) *exec.Cmd {
		if hosts != "" {
			text = "mount --bind " + hosts + " /etc/hosts\n" + text
		}
		cmd := exec.Command("unshare", "--mount", "bash", "-ec", text)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
		return cmd
	}
	all := blocks.FindAllStringSubmatch(page, -1)
	for _, b := range all {
		if b[1] == "" {
			hosts = filepath.Join(t.TempDir(), "hosts")
			write(t, hosts, "127.0.0.1 localhost\n"+b[2])
		}
	}
	if hosts == "" || len(all) < 12 {
		t.Fatalf("the page has %d blocks, and hosts %q", len(all), hosts)
	}
	for _, b := range all {
		switch kind, text := b[1], b[2]; {
		case kind == "sh" && strings.Contains(text, "tunneld run"):
			door = proctest.Start(t, shell("exec "+text))
			door.Shows(t, `listener=sni\.web`)
		case kind == "sh" && (strings.HasPrefix(text, "python3") || strings.HasPrefix(text, "openssl")):
			at := regexp.MustCompile(`\b\d{4,5}\b`).FindString(text)
			proctest.Start(t, shell("exec "+text)).Listens(t, "127.0.0.1:"+at)
		case kind == "sh":
			said, _ = output(t, shell(text)) // the page shows what is printed
		case kind == "text" && strings.HasPrefix(text, "level="):
			door.Shows(t, shown(text))
		case kind == "text" && !regexp.MustCompile("^"+shown(text)+"$").MatchString(said):
			t.Errorf("the page shows %q, and printed was %q\n%s", text, said, door.Output())
		}
	}
}

// shown is the expression for a text of the page, in which … stands for anything in a line.
func shown(text string) string {
	return strings.ReplaceAll(regexp.QuoteMeta(text), "…", ".*")
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
