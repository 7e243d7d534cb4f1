package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// usageError is a command line that cannot be understood.
type usageError struct{ error }

// Usage: see usage.
func (usageError) Usage() {}

// flagError makes a wrong flag a usage error. What the packages of numbers and times say
// of a text is meant for programmers.
func flagError(cmd *cobra.Command, err error) error {
	var value *pflag.InvalidValueError
	if errors.As(err, &value) {
		takes := ""
		switch kind := value.GetFlag().Value.Type(); {
		case kind == "duration":
			takes = "a number and a unit, such as 500ms, 30s or 5m"
		case kind == "bool":
			takes = "true or false"
		case errors.Is(err, strconv.ErrSyntax):
			takes = "a whole number"
		}
		if takes != "" {
			err = fmt.Errorf("--%s takes %s, not %q", value.GetFlag().Name, takes, value.GetValue())
		}
	}
	return usageError{fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())}
}

// checkArgs makes wrong arguments a usage error, for subcommands too.
func checkArgs(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(cmd *cobra.Command, args []string) error {
			err := check(cmd, args)
			if err == nil {
				return nil
			}
			if said := wrongArgs(cmd, args); said != "" {
				err = errors.New(said)
			}
			return usageError{fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())}
		}
	}
	if !c.HasParent() {
		return
	}
	for _, sub := range c.Commands() {
		checkArgs(sub)
	}
}

// wrongArgs says in words what cobra says in numbers, "accepts 1 arg(s), received 0", or not
// at all; empty: the command itself has said what is wrong.
func wrongArgs(cmd *cobra.Command, args []string) string {
	_, argument, _ := strings.Cut(cmd.Use, " ")
	switch {
	case cmd.HasSubCommands():
		said := fmt.Sprintf("unknown command %q for %q", args[0], cmd.CommandPath())
		cmd.SuggestionsMinimumDistance = 2
		if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
			said += fmt.Sprintf(" (did you mean %q?)", like[0])
		}
		return said
	case argument != "" && !strings.Contains(argument, " ") && len(args) == 0:
		return argument + " is missing"
	case argument != "" && !strings.Contains(argument, " "):
		return fmt.Sprintf("unexpected argument %q: there is one %s", args[1], argument)
	case argument == "" && len(args) > 0 && cmd.Flags().Lookup("config") != nil:
		return fmt.Sprintf("unexpected argument %q: --config names the configuration", args[0])
	case argument == "" && len(args) > 0:
		return fmt.Sprintf("unexpected argument %q", args[0])
	default:
		return ""
	}
}
