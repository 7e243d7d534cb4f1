// Package userfile reads files and folders that a user named. It reads only regular
// files, so that a FIFO cannot block it, and no more bytes than the caller allows. It
// does not follow changes, but a Stamp tells whether there was one.
package userfile

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// ErrNotRegular is what errors about folders, FIFOs, sockets and devices wrap.
var ErrNotRegular = errors.New("not a regular file")

// ErrTooLarge is what the error about a file wraps that is larger than the limit.
var ErrTooLarge = errors.New("too large")

// kindError says what was found where a regular file was wanted.
type kindError string

func (e kindError) Error() string   { return string(e) }
func (e kindError) Is(t error) bool { return t == ErrNotRegular }

// sizeError is the limit that a file does not keep.
type sizeError int64

func (e sizeError) Error() string   { return "it is larger than " + size(int64(e)) }
func (e sizeError) Is(t error) bool { return t == ErrTooLarge }

// patience bounds the wait for a file that calls itself regular and may still
// have nothing to give, as some of the kernel's in /proc and /sys.
const patience = 2 * time.Second

// File is what a file held.
type File struct {
	// Data is the content without a UTF-8 byte order mark at its start.
	Data []byte
	// Mark says that there was a byte order mark.
	Mark bool
	// Stamp is of the moment before the content was read.
	Stamp Stamp
}

// Sum identifies what a file holds. The zero Sum is of no file, or of one that
// cannot be read.
type Sum [sha256.Size]byte

// Sum returns the Sum of the content.
func (f File) Sum() Sum { return sha256.Sum256(f.Data) }

// Open opens a regular file for reading. Its errors are *fs.PathError, and wrap
// ErrNotRegular for everything else than a file. The caller closes it.
func Open(path string) (*os.File, error) {
	// Asked first, since opening alone has effects: a tape rewinds, and a FIFO's
	// writer believes that it is heard.
	info, err := os.Stat(path)
	var pe *fs.PathError
	if errors.As(err, &pe) {
		pe.Op = "open" // which is what was asked for
	}
	if err != nil {
		return nil, err
	}
	if err := regular(path, info); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	if info, err = f.Stat(); err == nil {
		err = regular(path, info)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

func regular(path string, info fs.FileInfo) error {
	var kind kindError
	switch mode := info.Mode(); {
	case mode.IsRegular():
		return nil
	case mode.IsDir():
		kind = "it is a folder, not a file"
	case mode&fs.ModeNamedPipe != 0:
		kind = "it is a FIFO or pipe, not a regular file"
	case mode&fs.ModeSocket != 0:
		kind = "it is a socket, not a regular file"
	default:
		kind = "it is a device, not a regular file"
	}
	return &fs.PathError{Op: "open", Path: path, Err: kind}
}

// Read reads a regular file of at most limit bytes. Its errors are *fs.PathError,
// and wrap ErrNotRegular or ErrTooLarge where that is the reason.
func Read(path string, limit int64) (File, error) {
	f, err := Open(path)
	if err != nil {
		return File{}, err
	}
	defer func() { _ = f.Close() }()
	stamp, err := stampOf(f)
	if err != nil {
		return File{}, err
	}
	// A disk's file takes no deadline and needs none.
	if err := f.SetReadDeadline(time.Now().Add(patience)); err != nil && !errors.Is(err, os.ErrNoDeadline) {
		return File{}, err
	}
	out, err := ReadFrom(f, limit)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = errors.New("it has no end, or returns nothing")
	}
	if err != nil {
		var pe *fs.PathError
		if !errors.As(err, &pe) {
			err = &fs.PathError{Op: "read", Path: path, Err: err}
		}
		return File{}, err
	}
	out.Stamp = stamp
	return out, nil
}

// ReadFrom reads at most limit bytes from r, as standard input, to its end. It
// waits as long as r does, and the Stamp is empty. A larger input is an error that
// wraps ErrTooLarge.
func ReadFrom(r io.Reader, limit int64) (File, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return File{}, err
	}
	if int64(len(data)) > limit {
		return File{}, sizeError(limit)
	}
	data, mark := bytes.CutPrefix(data, []byte("\xef\xbb\xbf"))
	return File{Data: data, Mark: mark}, nil
}

func size(n int64) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}

// Names lists a folder's entries, in no order, and fails where there are more
// than most. Its errors are *fs.PathError.
func Names(folder string, most int) ([]string, error) {
	f, err := os.OpenFile(folder, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	names, err := f.Readdirnames(most + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(names) > most {
		return nil, &fs.PathError{Op: "read", Path: folder, Err: fmt.Errorf("it has more than %d entries", most)}
	}
	return names, nil
}
