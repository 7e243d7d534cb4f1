package tlsconf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// KeyLogEnv is the environment variable that has to be 1 beside ClientOptions.KeyLogFile:
// who reads a file of keys can decrypt everything, so it is not to be there by an oversight.
const KeyLogEnv = "TUNNELD_KEY_LOG"

func keyLogAsked() bool { return os.Getenv(KeyLogEnv) == "1" }

// errKeyLogOnce is a key log that was asked for once.
var errKeyLogOnce = errors.New("the key log is asked for only once: " + KeyLogEnv + " is not 1")

// keyLog appends the keys of TLS sessions to the file with this path, in NSS's format
// (https://firefox-source-docs.mozilla.org/security/nss/legacy/key_log_format/). It opens
// the file anew for each line: nobody has to close it, and several processes may share it.
type keyLog string

// Write implements io.Writer. A line that cannot be written ends the handshake.
func (k keyLog) Write(line []byte) (int, error) {
	f, err := k.open()
	if err != nil {
		return 0, fmt.Errorf("key_log_file: %w", err)
	}
	n, err := f.Write(line)
	if err = errors.Join(err, f.Close()); err != nil {
		return n, fmt.Errorf("key_log_file: %w", err)
	}
	return n, nil
}

func (k keyLog) open() (*os.File, error) {
	if err := k.checkFolder(); err != nil {
		return nil, err
	}
	// O_NONBLOCK: a FIFO whose reader is slow must not hold up a handshake.
	f, err := os.OpenFile(string(k), os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if errors.Is(err, syscall.ELOOP) {
		return nil, k.refused("it is a symbolic link")
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil {
		err = k.checkFile(info)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// check says whether lines could be written, as far as that can be seen without making
// the file.
func (k keyLog) check() error {
	if err := k.checkFolder(); err != nil {
		return err
	}
	info, err := os.Lstat(string(k))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return k.checkFile(info)
}

// checkFolder refuses a folder in which somebody else could put another file in the
// place of this one. A sticky one, such as /tmp, keeps all from that.
func (k keyLog) checkFolder() error {
	info, err := os.Stat(filepath.Dir(string(k)))
	if err != nil {
		return err
	}
	owner, known := info.Sys().(*syscall.Stat_t)
	theirs := known && owner.Uid != 0 && int(owner.Uid) != os.Geteuid()
	if info.IsDir() && (theirs || info.Mode().Perm()&0o022 != 0) && info.Mode()&fs.ModeSticky == 0 {
		return k.refused("other users can write to its folder")
	}
	return nil
}

func (k keyLog) checkFile(info fs.FileInfo) error {
	owner, known := info.Sys().(*syscall.Stat_t)
	switch mode := info.Mode(); {
	case mode&fs.ModeSymlink != 0:
		return k.refused("it is a symbolic link")
	case !mode.IsRegular():
		return k.refused("it is not a regular file")
	case mode.Perm()&0o077 != 0:
		return k.refused("others than its owner can read or write it: its mode has to be 0600")
	case known && int(owner.Uid) != os.Geteuid():
		return k.refused("it belongs to another user")
	}
	return nil
}

func (k keyLog) refused(why string) error {
	return &fs.PathError{Op: "open", Path: string(k), Err: errors.New(why)}
}

func keyLogProblems(file string) []Problem {
	p := Problem{Option: "key_log_file"}
	err := keyLog(file).check()
	switch {
	case !keyLogAsked():
		p.Summary = errKeyLogOnce.Error()
		p.Detail = "Whoever reads that file can decrypt the connections, so it has to be asked for twice: set " + KeyLogEnv + "=1 in tunneld's environment, or remove key_log_file."
	case err != nil:
		p.Summary, p.Detail = "cannot write the keys: "+err.Error(), "Name a file in a folder of tunneld's user alone. It is made with mode 0600."
	default:
		p.Warning, p.Summary = true, "the keys of TLS sessions are written to a file"
		p.Detail = "Whoever reads it can decrypt all connections of this upstream. Remove key_log_file once the fault is found, and then the file."
	}
	return []Problem{p}
}
