// Command images builds the images of internal/ocibuild's catalogue and prints
// the file of each, one a line: NAME PATH. With names as arguments it builds
// those only. `hansa image import PATH` takes what it prints.
package main

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"

	"hansa.dev/hansa/internal/ocibuild"
)

func main() {
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "usage: images [NAME …]\nnames: %s\n", strings.Join(known(), " "))
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		stop()
		os.Exit(1)
	}
}

func known() []string { return slices.Sorted(maps.Keys(ocibuild.Catalogue())) }

func run(ctx context.Context, names []string) error {
	b, err := ocibuild.New(ctx)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		names = known()
	}
	catalogue := ocibuild.Catalogue()
	for _, name := range names {
		spec, ok := catalogue[name]
		if !ok {
			return fmt.Errorf("there is no image %q, only %s", name, strings.Join(known(), ", "))
		}
		path, err := b.Build(ctx, name, spec)
		if err != nil {
			return err
		}
		fmt.Println(name, path)
	}
	return nil
}
