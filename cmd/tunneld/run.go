package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/core"
	"github.com/tunneld/tunneld/core/diag"
	"github.com/tunneld/tunneld/internal/logqueue"
	"github.com/tunneld/tunneld/internal/nodump"
)

func runCommand() *cobra.Command {
	var config string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the daemon",
		Long: `run reads the configuration, starts the plugins that it names, binds the
listeners and serves until a signal stops it.

  SIGHUP           reload; on an error the old configuration stays in force. tunneld
                   reload does the same, waits, and prints the outcome
  SIGTERM, SIGINT  stop accepting, let tunnels end for up to shutdown_timeout;
                   a second one ends them at once. With a shutdown_delay the
                   daemon first goes on accepting for that long, not ready; the
                   next signal skips the rest of it

Exit status: 0, stopped by a signal; 78, the configuration is invalid; 1, it could
not start for another reason, which may go away (an address is taken, a plugin does
not start, a secret's file is not there yet).`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return lastWord(cmd, runDaemon(cmd, config)) },
	}
	cmd.Flags().StringVarP(&config, "config", "c", defaultConfig, "the configuration: a file, or a folder of *.hcl")
	return cmd
}

// lastWord tells why run did not end well. It does not wait for a reader that stalls,
// as the log does not.
func lastWord(cmd *cobra.Command, err error) error {
	var silent statusError
	if err == nil || errors.As(err, &silent) {
		return err
	}
	stderr := logqueue.New(cmd.ErrOrStderr(), nil)
	fmt.Fprintf(stderr, "tunneld: %v\n", err)
	stderr.Flush()
	return statusError(exitFailed)
}

// protect keeps the process's secrets from other processes of the same user. It
// returns what is to be warned of.
func protect() (warnings []string) {
	lifted, err := nodump.Protect()
	if lifted {
		warnings = append(warnings, nodump.Warning)
	}
	if err != nil {
		warnings = append(warnings, "the daemon's memory is not protected: "+err.Error())
	}
	return warnings
}

func runDaemon(cmd *cobra.Command, config string) error {
	surviveReaders()
	// Caught from before the start, so that none of them falls through.
	stop := make(chan os.Signal, 2)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(stop)
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	defer signal.Stop(reload)

	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	opts := options(config)
	opts.Log = cmd.ErrOrStderr()
	opts.Warnings = protect()
	opts.Inherit = true
	var manager notifier
	opts.Notify = manager.event
	var (
		daemon *core.Daemon
		diags  diag.Diagnostics
		err    error
	)
	started := make(chan struct{})
	go func() {
		defer close(started)
		daemon, diags, err = core.Start(ctx, opts)
	}()
	select {
	case <-started:
	case <-stop:
		manager.stop()
		cancel()
		<-started
		if err == nil { // it came too late to break that off
			return drain(cmd.Context(), daemon, stop)
		}
		return errors.New("stopped by a signal during the start")
	}
	if err != nil {
		// From here on a signal ends the program, whoever reads what it has to say.
		signal.Stop(stop)
		diags.Problems().Write(cmd.ErrOrStderr())
		if errors.Is(err, core.ErrInvalid) {
			return statusError(exitInvalid)
		}
		return err
	}
	now := daemon.Status()
	manager.started(len(now.Listeners), now.Generation)
	defer manager.watch(daemon.Status)()
	return serve(ctx, daemon, &manager, stop, reload)
}

// serve answers signals until one of them ends the daemon.
func serve(ctx context.Context, daemon *core.Daemon, manager *notifier, stop, reload <-chan os.Signal) error {
	for {
		select {
		case <-reload:
			// One at a time; signals that arrive meanwhile are one more.
			if !reloadUntil(ctx, daemon, stop) {
				continue
			}
		case <-stop:
		case <-ctx.Done():
		}
		manager.stop()
		return drain(ctx, daemon, stop)
	}
}

// drain stops the daemon. It goes on accepting for a while, if it is configured so,
// and then its tunnels have their time to end; each of the two ends early with
// another signal.
func drain(ctx context.Context, daemon *core.Daemon, stop <-chan os.Signal) error {
	leaving, left := untilNext(ctx, stop)
	daemon.Leave(leaving)
	left()
	ending, ended := untilNext(ctx, stop)
	defer ended()
	return daemon.Stop(ending)
}

// untilNext returns a context that ends with the next signal. Those that come after
// done are not taken.
func untilNext(ctx context.Context, signals <-chan os.Signal) (_ context.Context, done func()) {
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		select {
		case <-signals:
			cancel()
		case <-ctx.Done():
		}
	})
	return ctx, func() {
		cancel()
		watching.Wait()
	}
}

// reloadUntil reloads; a signal to stop breaks that off. It says whether there
// was one.
func reloadUntil(ctx context.Context, daemon *core.Daemon, stop <-chan os.Signal) (stopped bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		daemon.Reload(ctx) // the log has the outcome
	}()
	select {
	case <-done:
		return false
	case <-stop:
		cancel()
		<-done
		return true
	}
}
