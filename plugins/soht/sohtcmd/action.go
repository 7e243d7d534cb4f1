package sohtcmd

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/plugins/soht/sohtemu"
)

// actions are the protocol's.
var actions = []string{"open", "read", "write", "readwrite", "close"}

// onAction defines a flag that makes something go wrong with an action; it may be repeated
// for others. set is given what follows the action's "=".
// form is what the flag takes, "ACTION" or "ACTION=VALUE".
func (e *emulation) onAction(cmd *cobra.Command, name, form, usage string, set func(f *sohtemu.Fault, value string) error) {
	a := &actionFault{on: e.options.Faults.On, set: set, form: form}
	cmd.Flags().Var(a, name, usage)
	words, directive := actions, cobra.ShellCompDirectiveNoFileComp
	if a.valued() {
		words, directive = nil, directive|cobra.ShellCompDirectiveNoSpace
		for _, action := range actions {
			words = append(words, action+"=")
		}
	}
	if err := cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(words, directive)); err != nil {
		panic(err) // the flag is defined above
	}
}

// actionFault is the value of such a flag.
type actionFault struct {
	on   map[string]sohtemu.Fault
	set  func(*sohtemu.Fault, string) error
	form string
}

func (a *actionFault) String() string { return "" }
func (a *actionFault) Type() string   { return a.form }
func (a *actionFault) valued() bool   { return strings.Contains(a.form, "=") }

func (a *actionFault) Set(text string) error {
	action, value, valued := strings.Cut(text, "=")
	if !slices.Contains(actions, action) {
		return fmt.Errorf("there is no action %q, only %s", action, strings.Join(actions, ", "))
	}
	if valued != a.valued() {
		return fmt.Errorf("it is not %s", a.form)
	}
	f := a.on[action]
	if err := a.set(&f, value); err != nil {
		return err
	}
	a.on[action] = f
	return nil
}
