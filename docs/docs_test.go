// Package docs holds the test of the documentation: every page can be found, and every
// link leads somewhere.
package docs

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

// pages returns the Markdown files of the project, by path below its root.
func pages(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	root := os.DirFS("..")
	err := fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "node_modules" || path == "dist"):
			return fs.SkipDir
		case filepath.Ext(path) != ".md":
			return nil
		}
		b, err := fs.ReadFile(root, path)
		found[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// fenced are blocks of code, and quoted is code in a line: neither has links.
var (
	fenced = regexp.MustCompile("(?ms)^ *```.*?^ *```$")
	quoted = regexp.MustCompile("`[^`\n]*`")
	link   = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	title  = regexp.MustCompile(`(?m)^#+ (.+)$`)
)

// anchors returns what can be linked to within a page, as GitHub makes it.
func anchors(page string) map[string]bool {
	found := map[string]bool{}
	for _, m := range title.FindAllStringSubmatch(fenced.ReplaceAllString(page, ""), -1) {
		slug := strings.Map(func(c rune) rune {
			switch {
			case c == ' ':
				return '-'
			case unicode.IsLetter(c), unicode.IsDigit(c), c == '-', c == '_':
				return unicode.ToLower(c)
			}
			return -1
		}, link.ReplaceAllString(strings.TrimSpace(m[1]), ""))
		unique := slug
		for n := 1; found[unique]; n++ {
			unique = fmt.Sprintf("%s-%d", slug, n)
		}
		found[unique] = true
	}
	return found
}

func TestLinksLeadSomewhere(t *testing.T) {
	all := pages(t)
	seen := 0
	for path, page := range all {
		text := quoted.ReplaceAllString(fenced.ReplaceAllString(page, ""), "")
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			seen++
			file, anchor, _ := strings.Cut(m[1], "#")
			to := path
			if file != "" {
				to = filepath.Join(filepath.Dir(path), file)
			}
			if _, err := os.Stat(filepath.Join("..", to)); err != nil {
				t.Errorf("%s links to %s, which is not there", path, m[1])
				continue
			}
			if anchor != "" && !anchors(all[to])[anchor] {
				t.Errorf("%s links to %s, and there is no such heading", path, m[1])
			}
		}
	}
	if seen < 50 {
		t.Errorf("only %d links were seen", seen)
	}
}

// TestIndexHasEveryPage: of the decisions it has the folder.
func TestIndexHasEveryPage(t *testing.T) {
	all := pages(t)
	index := all["docs/README.md"]
	for path := range all {
		name, ok := strings.CutPrefix(path, "docs/")
		if ok && !strings.HasPrefix(name, "adr/") && name != "README.md" && !strings.Contains(index, "]("+name+")") {
			t.Errorf("docs/README.md does not link to %s", name)
		}
	}
}

// TestFixedSpeaksOfReleases: before the first release the changelog has no "Fixed", since
// nobody could have met the fault.
func TestFixedSpeaksOfReleases(t *testing.T) {
	log := pages(t)["CHANGELOG.md"]
	released := regexp.MustCompile(`(?m)^## \d+\.\d+\.\d+ \(\d{4}-\d\d-\d\d\)$`)
	if strings.Contains(log, "\n### Fixed") && !released.MatchString(log) {
		t.Error("CHANGELOG.md says what was fixed, and nothing has been released: move what is new to Added or Changed, and leave the rest out")
	}
}
