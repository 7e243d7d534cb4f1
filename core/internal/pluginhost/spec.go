package pluginhost

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/tunneld/tunneld/internal/schema"
)

// Spec is how a plugin is started. It is not changed once it has been used.
type Spec struct {
	// Name is the plugin's name, which its GetInfo has to confirm.
	Name string
	// Command is the program, an absolute path, and its arguments. It is empty
	// for a bundled plugin: see Options.Self.
	Command []string
	// SHA256 is the hash of Command[0] in hexadecimal; empty: not checked.
	SHA256 string
	// Files holds the hashes of further files by absolute path. They are
	// checked at every start; what the plugin reads later is its own affair.
	Files map[string]string
	// Env is added to the small environment that every plugin gets. It may
	// hold secrets and is never printed.
	Env     map[string]string
	Bundled bool
}

// String names the plugin and its command, and nothing of its environment.
func (s Spec) String() string {
	if s.Bundled {
		return s.Name + " (bundled)"
	}
	return fmt.Sprintf("%s %q", s.Name, s.Command)
}

// Source is "bundled" or the program's path.
func (s Spec) Source() string {
	if s.Bundled {
		return "bundled"
	}
	return s.Command[0]
}

// GoString is String, so that no form of printing shows the environment.
func (s Spec) GoString() string { return s.String() }

// LogValue is String.
func (s Spec) LogValue() slog.Value { return slog.StringValue(s.String()) }

// Key identifies the spec: specs with equal keys are the same plugin, and one
// with another key is another. It is a hash over everything, secrets included,
// and therefore not for the log.
func (s Spec) Key() string {
	// Marshal writes maps in the order of their keys, and cannot fail on
	// strings.
	b, _ := json.Marshal(s)
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// Block is what a plugin block of the configuration says. Env may hold secrets:
// a Block is not printed.
type Block struct {
	Command []string
	SHA256  string
	Files   map[string]string
	Env     map[string]string
}

// NotFoundError says that a plugin's name leads nowhere.
type NotFoundError struct {
	Name string
	// Looked lists the places, in order.
	Looked []string
	// Hint is the next step.
	Hint string
}

// Error names the plugin, the places and the next step.
func (e *NotFoundError) Error() string {
	return fmt.Sprintf("plugin %q not found: looked for %s; %s", e.Name, strings.Join(e.Looked, ", "), e.Hint)
}

var hexSHA256 = regexp.MustCompile(`^[0-9a-fA-F]{64}$`)

// ProgramPrefix precedes a plugin's name in its program's name.
const ProgramPrefix = "tunneld-plugin-"

// Find resolves a plugin's name: the block's command, else the file
// tunneld-plugin-NAME in pluginDir, else one of the bundled names. It never
// looks along $PATH or in the current folder. block may be nil and pluginDir
// empty. A file that is there and cannot be run is an error, not a reason to
// look further; a *NotFoundError says that there is none.
func Find(name string, block *Block, pluginDir string, bundled []string) (Spec, error) {
	if !schema.IsPluginName(name) {
		return Spec{}, fmt.Errorf("plugin name %q: "+schema.PluginNameRule, name)
	}
	if name == "direct" {
		return Spec{}, fmt.Errorf("plugin name %q: it is taken by the built-in upstream", name)
	}
	s := Spec{Name: name}
	if block != nil {
		s.SHA256, s.Files, s.Env = block.SHA256, block.Files, block.Env
		if len(block.Command) > 0 {
			s.Command = slices.Clone(block.Command)
		}
	}
	if err := s.wellFormed(); err != nil {
		return Spec{}, err
	}
	if s.Command != nil {
		return s, runnable(name, s.Command[0])
	}
	looked := []string{"a command in its plugin block (none)"}
	if pluginDir != "" {
		dir, err := filepath.Abs(pluginDir)
		if err != nil {
			return Spec{}, fmt.Errorf("plugin %q: plugin_dir %s: %w", name, pluginDir, err)
		}
		path := filepath.Join(dir, ProgramPrefix+name)
		looked = append(looked, path+" (no such file)")
		err = runnable(name, path)
		if err == nil {
			s.Command = []string{path}
			return s, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return Spec{}, err
		}
	} else {
		looked = append(looked, "daemon.plugin_dir (not set)")
	}
	if slices.Contains(bundled, name) {
		if s.SHA256 != "" || len(s.Files) > 0 {
			return Spec{}, fmt.Errorf("plugin %q: it is part of tunneld, so sha256 and files have nothing to check: remove them, or name a command", name)
		}
		s.Bundled = true
		return s, nil
	}
	looked = append(looked, fmt.Sprintf("a bundled plugin (%s)", list(bundled)))
	return Spec{}, &NotFoundError{
		Name:   name,
		Looked: looked,
		Hint:   fmt.Sprintf("check the name, put the program into daemon.plugin_dir, or name it: plugin %q { command = [\"/path/to/tunneld-plugin-%s\"] }", name, name),
	}
}

func list(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(slices.Sorted(slices.Values(names)), ", ")
}

// wellFormed checks what can be checked without looking at a file.
func (s Spec) wellFormed() error {
	if len(s.Command) > 0 && !filepath.IsAbs(s.Command[0]) {
		return fmt.Errorf("plugin %q: command %q is not an absolute path, and $PATH is not searched: write it in full", s.Name, s.Command[0])
	}
	if s.SHA256 != "" && !hexSHA256.MatchString(s.SHA256) {
		return fmt.Errorf("plugin %q: sha256 is not 64 hexadecimal digits: use the output of sha256sum", s.Name)
	}
	for path, sum := range s.Files {
		if !filepath.IsAbs(path) {
			return fmt.Errorf("plugin %q: files: %q is not an absolute path", s.Name, path)
		}
		if !hexSHA256.MatchString(sum) {
			return fmt.Errorf("plugin %q: files: the sha256 of %s is not 64 hexadecimal digits: use the output of sha256sum", s.Name, path)
		}
	}
	for key := range s.Env {
		if key == "" || strings.ContainsAny(key, "=\x00") {
			return fmt.Errorf("plugin %q: env: %q cannot be the name of an environment variable", s.Name, key)
		}
	}
	return nil
}

// runnable says why path cannot be executed. The check is for a better message;
// the kernel's is the one that counts.
func runnable(name, path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return fmt.Errorf("plugin %q: %w", name, err)
	case !info.Mode().IsRegular():
		return fmt.Errorf("plugin %q: %s is not a file", name, path)
	case info.Mode().Perm()&0o111 == 0:
		return fmt.Errorf("plugin %q: %s is not executable: chmod +x it", name, path)
	}
	return nil
}
