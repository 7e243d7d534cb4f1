package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// surviveReaders keeps a command alive whose standard output or error loses its
// reader: its writes fail with EPIPE. Go ends a program otherwise, with all that it
// carries. The signal is taken and not ignored, since children inherit the latter.
func surviveReaders() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }

// untilInterrupted returns a context that ends with SIGINT or SIGTERM. The next
// one ends the program, which may be waiting for a reader of its output.
func untilInterrupted(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}
