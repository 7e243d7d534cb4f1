// Package nodump keeps the memory and the environment of this process, which hold
// secrets, from other processes of the same user, and out of core files. Against root,
// and against a process with CAP_SYS_PTRACE, it does nothing.
package nodump

import (
	"errors"
	"os"
	"testing"
)

// Env is the environment variable that, set to 1, leaves the process as it is: for
// debuggers, and for tests that look at another process's descriptors.
const Env = "TUNNELD_DUMPABLE"

// Warning is what is to be logged of a process that Env leaves open.
const Warning = Env + " is set: other processes of the same user can read the memory and the environment of this one, with all secrets in it"

// Protect makes the process not dumpable: other processes of the same user can neither
// trace it nor read its memory, environment and descriptors under /proc, and it leaves
// no core file; neither do those that it starts. It says whether Env has lifted that.
// In a test binary it does nothing: the protection lasts, and other tests look at the
// process. On systems other than Linux it forbids core files alone.
func Protect() (lifted bool, err error) {
	if testing.Testing() {
		return false, nil
	}
	if os.Getenv(Env) == "1" {
		return true, nil
	}
	return false, errors.Join(undumpable(), noCore())
}
