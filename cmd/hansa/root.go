package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"hansa.dev/hansa/internal/version"
)

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "hansa",
		Short: "A container orchestrator in one binary, behind the Kubernetes API",
		Long: `Hansa runs containers on this machine, behind the Kubernetes API.

  hansa up                                start a cluster on this machine
  hansa kubectl apply -f app.yaml         use it; any kubectl works too
  hansa status                            what runs, and what is not well
  hansa down                              stop it and leave nothing behind`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		Args:              noCommand,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},

		SuggestionsMinimumDistance: 2,
	}
	root.SetFlagErrorFunc(flagError)
	root.AddCommand(newUp(), newDown(), newImage(), newKubectl(), newStatus(), newLogs(), newAPIServer(), newEnvtest(), newEtcd(), newVersion())
	return root
}

// flagError is wrong usage of a flag; one that is not known is answered with
// those that were perhaps meant.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) {
		if near := flagsLike(cmd, unknown.GetSpecifiedName()); len(near) > 0 {
			return usageError{fmt.Errorf("%w; did you mean --%s?", err, strings.Join(near, " or --"))}
		}
	}
	return usageError{fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())}
}

// flagsLike are a command's flags with names near to one that it does not have,
// as near as commands' names are to be.
func flagsLike(cmd *cobra.Command, name string) []string {
	names := &cobra.Command{SuggestionsMinimumDistance: 2}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		names.AddCommand(&cobra.Command{Use: f.Name, Run: func(*cobra.Command, []string) {}})
	})
	return names.SuggestionsFor(name)
}

// noCommand refuses what is no command, with the nearest one that is.
func noCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	message := fmt.Sprintf("%q is not a command", args[0])
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		message += fmt.Sprintf("; did you mean %q?", strings.Join(near, `" or "`))
	} else {
		message += "; see hansa --help"
	}
	return usageError{fmt.Errorf("%s", message)}
}

// exactly and atMost say how many arguments a command takes; others are wrong usage.
func exactly(n int) cobra.PositionalArgs { return usage(cobra.ExactArgs(n)) }
func atMost(n int) cobra.PositionalArgs  { return usage(cobra.MaximumNArgs(n)) }

func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{fmt.Errorf("%w; usage: %s", err, cmd.UseLine())}
		}
		return nil
	}
}

func newVersion() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch output {
			case "":
				fmt.Fprintf(cmd.OutOrStdout(), "hansa %s (Kubernetes %s, commit %s)\n", version.Hansa, version.Kubernetes, version.GitCommit())
				return nil
			case "json":
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(version.Get())
			}
			return usageError{fmt.Errorf("output format %q is not known; it is json or nothing", output)}
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "json")
	return cmd
}
