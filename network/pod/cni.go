package pod

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"hansa.dev/hansa/network/internal/nft"
)

// A Request is what the CNI plugin sends: the environment variables and the
// configuration that its runtime gave it (CNI specification, section 3).
type Request struct {
	Command     string          `json:"command"`     // CNI_COMMAND: ADD, DEL, CHECK, STATUS or GC
	ContainerID string          `json:"containerID"` // CNI_CONTAINERID
	Netns       string          `json:"netns"`       // CNI_NETNS
	IfName      string          `json:"ifname"`      // CNI_IFNAME
	Args        string          `json:"args"`        // CNI_ARGS: K=V;K=V
	Config      json.RawMessage `json:"config"`      // standard input
}

// A Response is the answer: at most one of its fields is set.
type Response struct {
	Result *Result `json:"result,omitempty"`
	Error  *Error  `json:"error,omitempty"`
}

// A Result is a CNI result of version 1.0.0 (CNI specification, section 5).
type Result struct {
	CNIVersion string      `json:"cniVersion"`
	Interfaces []Interface `json:"interfaces"`
	IPs        []IP        `json:"ips"`
	Routes     []Route     `json:"routes"`
	DNS        struct{}    `json:"dns"` // the agent writes pods' resolv.conf
}

// An Interface is a link in a Result; Sandbox is empty for the host's end.
type Interface struct {
	Name    string `json:"name"`
	MAC     string `json:"mac"`
	Sandbox string `json:"sandbox,omitempty"`
}

// An IP is an address in a Result; Interface is an index into Interfaces.
type IP struct {
	Interface int          `json:"interface"`
	Address   netip.Prefix `json:"address"`
	Gateway   netip.Addr   `json:"gateway"`
}

// A Route is a route in a Result.
type Route struct {
	Dst netip.Prefix `json:"dst"`
	GW  netip.Addr   `json:"gw"`
}

// An Error is a CNI error (CNI specification, section 5, "Error").
type Error struct {
	Code    uint   `json:"code"`
	Msg     string `json:"msg"`
	Details string `json:"details,omitempty"`
}

// Error returns the message with its details.
func (e *Error) Error() string { return strings.TrimSuffix(e.Msg+": "+e.Details, ": ") }

// Error codes of the CNI specification, and our own from 100.
const (
	codeVersion    = 1
	codeEnv        = 4
	codeDecode     = 6
	codeConfig     = 7
	codeTryAgain   = 11
	codeFailed     = 100
	supportVersion = "1.0.0"
)

// netConf is what of a plugin's configuration matters here.
type netConf struct {
	CNIVersion    string `json:"cniVersion"`
	RuntimeConfig struct {
		PortMappings []struct {
			HostPort      int    `json:"hostPort"`
			ContainerPort int    `json:"containerPort"`
			Protocol      string `json:"protocol"`
			HostIP        string `json:"hostIP"`
		} `json:"portMappings"`
	} `json:"runtimeConfig"`
	Valid []struct {
		ContainerID string `json:"containerID"`
		IfName      string `json:"ifname"`
	} `json:"cni.dev/valid-attachments"`
}

// An attachment is a valid request to connect a container: the record it will
// have, without address.
type attachment struct{ Record }

func fail(code uint, msg string, format string, args ...any) *Error {
	return &Error{Code: code, Msg: msg, Details: fmt.Sprintf(format, args...)}
}

// handle answers one request.
func (m *Manager) handle(ctx context.Context, q *Request) Response {
	r, err := m.do(ctx, q)
	if err == nil {
		return Response{Result: r}
	}
	var e *Error
	var busy *busyError
	switch {
	case errors.As(err, &e):
	case errors.As(err, &busy):
		e = fail(codeTryAgain, "try again later", "%v", err)
	default:
		e = fail(codeFailed, "cannot "+q.Command+" pod network", "%v", err)
	}
	return Response{Error: e}
}

