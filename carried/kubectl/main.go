// Command kubectl is the Kubernetes client that `hansa kubectl` runs:
// upstream's command tree; `rollout status` also says why a rollout failed.
package main

import (
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
	"k8s.io/kubectl/pkg/polymorphichelpers"

	// Credential plugins that a kubeconfig may name.
	_ "k8s.io/client-go/plugin/pkg/client/auth"
)

func main() {
	polymorphichelpers.StatusViewerFn = explained(polymorphichelpers.StatusViewerFn)
	// CheckErr of the commands exits by itself; what is returned here are
	// errors of usage.
	if err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
		util.CheckErr(err)
		os.Exit(1)
	}
}
