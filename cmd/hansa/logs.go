package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"hansa.dev/hansa/daemon"
)

func newLogs() *cobra.Command {
	var s settings
	var o corev1.PodLogOptions
	var since time.Duration
	var tail int64
	var uid, kubeconfig, output string
	cmd := &cobra.Command{
		Use:   "logs [NAMESPACE/POD | NAMESPACE/]",
		Short: "Logs of pods, also of those that are gone",
		Long: `Logs of pods, also of those that are gone.

Nodes keep the logs of pods that were deleted for as long as --keep-logs of
"hansa up" says. Without a pod this lists them.

  hansa logs                       pods that are gone whose logs are kept
  hansa logs shop/                 … of one namespace
  hansa logs shop/web-0            the log of that pod, or of the last one of that name`,
		Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if output != "" && output != "json" {
				return usageError{fmt.Errorf("output format %q is not known; it is json or nothing", output)}
			}
			namespace, pod, ok := strings.Cut(strings.Join(args, ""), "/")
			if len(args) == 1 && (!ok || namespace == "" || strings.Contains(pod, "/")) {
				return usageError{fmt.Errorf("%q is not NAMESPACE/POD; for the pods of a namespace write NAMESPACE/", args[0])}
			}
			if cmd.Flags().Changed("since") {
				if since <= 0 {
					return usageError{fmt.Errorf("--since: %s is no time ago", since)}
				}
				seconds := int64((since + time.Second - 1) / time.Second)
				o.SinceSeconds = &seconds
			}
			if tail >= 0 {
				o.TailLines = &tail
			}
			if err := s.load(cmd); err != nil {
				return err
			}
			c, err := s.dataConfig()
			if err != nil {
				return err
			}
			l, err := daemon.OpenLogs(cmd.Context(), c, kubeconfig)
			if err != nil {
				return err
			}
			if pod != "" {
				return l.Read(cmd.Context(), namespace, pod, uid, &o, cmd.OutOrStdout())
			}
			return listLogs(cmd.Context(), l, namespace, output, cmd.OutOrStdout())
		},
	}
	s.dataDirFlags(cmd.Flags())
	f := cmd.Flags()
	f.StringVar(&kubeconfig, "kubeconfig", "", "who asks, and where (default: the administrator, by the data directory)")
	f.StringVarP(&o.Container, "container", "c", "", "container; needed where there are several")
	f.BoolVarP(&o.Previous, "previous", "p", false, "the run before the last one")
	f.BoolVarP(&o.Follow, "follow", "f", false, "go on with what is still written")
	f.BoolVar(&o.Timestamps, "timestamps", false, "begin each line with its time")
	f.DurationVar(&since, "since", 0, "only what is newer than this")
	f.Int64Var(&tail, "tail", -1, "only that many lines from the end")
	f.StringVar(&uid, "uid", "", "which of several pods that had this name")
	f.StringVarP(&output, "output", "o", "", "json; of the list")
	return cmd
}

func listLogs(ctx context.Context, l *daemon.Logs, namespace, output string, out io.Writer) error {
	list, err := l.List(ctx, namespace)
	if err != nil {
		return err
	}
	if output == "json" {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return enc.Encode(list)
	}
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "NAMESPACE\tPOD\tCONTAINERS\tDELETED\tSIZE\tNODE\tUID")
	for _, g := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", g.Namespace, g.Name, strings.Join(g.Containers, ","),
			g.Deleted.UTC().Format(time.RFC3339), daemon.Size(uint64(g.Bytes)), g.Node, g.UID)
	}
	return w.Flush()
}
