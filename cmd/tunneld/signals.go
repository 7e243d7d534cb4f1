package main

import (
	"os"
	"os/signal"
	"syscall"
)

// surviveReaders keeps a command alive whose standard output or error loses its
// reader: its writes fail with EPIPE. Go ends a program otherwise, with all that it
// carries. The signal is taken and not ignored, since children inherit the latter.
func surviveReaders() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }
