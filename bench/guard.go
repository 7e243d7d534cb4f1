package main

import (
	"context"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

// measureCommand is what guard calls this program with, before a command.
const measureCommand = "measure"

// guard has the measurement done by a process of its own, which takes down what
// it has started once its standard input ends: when a signal ends this
// process, and when it dies.
func guard(args []string) int {
	exe, err := os.Executable()
	if err != nil {
		return status(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	cmd := exec.CommandContext(ctx, exe, append([]string{measureCommand}, args...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	// In a group of its own a terminal's signals do not reach it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		return status(err)
	}
	cmd.Cancel = in.Close
	err = cmd.Run()
	if cmd.ProcessState != nil && cmd.ProcessState.Exited() {
		return cmd.ProcessState.ExitCode() // it has said why
	}
	return status(err)
}

// guarded returns a context that ends with the standard input.
func guarded() context.Context {
	// To die of a pipe that nobody reads would leave everything running. The
	// signal is not ignored, since what is started would inherit that.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	return ctx
}
