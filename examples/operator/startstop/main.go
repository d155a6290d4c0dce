// Command startstop starts and stops the control plane of envtest, and prints how
// long each took, a line a time. bench/envtest runs it.
package main

import (
	"flag"
	"fmt"
	"os"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

func main() {
	n := flag.Int("n", 1, "`number` of times")
	flag.Parse()
	for range *n {
		if err := once(); err != nil {
			fmt.Fprintln(os.Stderr, "startstop:", err)
			os.Exit(1)
		}
	}
}

func once() error {
	env := &envtest.Environment{}
	began := time.Now()
	if _, err := env.Start(); err != nil {
		return err
	}
	ready := time.Since(began)
	began = time.Now()
	if err := env.Stop(); err != nil {
		return err
	}
	fmt.Println(ready, time.Since(began))
	return nil
}
