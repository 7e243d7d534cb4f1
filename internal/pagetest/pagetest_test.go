package pagetest

import (
	"os"
	"path/filepath"
	"testing"
)

const page = `# Title
<!-- begin one -->
a
b
<!-- end one -->
text
<!-- begin two -->
<!-- end two -->
`

// failing is a test that is told of errors.
type failing struct {
	testing.TB
	failed bool
}

func (f *failing) Errorf(string, ...any) { f.failed = true }
func (f *failing) Failed() bool          { return f.failed }

func TestGenerated(t *testing.T) {
	file := filepath.Join(t.TempDir(), "page.md")
	if err := os.WriteFile(file, []byte(page), 0o600); err != nil {
		t.Fatal(err)
	}
	Generated(t, file, "one", "a\nb\n")
	stale := &failing{TB: t}
	Generated(stale, file, "two", "c\n")
	if !stale.failed || Part(t, file, "two") != "" {
		t.Errorf("a stale part: %v, %q", stale.failed, Part(t, file, "two"))
	}
	*update = true
	defer func() { *update = false }()
	Generated(stale, file, "two", "c\n")
	if Part(t, file, "two") != "" {
		t.Error("a test that has failed writes")
	}
	Generated(t, file, "two", "c\n")
	Generated(t, file, "one", "")
	want := "# Title\n<!-- begin one -->\n<!-- end one -->\ntext\n<!-- begin two -->\nc\n<!-- end two -->\n"
	if b, err := os.ReadFile(file); err != nil || string(b) != want {
		t.Errorf("%q, %v", b, err)
	}
}
