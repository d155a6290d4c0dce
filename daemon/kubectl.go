package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"hansa.dev/hansa/internal/bundle"
)

// Kubectl becomes the carried kubectl, pointed at the cluster of the data
// directory unless the caller's own --kubeconfig says otherwise. It returns only
// when that failed.
func Kubectl(c Config, args []string) error {
	i := c.instance()
	switch _, err := os.Stat(i.kubeconfig()); {
	case errors.Is(err, fs.ErrPermission):
		return forRoot{c.DataDir}
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("no cluster in data directory %s: start one with hansa up, or name another with --data-dir", c.DataDir)
	}
	b, err := bundle.Executable()
	if err != nil {
		return err
	}
	env := []string{"KUBECONFIG=" + i.kubeconfig()}
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "KUBECONFIG=") {
			env = append(env, e)
		}
	}
	return b.Exec(i.path("bin"), "kubectl", args, env)
}
