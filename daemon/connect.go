package daemon

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"hansa.dev/hansa/api"
	apihttp "hansa.dev/hansa/apiserver/http"
	"hansa.dev/hansa/apiserver/request"
	"hansa.dev/hansa/store"
)

// proxies serve the subresources that lead to nodes, pods and services.
type proxies struct {
	view                          *store.View
	pods, nodes, services, slices *api.Resource
	node                          http.RoundTripper // to the nodes' own API
	plain, secure                 http.RoundTripper // to pods
}

// connectors are the subresources that take the connection over.
func connectors(p *controlPlane) map[string]apihttp.Connector {
	x := newProxies(p)
	return map[string]apihttp.Connector{
		"pods/log":         apihttp.ConnectorFunc(x.log),
		"pods/exec":        apihttp.ConnectorFunc(x.exec),
		"pods/attach":      apihttp.ConnectorFunc(x.attach),
		"pods/portforward": apihttp.ConnectorFunc(x.portForward),
		"pods/proxy":       apihttp.ConnectorFunc(x.pod),
		"services/proxy":   apihttp.ConnectorFunc(x.service),
		"nodes/proxy":      apihttp.ConnectorFunc(x.nodeProxy),
	}
}

func newProxies(p *controlPlane) *proxies {
	toNodes := p.keys.nodes.Clone()
	toNodes.NextProtos = []string{"http/1.1"} // exec and the like upgrade
	return &proxies{
		view: p.store.View(),
		pods: p.registry.Must("", "pods"), nodes: p.registry.Must("", "nodes"), services: p.registry.Must("", "services"),
		slices: p.registry.Must("discovery.k8s.io", "endpointslices"),
		node:   &http.Transport{TLSClientConfig: toNodes, MaxIdleConnsPerHost: 8},
		plain:  &http.Transport{MaxIdleConnsPerHost: 8},
		secure: &http.Transport{TLSClientConfig: insecure(), MaxIdleConnsPerHost: 8},
	}
}

// nodeURL is where a node's API is.
func (x *proxies) nodeURL(name string) (*url.URL, error) {
	n, ok := x.view.Get(x.nodes, api.Key{Name: name}).(*corev1.Node)
	if !ok {
		return nil, apierrors.NewNotFound(x.nodes.GroupResource(), name)
	}
	port := n.Status.DaemonEndpoints.KubeletEndpoint.Port
	if port == 0 {
		port = 10250
	}
	for _, kind := range []corev1.NodeAddressType{corev1.NodeInternalIP, corev1.NodeExternalIP, corev1.NodeHostName} {
		for _, a := range n.Status.Addresses {
			if a.Type == kind {
				return &url.URL{Scheme: "https", Host: net.JoinHostPort(a.Address, strconv.Itoa(int(port)))}, nil
			}
		}
	}
	return nil, apierrors.NewServiceUnavailable(fmt.Sprintf("node %s has no address", name))
}

func (x *proxies) podOf(info *request.Info) (*corev1.Pod, error) {
	p, ok := x.view.Get(x.pods, api.Key{Namespace: info.Namespace, Name: info.Name}).(*corev1.Pod)
	if !ok {
		return nil, apierrors.NewNotFound(x.pods.GroupResource(), info.Name)
	}
	return p, nil
}

// containerOf finds the container that a request means: the only one there is,
// when it names none.
func containerOf(p *corev1.Pod, name string) (string, error) {
	var names, inits []string
	for _, c := range p.Spec.Containers {
		names = append(names, c.Name)
	}
	for _, c := range p.Spec.InitContainers {
		inits = append(inits, c.Name)
	}
	all := append(append([]string(nil), names...), inits...)
	for _, c := range p.Spec.EphemeralContainers {
		all = append(all, c.Name)
	}
	if name == "" {
		if len(names) == 1 {
			return names[0], nil
		}
		text := fmt.Sprintf("a container name must be specified for pod %s, choose one of: [%s]", p.Name, strings.Join(names, " "))
		if len(inits) > 0 {
			text += fmt.Sprintf(" or one of the init containers: [%s]", strings.Join(inits, " "))
		}
		return "", apierrors.NewBadRequest(text)
	}
	for _, n := range all {
		if n == name {
			return name, nil
		}
	}
	return "", apierrors.NewBadRequest(fmt.Sprintf("container %s is not valid for pod %s", name, p.Name))
}

