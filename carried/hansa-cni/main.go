// Command hansa-cni is the CNI plugin that containerd runs for each sandbox.
//
// It forwards: one JSON request to the agent's unix socket, one JSON answer
// back. Addresses, routes and policy are the agent's work, which answers ADD
// when all of it is programmed. Only DEL also works alone, from the file that
// the agent wrote for the sandbox, so that pods can be stopped while no agent
// runs.
//
// The network configuration names both places:
//
//	{"cniVersion": "1.0.0", "name": "hansa", "type": "hansa-cni",
//	 "socket": "/run/hansa/ID/cni.sock", "dir": "DATA_DIR/cni"}
//
// Written against the CNI specification 1.1.0, sections 2 (execution protocol)
// and 5 (result types).
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
)

// Error codes of the CNI specification, section 5 "Error".
const (
	codeUnsupportedVersion = 1
	codeInvalidEnvironment = 4
	codeIO                 = 5
	codeDecode             = 6
	codeInvalidConfig      = 7
	codeTryAgain           = 11
)

// versions whose form of results the agent writes, oldest first.
var versions = []string{"1.0.0", "1.1.0"}

// request is what the agent is asked, as one JSON value on a fresh connection.
type request struct {
	Command     string          `json:"command"`
	ContainerID string          `json:"containerID"`
	Netns       string          `json:"netns"`
	Ifname      string          `json:"ifname"`
	Args        string          `json:"args"`   // CNI_ARGS as it is: "K=V;K=V"
	Config      json.RawMessage `json:"config"` // the network configuration from standard input
}

// answer is what the agent says, as one JSON value: the result to print as it
// is, or an error.
type answer struct {
	Result json.RawMessage `json:"result"`
	Error  *cniError       `json:"error"`
}

// cniError is an error as CNI wants it on standard output.
type cniError struct {
	Code    int    `json:"code"`
	Msg     string `json:"msg"`
	Details string `json:"details,omitempty"`
}

func (e *cniError) Error() string { return e.Msg + ": " + e.Details }

// config is the part of the network configuration that is ours to read.
type config struct {
	CNIVersion string `json:"cniVersion"`
	Socket     string `json:"socket"`
	Dir        string `json:"dir"`
}

// record is the file DIR/CONTAINERID.json: what the agent made for a sandbox,
// written before it is made. While the file is there its addresses are taken.
type record struct {
	Link string   `json:"link"` // the host's end of the pod's link
	IPs  []string `json:"ips"`
}

func main() {
	stdin, err := io.ReadAll(os.Stdin)
	var out []byte
	if err != nil {
		err = &cniError{Code: codeIO, Msg: "read network configuration", Details: err.Error()}
	} else {
		out, err = run(os.Getenv, stdin, deleteLink)
	}
	if err != nil {
		os.Stdout.Write(errorObject(stdin, err))
		os.Exit(1)
	}
	os.Stdout.Write(out)
}

// errorObject renders err as the specification's error object, in the version
// that the request was written in.
func errorObject(stdin []byte, err error) []byte {
	var e *cniError
	if !errors.As(err, &e) {
		e = &cniError{Code: codeIO, Msg: err.Error()}
	}
	c := config{CNIVersion: versions[len(versions)-1]}
	_ = json.Unmarshal(stdin, &c) // a configuration that cannot be read is itself the error
	data, _ := json.Marshal(struct {
		CNIVersion string `json:"cniVersion"`
		*cniError
	}{c.CNIVersion, e})
	return data
}

