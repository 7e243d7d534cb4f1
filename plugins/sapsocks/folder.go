package sapsocks

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tunneld/tunneld/internal/userfile"
)

// The bounds of a service binding's folder.
const (
	maxBindingFile  = 1 << 20 // bytes
	maxBindingFiles = 256
)

// errRotated is a folder that changed while it was read.
var errRotated = errors.New("its files are being replaced")

// emptyError is a folder that has not been filled yet.
type emptyError string

func (e emptyError) Error() string   { return fmt.Sprintf("no credential in %s: it is empty", string(e)) }
func (emptyError) Is(err error) bool { return err == fs.ErrNotExist }

// readBinding reads a service binding's folder on Kubernetes: a file for each
// credential, or one with all of them as JSON, with or without a .metadata file
// (servicebinding.io, and SAP's service operator). All of it is from one moment: the symbolic links may be
// swapped while it is read.
func readBinding(folder string) (binding, error) {
	var err error
	for range 5 {
		var before, after string
		var c credentials
		if before, err = fingerprint(folder); err != nil {
			break
		}
		if c, err = readCredentials(folder); err == nil {
			after, err = fingerprint(folder)
		}
		switch {
		case err == nil && before == after:
			return c.binding()
		case err == nil:
			err = errRotated
		case !errors.Is(err, os.ErrNotExist):
			return binding{}, err
		}
	}
	return binding{}, err
}

// fingerprint is equal for two looks at a folder that found the same files. It
// resolves their links, which is what changes on a rotation.
func fingerprint(folder string) (string, error) {
	names, err := fileNames(folder)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, name := range names {
		real, err := filepath.EvalSymlinks(filepath.Join(folder, name))
		if err != nil {
			return "", err
		}
		info, err := os.Stat(real)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "%q %d %d\n", real, info.Size(), info.ModTime().UnixNano())
	}
	return b.String(), nil
}

// fileNames lists a folder without Kubernetes' own ..data and its targets.
func fileNames(folder string) ([]string, error) {
	all, err := userfile.Names(folder, maxBindingFiles)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, name := range all {
		if !strings.HasPrefix(name, "..") {
			names = append(names, name)
		}
	}
	return names, nil
}

// metadata is the .metadata file.
type metadata struct {
	Credentials []property `json:"credentialProperties"`
}

// property is one file. A container's content is a JSON object with the
// credentials themselves.
type property struct {
	Name      string `json:"name"`
	Format    string `json:"format"` // "text" or "json"
	Container bool   `json:"container"`
}

func readCredentials(folder string) (credentials, error) {
	var c credentials
	properties, err := readMetadata(folder)
	if err != nil {
		return c, err
	}
	values := map[string]json.RawMessage{}
	for _, p := range properties {
		if err := p.read(folder, values); err != nil {
			return c, err
		}
	}
	if c, err = decode(values); err != nil {
		return c, fmt.Errorf("%s: %s", folder, jsonProblem(err))
	}
	return c, nil
}

// readMetadata says which files hold credentials.
func readMetadata(folder string) ([]property, error) {
	text, err := readFile(folder, ".metadata")
	if err == nil {
		var m metadata
		if err := json.Unmarshal([]byte(text), &m); err != nil {
			return nil, fmt.Errorf(".metadata is malformed: %s", jsonProblem(err))
		}
		if len(m.Credentials) > maxBindingFiles {
			return nil, fmt.Errorf(".metadata names more than %d credentials", maxBindingFiles)
		}
		return m.Credentials, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return withoutMetadata(folder)
}

// withoutMetadata returns all files whose names are a credential's; or else the one,
// whatever its name, that holds all of them as JSON (secretRootKey and secretKey of
// SAP's service operator). A single file may be either.
func withoutMetadata(folder string) ([]property, error) {
	names, err := fileNames(folder)
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, emptyError(folder)
	}
	slices.Sort(names)
	var properties []property
	for _, name := range names {
		if isCredential(name) {
			properties = append(properties, property{Name: name, Format: "text"})
		}
	}
	if len(properties) > 1 {
		return properties, nil
	}
	containers, err := containersAmong(folder, names)
	switch {
	case len(containers) == 1:
		return []property{{Name: containers[0], Container: true}}, nil
	case len(properties) == 1:
		return properties, nil
	case err != nil:
		return nil, err
	case len(containers) > 1:
		return nil, fmt.Errorf("several files in %s hold credentials as JSON: %s", folder, list(containers))
	}
	return nil, fmt.Errorf("no credential in %s: neither .metadata, nor clientid, onpremise_proxy_host and the like, nor a JSON file with them", folder)
}

// containersAmong returns the files that hold credentials as JSON. The error is of the
// first that cannot be read.
func containersAmong(folder string, names []string) (containers []string, err error) {
	for _, name := range names {
		text, readErr := readFile(folder, name)
		if err = cmp.Or(err, readErr); readErr != nil {
			continue
		}
		if object, notJSON := locate([]byte(text)); notJSON == nil && object != nil {
			containers = append(containers, name)
		}
	}
	return containers, err
}

func (p property) read(folder string, values map[string]json.RawMessage) error {
	if p.Name == "" || p.Name != filepath.Base(p.Name) || strings.HasPrefix(p.Name, "..") {
		return fmt.Errorf(".metadata names %q, which is not a file of the folder", p.Name)
	}
	text, err := readFile(folder, p.Name)
	if err != nil {
		return err
	}
	switch {
	case p.Container:
		object, err := locate([]byte(text))
		switch {
		case err != nil:
			return fmt.Errorf("%s is not a JSON object: %s", p.Name, jsonProblem(err))
		case object == nil:
			return fmt.Errorf("%s holds no credential, such as clientid", p.Name)
		}
		maps.Copy(values, object)
	case p.Format == "json":
		if !json.Valid([]byte(text)) {
			return fmt.Errorf("%s is not JSON, which .metadata says it is", p.Name)
		}
		values[p.Name] = json.RawMessage(text)
	default:
		quoted, err := json.Marshal(text)
		if err != nil {
			return err
		}
		values[p.Name] = quoted
	}
	return nil
}

// readFile reads a file without the white space around its content, which some
// editors and most shells add.
func readFile(folder, name string) (string, error) {
	f, err := userfile.Read(filepath.Join(folder, name), maxBindingFile)
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(f.Data)), nil
}