func (m *Manager) do(ctx context.Context, q *Request) (*Result, error) {
	var conf netConf
	if len(q.Config) > 0 {
		if err := json.Unmarshal(q.Config, &conf); err != nil {
			return nil, fail(codeDecode, "cannot decode network configuration", "%v", err)
		}
	}
	if conf.CNIVersion != "" && conf.CNIVersion != supportVersion && conf.CNIVersion != "1.1.0" {
		return nil, fail(codeVersion, "incompatible CNI version", "configuration is %s, this plugin speaks %s", conf.CNIVersion, supportVersion)
	}
	switch q.Command {
	case "STATUS":
		return nil, nil
	case "GC":
		valid := map[string]bool{}
		for _, v := range conf.Valid {
			valid[v.ContainerID] = true
		}
		return nil, m.collect(valid)
	}
	if !containerID.MatchString(q.ContainerID) {
		return nil, fail(codeEnv, "invalid environment", "CNI_CONTAINERID %q is not a container's ID", q.ContainerID)
	}
	switch q.Command {
	case "ADD":
		a, err := parseAttachment(q, &conf)
		if err != nil {
			return nil, err
		}
		r, err := m.add(ctx, a)
		if err != nil {
			return nil, err
		}
		return resultOf(r, conf.CNIVersion), nil
	case "DEL":
		return nil, m.remove(q.ContainerID)
	case "CHECK":
		return nil, m.check(q.ContainerID, q.Netns)
	}
	return nil, fail(codeEnv, "invalid environment", "CNI_COMMAND %q is not known", q.Command)
}

func parseAttachment(q *Request, conf *netConf) (attachment, error) {
	var a attachment
	if !validIfName(q.IfName) {
		return a, fail(codeEnv, "invalid environment", "CNI_IFNAME %q is not a link's name", q.IfName)
	}
	if err := checkNetns(q.Netns); err != nil {
		return a, fail(codeEnv, "invalid environment", "CNI_NETNS: %v", err)
	}
	a.Record = Record{ContainerID: q.ContainerID, Netns: q.Netns, IfName: q.IfName}
	for _, kv := range strings.Split(q.Args, ";") {
		switch k, v, _ := strings.Cut(kv, "="); k {
		case "K8S_POD_NAMESPACE":
			a.Namespace = v
		case "K8S_POD_NAME":
			a.Name = v
		case "K8S_POD_UID":
			a.UID = v
		}
	}
	for _, p := range conf.RuntimeConfig.PortMappings {
		if p.HostPort == 0 {
			continue // a container port that is not open on the host
		}
		if p.HostPort < 0 || p.HostPort > 65535 || p.ContainerPort < 1 || p.ContainerPort > 65535 {
			return a, fail(codeConfig, "invalid port mapping", "%d to %d: want 1 to 65535", p.HostPort, p.ContainerPort)
		}
		proto, err := nft.ParseProto(p.Protocol)
		if err != nil {
			return a, fail(codeConfig, "invalid port mapping", "%v", err)
		}
		hp := HostPort{HostPort: uint16(p.HostPort), ContainerPort: uint16(p.ContainerPort), Protocol: proto}
		if p.HostIP != "" {
			ip, err := netip.ParseAddr(p.HostIP)
			if err != nil {
				return a, fail(codeConfig, "invalid port mapping", "host IP: %v", err)
			}
			hp.HostIP = ip.Unmap()
			if ip.Is6() && !ip.Is4In6() && !ip.IsUnspecified() {
				return a, fail(codeConfig, "invalid port mapping", "host IP %s: pods here have IPv4 addresses only", ip)
			}
		}
		a.HostPorts = append(a.HostPorts, hp)
	}
	return a, nil
}

// resultOf is the result of ADD.
func resultOf(r *Record, version string) *Result {
	if version == "" {
		version = supportVersion
	}
	res := &Result{
		CNIVersion: version,
		Interfaces: []Interface{
			{Name: r.Link, MAC: hostMAC.String()},
			{Name: r.IfName, MAC: r.MAC, Sandbox: r.Netns},
		},
		Routes: []Route{{Dst: netip.PrefixFrom(netip.IPv4Unspecified(), 0), GW: gateway}},
	}
	for _, ip := range r.IPs {
		res.IPs = append(res.IPs, IP{Interface: 1, Address: single(ip), Gateway: gateway})
	}
	return res
}