// toNode passes a request about a pod on to the pod's node.
func (x *proxies) toNode(w http.ResponseWriter, r *http.Request, p *corev1.Pod, query url.Values, path ...string) error {
	if p.Spec.NodeName == "" {
		return apierrors.NewBadRequest(fmt.Sprintf("pod %s does not have a host assigned", p.Name))
	}
	u, err := x.nodeURL(p.Spec.NodeName)
	if err != nil {
		return err
	}
	u.Path = "/" + strings.Join(path, "/")
	u.RawQuery = query.Encode()
	return apihttp.Forward(w, r, u, x.node)
}

func (x *proxies) log(w http.ResponseWriter, r *http.Request, c *apihttp.Connection) error {
	p, err := x.podOf(c.Info)
	if err != nil {
		return err
	}
	container, err := containerOf(p, c.Options.(*corev1.PodLogOptions).Container)
	if err != nil {
		return err
	}
	if p.Spec.NodeName == "" {
		return nil // no node, no log yet
	}
	u, err := x.nodeURL(p.Spec.NodeName)
	if err != nil {
		return err
	}
	query := r.URL.Query()
	query.Del("container")
	u.Path, u.RawQuery = "/containerLogs/"+p.Namespace+"/"+p.Name+"/"+container, query.Encode()
	return apihttp.ForwardStream(w, r, u, refusing{x.node, p.Name})
}

// refusing makes an API status of what a node refuses, for clients that read
// nothing else.
type refusing struct {
	http.RoundTripper
	pod string
}

// maxRefusal bounds the text of a refusal.
const maxRefusal = 64 << 10

func (t refusing) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.RoundTripper.RoundTrip(r)
	if err != nil || resp.StatusCode < http.StatusBadRequest {
		return resp, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
	if err != nil {
		return nil, err
	}
	message := strings.TrimSpace(string(text))
	switch resp.StatusCode {
	case http.StatusBadRequest:
		return nil, apierrors.NewBadRequest(message)
	case http.StatusInternalServerError:
		return nil, apierrors.NewInternalError(errors.New(message))
	}
	return nil, apierrors.NewGenericServerResponse(resp.StatusCode, r.Method, corev1.Resource("pods/log"), t.pod, message, 0, false)
}

func finished(p *corev1.Pod) error {
	if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		return apierrors.NewBadRequest(fmt.Sprintf("cannot exec into a container in a completed pod; current phase is %s", p.Status.Phase))
	}
	return nil
}

// streams are the query parameters by which a node is told what to connect.
func streams(in, out, err, tty bool) url.Values {
	query := url.Values{}
	for name, on := range map[string]bool{"input": in, "output": out, "error": err, "tty": tty} {
		if on {
			query.Set(name, "1")
		}
	}
	return query
}

func (x *proxies) exec(w http.ResponseWriter, r *http.Request, c *apihttp.Connection) error {
	p, err := x.podOf(c.Info)
	if err != nil {
		return err
	}
	o := c.Options.(*corev1.PodExecOptions)
	container, err := containerOf(p, o.Container)
	if err != nil {
		return err
	}
	if err := finished(p); err != nil {
		return err
	}
	query := streams(o.Stdin, o.Stdout, o.Stderr, o.TTY)
	query["command"] = o.Command
	return x.toNode(w, r, p, query, "exec", p.Namespace, p.Name, container)
}

func (x *proxies) attach(w http.ResponseWriter, r *http.Request, c *apihttp.Connection) error {
	p, err := x.podOf(c.Info)
	if err != nil {
		return err
	}
	o := c.Options.(*corev1.PodAttachOptions)
	container, err := containerOf(p, o.Container)
	if err != nil {
		return err
	}
	return x.toNode(w, r, p, streams(o.Stdin, o.Stdout, o.Stderr, o.TTY), "attach", p.Namespace, p.Name, container)
}

func (x *proxies) portForward(w http.ResponseWriter, r *http.Request, c *apihttp.Connection) error {
	p, err := x.podOf(c.Info)
	if err != nil {
		return err
	}
	query := url.Values{}
	for _, port := range c.Options.(*corev1.PodPortForwardOptions).Ports {
		query.Add("port", strconv.Itoa(int(port)))
	}
	return x.toNode(w, r, p, query, "portForward", p.Namespace, p.Name)
}
