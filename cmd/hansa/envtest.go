package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"hansa.dev/hansa/daemon"
)

func newEnvtest() *cobra.Command {
	return &cobra.Command{
		Use:   "envtest DIR",
		Short: "Lay out the programs of envtest, to run operators' tests on Hansa",
		Long: `Lay out the programs of envtest, to run operators' tests on Hansa.

  eval "$(hansa envtest ~/.cache/hansa/envtest)"   sets KUBEBUILDER_ASSETS
  go test ./...                                    any suite on controller-runtime's envtest

DIR gets kube-apiserver and etcd, which are this program by other names, and
kubectl. Run it again after an upgrade.`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := daemon.Envtest(args[0])
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "export KUBEBUILDER_ASSETS='%s'\n", dir)
			return nil
		},
	}
}

// byName are the arguments of a program that may have been called by the name of
// another one.
func byName(args []string) []string {
	switch filepath.Base(args[0]) {
	case daemon.NameAPIServer:
		return append([]string{"apiserver"}, args[1:]...)
	case daemon.NameEtcd:
		return append([]string{"etcd"}, args[1:]...)
	}
	return args[1:]
}