// run answers one invocation: it returns what goes to standard output, or an
// error. getenv reads the CNI_ variables; unlink removes a link by its name and
// takes one that is not there as removed.
func run(getenv func(string) string, stdin []byte, unlink func(name string) error) ([]byte, error) {
	command := getenv("CNI_COMMAND")
	if command == "VERSION" {
		return json.Marshal(struct {
			CNIVersion string   `json:"cniVersion"`
			Supported  []string `json:"supportedVersions"`
		}{versions[len(versions)-1], versions})
	}
	req := request{
		Command:     command,
		ContainerID: getenv("CNI_CONTAINERID"),
		Netns:       getenv("CNI_NETNS"),
		Ifname:      getenv("CNI_IFNAME"),
		Args:        getenv("CNI_ARGS"),
		Config:      stdin,
	}
	if err := req.check(); err != nil {
		return nil, err
	}
	var c config
	if err := json.Unmarshal(stdin, &c); err != nil {
		return nil, &cniError{codeDecode, "decode network configuration", err.Error()}
	}
	if !slices.Contains(versions, c.CNIVersion) {
		return nil, &cniError{codeUnsupportedVersion, "CNI version is not supported", fmt.Sprintf("%q is none of %s", c.CNIVersion, strings.Join(versions, ", "))}
	}
	if c.Socket == "" || c.Dir == "" {
		return nil, &cniError{codeInvalidConfig, "the network configuration is incomplete", `"socket" and "dir" must be set`}
	}
	result, err := forward(c.Socket, req)
	if errors.Is(err, errNoAgent) {
		if command == "DEL" {
			return nil, deleteLocally(c.Dir, req.ContainerID, unlink)
		}
		return nil, &cniError{codeTryAgain, "the hansa agent does not answer", err.Error()}
	}
	return result, err
}

// containerID is the specification's form of an ID. It also keeps an ID from
// leading out of the folder of records.
var containerID = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$`)

// check refuses a request that lacks what its command needs (specification,
// section 2 "Parameters").
func (r request) check() error {
	var missing []string
	need := func(name, value string) {
		if value == "" {
			missing = append(missing, name)
		}
	}
	switch r.Command {
	case "ADD", "CHECK":
		need("CNI_CONTAINERID", r.ContainerID)
		need("CNI_NETNS", r.Netns)
		need("CNI_IFNAME", r.Ifname)
	case "DEL":
		need("CNI_CONTAINERID", r.ContainerID)
		need("CNI_IFNAME", r.Ifname)
	case "GC", "STATUS":
	default:
		return &cniError{codeInvalidEnvironment, "CNI_COMMAND is wrong", fmt.Sprintf("%q is none of ADD, CHECK, DEL, GC, STATUS, VERSION", r.Command)}
	}
	if len(missing) > 0 {
		return &cniError{codeInvalidEnvironment, "environment is incomplete", "missing: " + strings.Join(missing, ", ")}
	}
	if r.ContainerID != "" && !containerID.MatchString(r.ContainerID) {
		return &cniError{codeInvalidEnvironment, "CNI_CONTAINERID is wrong", fmt.Sprintf("%q", r.ContainerID)}
	}
	return nil
}

// errNoAgent says that nobody took the request and answered it.
var errNoAgent = errors.New("no agent")

// forward asks the agent. It waits without a limit of its own: the runtime
// ends this process when the sandbox's deadline has passed, and an agent that
// dies closes the connection.
func forward(socket string, req request) (json.RawMessage, error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoAgent, err)
	}
	defer conn.Close()
	if err := json.NewEncoder(conn).Encode(req); err != nil {
		return nil, fmt.Errorf("%w: %w", errNoAgent, err)
	}
	var a answer
	switch err := json.NewDecoder(conn).Decode(&a); {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return nil, fmt.Errorf("%w: it went away before it answered", errNoAgent)
	case err != nil:
		return nil, &cniError{codeDecode, "decode the agent's answer", err.Error()}
	case a.Error != nil:
		return nil, a.Error
	}
	if string(a.Result) == "null" {
		return nil, nil
	}
	return a.Result, nil
}

// deleteLocally does what DEL must do with no agent: the link goes, with it
// the routes and the pod's end, and then the record, which frees the addresses.
// The order keeps an address from being given away while a link still has it.
// What is missing is taken as deleted before (specification, "DEL").
func deleteLocally(dir, id string, unlink func(name string) error) error {
	path := filepath.Join(dir, id+".json")
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return &cniError{codeIO, "read the sandbox's record", err.Error()}
	}
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return &cniError{codeDecode, "decode the sandbox's record " + path, err.Error()}
	}
	if r.Link != "" {
		if err := unlink(r.Link); err != nil {
			return &cniError{codeIO, "delete link " + r.Link, err.Error()}
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return &cniError{codeIO, "delete the sandbox's record", err.Error()}
	}
	return nil
}
