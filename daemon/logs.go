package daemon

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"hansa.dev/hansa/agent/logs"
	"hansa.dev/hansa/agent/server"
)

// Logs reads the logs of pods, those that are gone too, from the nodes' own
// APIs. These ask for what the API server asks for: get and list on pods/log of
// the namespace.
type Logs struct {
	transport http.RoundTripper
	nodes     []NodeStatus
}

// GoneLogs are the logs of a pod that is gone, and the node that keeps them.
type GoneLogs struct {
	Node string `json:"node"`
	logs.Gone
}

// OpenLogs finds the nodes of a cluster, by kubeconfig, or by that of the data
// directory when it is empty.
func OpenLogs(ctx context.Context, c Config, kubeconfig string) (*Logs, error) {
	if kubeconfig == "" {
		kubeconfig = c.instance().kubeconfig()
	}
	switch _, err := os.Stat(kubeconfig); {
	case errors.Is(err, fs.ErrPermission):
		return nil, forRoot{c.DataDir}
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("there is no %s: start a cluster with hansa up, or name another with --data-dir or --kubeconfig", kubeconfig)
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", kubeconfig, err)
	}
	transport, err := rest.TransportFor(config)
	if err != nil {
		return nil, err
	}
	asking, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	var list corev1.NodeList
	if err := getJSON(asking, transport, config.Host+"/api/v1/nodes", &list); err != nil {
		return nil, fmt.Errorf("find the cluster's nodes: %w", err)
	}
	l := &Logs{transport: transport}
	for i := range list.Items {
		var s Status
		s.addNode(&list.Items[i])
		l.nodes = append(l.nodes, s.Nodes...)
	}
	return l, nil
}

// List are the pods that are gone whose logs are kept, of one namespace or of
// all (""), the newest first.
func (l *Logs) List(ctx context.Context, namespace string) ([]GoneLogs, error) {
	out := []GoneLogs{}
	for _, n := range l.nodes {
		body, err := l.get(ctx, n, namespace, nil)
		if err != nil {
			return nil, err
		}
		var gone []logs.Gone
		err = json.NewDecoder(body).Decode(&gone)
		body.Close()
		if err != nil {
			return nil, fmt.Errorf("read the list of node %s: %w", n.Name, err)
		}
		for _, g := range gone {
			out = append(out, GoneLogs{n.Name, g})
		}
	}
	slices.SortStableFunc(out, func(a, b GoneLogs) int {
		return cmp.Or(b.Deleted.Compare(a.Deleted), strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name))
	})
	return out, nil
}

// Read copies a log to out. uid may be empty.
func (l *Logs) Read(ctx context.Context, namespace, pod, uid string, o *corev1.PodLogOptions, out io.Writer) error {
	q := url.Values{}
	set := func(name, value string) {
		if value != "" && value != "false" {
			q.Set(name, value)
		}
	}
	set("container", o.Container)
	set("uid", uid)
	set("follow", strconv.FormatBool(o.Follow))
	set("previous", strconv.FormatBool(o.Previous))
	set("timestamps", strconv.FormatBool(o.Timestamps))
	if o.SinceSeconds != nil {
		set("sinceSeconds", strconv.FormatInt(*o.SinceSeconds, 10))
	}
	if o.TailLines != nil {
		set("tailLines", strconv.FormatInt(*o.TailLines, 10))
	}
	err := errors.New("the cluster has no nodes")
	for _, n := range l.nodes {
		var body io.ReadCloser
		body, err = l.get(ctx, n, namespace+"/"+pod, q)
		var missing notThere
		if errors.As(err, &missing) {
			continue // on the next, perhaps
		}
		if err != nil {
			return err
		}
		_, err = io.Copy(out, body)
		body.Close()
		return err
	}
	return err
}

// notThere is a node's word that it knows no such pod.
type notThere struct{ error }

func (l *Logs) get(ctx context.Context, n NodeStatus, path string, q url.Values) (io.ReadCloser, error) {
	at := url.URL{Scheme: "https", Host: net.JoinHostPort(n.Address, strconv.Itoa(nodePort)), Path: server.LogsPath + path, RawQuery: q.Encode()}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := l.transport.RoundTrip(r)
	if err != nil {
		return nil, fmt.Errorf("ask node %s: %w", n.Name, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if err != nil {
		return nil, fmt.Errorf("ask node %s: %w", n.Name, err)
	}
	err = errors.New(strings.TrimSpace(string(said)))
	if resp.StatusCode == http.StatusNotFound {
		return nil, notThere{err}
	}
	return nil, err
}
