// Package rig is what the benchmark programs have in common: each runs a
// cluster of its own from the built binary, in a temporary data directory and a
// network namespace, and prints figures.
//
//	main ─▶ (images are built) ─▶ same program in a new network namespace ─▶ run
//
// The namespace keeps benchmarks from other clusters of the machine, whose
// ports are the same.
package rig

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"hansa.dev/hansa/internal/ocibuild"
)

// Rig is one run of a benchmark program.
type Rig struct {
	// Binary is the program measured.
	Binary string
	// Profiles is a folder for profiles; empty: none are taken.
	Profiles string

	figures *figures
	tmp     string // holds data directories and logs
}

// isolated marks, in the environment, the program that runs in a namespace.
const isolated = "HANSA_BENCH_ISOLATED"

// Program is a benchmark.
type Program struct {
	Doc string // a sentence
	// Prepare is called first, with the network of the host. It may be nil.
	Prepare func(context.Context) error
	Images  []string // that Run will import
	Run     func(context.Context, *Rig) error
}

// Main is the main function of a benchmark program: it reads the command line,
// to which the program may have added flags of its own, prepares, builds the
// images, and runs the program in a network namespace of its own. It exits with
// status 1 when that fails.
func Main(p Program) {
	r := &Rig{figures: &figures{out: os.Stdout, series: map[string]*series{}}}
	flag.StringVar(&r.Binary, "hansa", "bin/hansa", "`path` of the binary to measure")
	flag.StringVar(&r.Profiles, "profile", "", "take profiles into this `folder`, of a build of the same sources that can give them")
	flag.BoolVar(&r.figures.json, "json", false, "print each figure as a JSON object")
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "%s\n\nIt needs root and %s (make build).\n\n", p.Doc, r.Binary)
		flag.PrintDefaults()
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	err := r.main(ctx, p)
	stop()
	if err != nil {
		// The program inside has said already what is wrong.
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || os.Getenv(isolated) != "" {
			fmt.Fprintln(os.Stderr, filepath.Base(os.Args[0])+":", err)
		}
		os.Exit(1)
	}
}

func (r *Rig) main(ctx context.Context, p Program) error {
	if os.Getenv(isolated) == "" {
		if r.Profiles != "" {
			if err := buildProfiled(ctx); err != nil {
				return err
			}
		}
		if p.Prepare != nil {
			if err := p.Prepare(ctx); err != nil {
				return err
			}
		}
		return isolate(ctx, p.Images)
	}
	if err := makeNetwork(); err != nil {
		return err
	}
	var err error
	if r.Binary, err = filepath.Abs(r.Binary); err != nil {
		return err
	}
	if _, err := os.Stat(r.Binary); err != nil {
		return fmt.Errorf("there is no %s: make build makes it", r.Binary)
	}
	if r.tmp, err = os.MkdirTemp("", "hansa-bench-"); err != nil {
		return err
	}
	load(os.Stderr, "before")
	err = p.Run(ctx, r)
	load(os.Stderr, "after")
	return errors.Join(err, os.RemoveAll(r.tmp))
}

// load tells how busy the machine is; figures of a busy one are worth less.
func load(w *os.File, when string) {
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		fmt.Fprintf(w, "# load %s: %s", when, b)
	}
}

// isolate runs this program again in a network namespace, with the files of the
// images in its environment: building them needs the outside world.
func isolate(ctx context.Context, images []string) error {
	env := []string{isolated + "=1"}
	if len(images) > 0 {
		b, err := ocibuild.New(ctx)
		if err != nil {
			return err
		}
		for _, name := range images {
			file, err := b.Build(ctx, name, ocibuild.Catalogue()[name])
			if err != nil {
				return err
			}
			env = append(env, imageVariable(name)+"="+file)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	// A group of its own: Ctrl-C comes once, by Cancel, and Pdeathsig when this
	// process is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Setpgid: true, Pdeathsig: unix.SIGTERM}
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	return cmd.Run()
}

func imageVariable(name string) string {
	return "HANSA_BENCH_IMAGE_" + strings.NewReplacer("/", "_", ":", "_", ".", "_").Replace(name)
}

// ImageFile is the archive of an image that Main was told of.
func ImageFile(name string) string { return os.Getenv(imageVariable(name)) }
