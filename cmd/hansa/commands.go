package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"hansa.dev/hansa/daemon"
)

func newUp() *cobra.Command {
	var s settings
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run a cluster on this machine: server and node in one process",
		Long: `Run a cluster on this machine: server and node in one process.

It stays in the foreground. Ctrl-C stops Hansa but not the containers: the next
"hansa up" finds them running. "hansa down" stops everything.`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.load(cmd); err != nil {
				return err
			}
			c, err := s.clusterConfig()
			if err != nil {
				return err
			}
			c.Flags = values(cmd.Flags())
			return daemon.Up(cmd.Context(), c, cmd.OutOrStdout(), os.Stderr)
		},
	}
	s.clusterFlags(cmd.Flags())
	return cmd
}

func newDown() *cobra.Command {
	var s settings
	var purge bool
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Stop everything this data directory started and remove its traces",
		Long: `Stop everything this data directory started and remove its traces from the
host: containers, network, mounts, cgroups. The data stays, so that "hansa up"
brings the same cluster back; --purge removes it too.`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.load(cmd); err != nil {
				return err
			}
			c, err := s.dataConfig()
			if err != nil {
				return err
			}
			return daemon.Down(cmd.Context(), c, purge)
		},
	}
	s.dataDirFlags(cmd.Flags())
	cmd.Flags().BoolVar(&purge, "purge", false, "remove the data directory as well")
	return cmd
}

func newImage() *cobra.Command {
	var s settings
	cmd := &cobra.Command{
		Use:   "image",
		Short: "Images on this node",
		Args:  noCommand,

		SuggestionsMinimumDistance: 2,
		RunE:                       func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	s.dataDirFlags(cmd.PersistentFlags())
	images := func(cmd *cobra.Command, do func(context.Context, *daemon.Images) error) error {
		if err := s.load(cmd); err != nil {
			return err
		}
		c, err := s.dataConfig()
		if err != nil {
			return err
		}
		i, err := daemon.OpenImages(c)
		if err != nil {
			return err
		}
		defer i.Close()
		return do(cmd.Context(), i)
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "import FILE",
		Short: "Import an OCI layout or docker-archive tar; - reads standard input",
		Args:  exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return images(cmd, func(ctx context.Context, i *daemon.Images) error {
				file := os.Stdin
				if args[0] != "-" {
					f, err := os.Open(args[0])
					if err != nil {
						return err
					}
					defer f.Close()
					file = f
				}
				names, err := i.Import(ctx, file)
				for _, n := range names {
					fmt.Fprintln(cmd.OutOrStdout(), "imported", n)
				}
				if err != nil {
					return fmt.Errorf("%s: %w", args[0], err)
				}
				return nil
			})
		},
	}, &cobra.Command{
		Use:   "list",
		Short: "List images",
		Args:  exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return images(cmd, func(ctx context.Context, i *daemon.Images) error {
				list, err := i.List(ctx)
				if err != nil {
					return err
				}
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 3, ' ', 0)
				fmt.Fprintln(w, "IMAGE\tID\tSIZE")
				for _, image := range list {
					fmt.Fprintf(w, "%s\t%s\t%s\n", image.Name, image.ID, image.Size)
				}
				return w.Flush()
			})
		},
	}, &cobra.Command{
		Use:   "remove IMAGE",
		Short: "Remove an image by its name",
		Args:  exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return images(cmd, func(ctx context.Context, i *daemon.Images) error { return i.Remove(ctx, args[0]) })
		},
	})
	return cmd
}

func newKubectl() *cobra.Command {
	return &cobra.Command{
		Use:                "kubectl [--data-dir DIR] ...",
		Short:              "The carried kubectl, pointed at this cluster",
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, rest, err := kubectlArgs(args)
			if err != nil {
				return err
			}
			return daemon.Kubectl(c, rest)
		},
	}
}

// kubectlArgs takes our own flags from the front of kubectl's arguments; the
// rest is kubectl's.
func kubectlArgs(args []string) (daemon.Config, []string, error) {
	var s settings
	ours := &cobra.Command{Use: "kubectl"}
	s.dataDirFlags(ours.Flags())
	n := 0
	for n < len(args) {
		name, _, joined := strings.Cut(args[n], "=")
		if name != "--data-dir" && name != "--config" {
			break
		}
		n++
		if !joined {
			n++
		}
	}
	n = min(n, len(args))
	if err := ours.ParseFlags(args[:n]); err != nil {
		return daemon.Config{}, nil, usageError{err}
	}
	if err := s.load(ours); err != nil {
		return daemon.Config{}, nil, err
	}
	c, err := s.dataConfig()
	return c, args[n:], err
}

func newStatus() *cobra.Command {
	var s settings
	var output string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "What runs here, what is not well and why",
		Args:  exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "" && output != "json" {
				return usageError{fmt.Errorf("output format %q is not known; it is json or nothing", output)}
			}
			if err := s.load(cmd); err != nil {
				return err
			}
			c, err := s.dataConfig()
			if err != nil {
				return err
			}
			status, err := daemon.ReadStatus(cmd.Context(), c)
			if err != nil {
				return err
			}
			if output == "json" {
				return status.WriteJSON(cmd.OutOrStdout())
			}
			return status.WriteText(cmd.OutOrStdout())
		},
	}
	s.dataDirFlags(cmd.Flags())
	cmd.Flags().StringVarP(&output, "output", "o", "", "json")
	return cmd
}
