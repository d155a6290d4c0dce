package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"text/tabwriter"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"hansa.dev/hansa/internal/podstate"
	"hansa.dev/hansa/internal/version"
)

// Status is what runs from a data directory, and what is not well.
type Status struct {
	DataDir    string       `json:"dataDir"`
	Running    bool         `json:"running"`
	PID        int          `json:"pid,omitempty"`
	API        string       `json:"api,omitempty"`
	Version    string       `json:"version"`
	Nodes      []NodeStatus `json:"nodes,omitempty"`
	Pods       PodCounts    `json:"pods"`
	Problems   []Problem    `json:"problems,omitempty"`
	Kubeconfig string       `json:"kubeconfig,omitempty"`
}

// NodeStatus is one node.
type NodeStatus struct {
	Name    string `json:"name"`
	Ready   bool   `json:"ready"`
	Address string `json:"address,omitempty"`
}

// PodCounts counts pods by what they do.
type PodCounts struct {
	Ready     int `json:"ready"`
	NotReady  int `json:"notReady"`
	Pending   int `json:"pending"`
	Succeeded int `json:"succeeded"`
	Failed    int `json:"failed"`
}

// Problem is one thing that is not well, and why.
type Problem struct {
	Object  string `json:"object"`
	Reason  string `json:"reason"`
	Message string `json:"message,omitempty"`
}

// statusTimeout is how long the API may take to answer.
const statusTimeout = 5 * time.Second

// ReadStatus looks at a data directory, and asks its API if it runs.
func ReadStatus(ctx context.Context, c Config) (*Status, error) {
	i := c.instance()
	if err := i.mustExist(); errors.Is(err, fs.ErrPermission) {
		return nil, err
	} else if err != nil {
		return nil, fmt.Errorf("%w: start a cluster with hansa up", err)
	}
	s := &Status{DataDir: c.DataDir, Version: version.GitVersion}
	var used errInUse
	switch err := askLock(i); {
	case err == nil:
		return s, nil
	case !errors.As(err, &used):
		return nil, err
	}
	s.Running, s.PID, s.Kubeconfig = true, used.pid, i.kubeconfig()
	config, err := clientcmd.BuildConfigFromFlags("", i.kubeconfig())
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", i.kubeconfig(), err)
	}
	s.API = config.Host
	if err := s.ask(ctx, config); err != nil {
		s.Problems = append(s.Problems, Problem{Object: "api", Reason: "Unreachable", Message: err.Error()})
	}
	return s, nil
}

// ask reads nodes and pods.
func (s *Status) ask(ctx context.Context, config *rest.Config) error {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	transport, err := rest.TransportFor(config)
	if err != nil {
		return err
	}
	var nodes corev1.NodeList
	if err := getJSON(ctx, transport, config.Host+"/api/v1/nodes", &nodes); err != nil {
		return err
	}
	var pods corev1.PodList
	if err := getJSON(ctx, transport, config.Host+"/api/v1/pods", &pods); err != nil {
		return err
	}
	for i := range nodes.Items {
		s.addNode(&nodes.Items[i])
	}
	for i := range pods.Items {
		s.addPod(&pods.Items[i])
	}
	return nil
}

func getJSON(ctx context.Context, transport http.RoundTripper, url string, into any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

func (s *Status) addNode(n *corev1.Node) {
	status := NodeStatus{Name: n.Name}
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			status.Address = a.Address
		}
	}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			status.Ready = c.Status == corev1.ConditionTrue
		}
		if bad := (c.Type == corev1.NodeReady) == (c.Status != corev1.ConditionTrue); bad {
			s.Problems = append(s.Problems, Problem{Object: "node " + n.Name, Reason: c.Reason, Message: c.Message})
		}
	}
	s.Nodes = append(s.Nodes, status)
}

func (s *Status) addPod(p *corev1.Pod) {
	name := "pod " + p.Namespace + "/" + p.Name
	switch {
	case p.Status.Phase == corev1.PodSucceeded:
		s.Pods.Succeeded++
		return
	case p.Status.Phase == corev1.PodFailed:
		s.Pods.Failed++
		s.Problems = append(s.Problems, Problem{Object: name, Reason: orElse(p.Status.Reason, "Failed"), Message: p.Status.Message})
		return
	case podstate.Ready(p):
		s.Pods.Ready++
		return
	case p.Status.Phase == corev1.PodPending:
		s.Pods.Pending++
	default:
		s.Pods.NotReady++
	}
	problem := Problem{Object: name, Reason: "NotReady"}
	for _, kind := range []corev1.PodConditionType{corev1.PodScheduled, corev1.PodInitialized, corev1.PodReady} {
		if c := podstate.Condition(p, kind); c != nil && c.Status != corev1.ConditionTrue && c.Reason != "" {
			problem.Reason, problem.Message = c.Reason, c.Message
			break
		}
	}
	for _, c := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
		if w := c.State.Waiting; w != nil && w.Message != "" {
			problem.Reason, problem.Message = w.Reason, w.Message
			break
		}
	}
	s.Problems = append(s.Problems, problem)
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// WriteJSON writes the status for programs.
func (s *Status) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(s)
}

// WriteText writes the status for people.
func (s *Status) WriteText(out io.Writer) error {
	if !s.Running {
		_, err := fmt.Fprintf(out, "hansa does not run from %s; hansa up starts it\n", s.DataDir)
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "hansa\t%s, process %d\n", s.Version, s.PID)
	fmt.Fprintf(w, "api\t%s\n", s.API)
	fmt.Fprintf(w, "data\t%s\n", s.DataDir)
	for _, n := range s.Nodes {
		state := "not ready"
		if n.Ready {
			state = "ready"
		}
		fmt.Fprintf(w, "node\t%s %s, %s\n", n.Name, n.Address, state)
	}
	fmt.Fprintf(w, "pods\t%d ready, %d not ready, %d pending, %d succeeded, %d failed\n",
		s.Pods.Ready, s.Pods.NotReady, s.Pods.Pending, s.Pods.Succeeded, s.Pods.Failed)
	if len(s.Problems) == 0 {
		fmt.Fprintf(w, "\nall is well\n")
	} else {
		fmt.Fprintf(w, "\nnot well:\n")
	}
	for _, p := range s.Problems {
		fmt.Fprintf(w, "  %s\t%s\t%s\n", p.Object, p.Reason, p.Message)
	}
	return w.Flush()
}
