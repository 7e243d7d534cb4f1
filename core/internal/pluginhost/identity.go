package pluginhost

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"github.com/tunneld/tunneld/internal/userfile"
)

// Identity is the same for two specs that start the same plugin: equal specs, with
// equal content of the program, of the first argument that names a regular file (a
// script, or a program that another starts), and of Files. A file that cannot be read,
// or is larger than maxWatched, counts with its size and time. Like Key it is a hash over secrets, too. What ctx
// breaks off is another identity.
func Identity(ctx context.Context, s Spec) string {
	id := s.Key()
	if s.Bundled {
		return id // part of this program, whatever has become of its file
	}
	for _, path := range watched(s) {
		id += " " + contentOf(ctx, path)
	}
	return id
}

// watched are the files that a plugin's process is made of, as far as it is known.
func watched(s Spec) []string {
	paths := []string{s.Command[0]}
	i := slices.IndexFunc(s.Command[1:], func(arg string) bool {
		info, err := os.Stat(arg)
		return err == nil && info.Mode().IsRegular()
	})
	if i >= 0 {
		paths = append(paths, s.Command[1+i])
	}
	return append(paths, slices.Sorted(maps.Keys(s.Files))...)
}

// maxWatched bounds what is read of a file, in bytes: no program is as large, but what
// an argument names may be anything.
const maxWatched = 1 << 30

// contentOf returns the hash of a file's content.
func contentOf(ctx context.Context, path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return err.Error()
	}
	if info.Size() <= maxWatched {
		var sum string
		if sum, err = hashOf(ctx, path); err == nil {
			return sum
		}
	}
	return fmt.Sprintf("%d %d %v", info.Size(), info.ModTime().UnixNano(), err)
}

func hashOf(ctx context.Context, path string) (string, error) {
	f, err := userfile.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, contextReader{ctx, f}); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
