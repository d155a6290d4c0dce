package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// env is a complete environment for command; change overrides parts of it.
func env(command string, change map[string]string) func(string) string {
	vars := map[string]string{
		"CNI_COMMAND": command, "CNI_CONTAINERID": "box1", "CNI_NETNS": "/run/netns/x",
		"CNI_IFNAME": "eth0", "CNI_ARGS": "K8S_POD_NAMESPACE=a;K8S_POD_NAME=b",
	}
	maps.Copy(vars, change)
	return func(key string) string { return vars[key] }
}

// agent listens on a socket in dir and answers one request with reply, raw. It
// returns the network configuration and where the request arrives.
func agent(t *testing.T, dir, reply string) ([]byte, <-chan request) {
	t.Helper()
	socket := filepath.Join(dir, "cni.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	got := make(chan request, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return // the test is over
		}
		defer conn.Close()
		var r request
		if err := json.NewDecoder(conn).Decode(&r); err == nil {
			got <- r
		}
		conn.Write([]byte(reply))
	}()
	return conf(socket, dir), got
}

func conf(socket, dir string) []byte {
	return fmt.Appendf(nil, `{"cniVersion":"1.0.0","name":"hansa","type":"hansa-cni","socket":%q,"dir":%q}`, socket, dir)
}

func noLinks(t *testing.T) func(string) error {
	return func(name string) error {
		t.Errorf("deletes link %s", name)
		return nil
	}
}

func TestForwards(t *testing.T) {
	for _, command := range []string{"ADD", "CHECK", "DEL", "GC", "STATUS"} {
		t.Run(command, func(t *testing.T) {
			stdin, got := agent(t, t.TempDir(), `{"result":{"cniVersion":"1.0.0","ips":[]}}`)
			out, err := run(env(command, nil), stdin, noLinks(t))
			if err != nil {
				t.Fatal(err)
			}
			if want := `{"cniVersion":"1.0.0","ips":[]}`; string(out) != want {
				t.Errorf("prints %s, want %s", out, want)
			}
			r := <-got
			if r.Command != command || r.ContainerID != "box1" || r.Netns != "/run/netns/x" || r.Ifname != "eth0" ||
				r.Args != "K8S_POD_NAMESPACE=a;K8S_POD_NAME=b" || string(r.Config) != string(stdin) {
				t.Errorf("the agent was asked %+v", r)
			}
		})
	}
}

func TestEmptyResult(t *testing.T) {
	for _, reply := range []string{`{}`, `{"result":null}`, `{"result":null,"error":null}`} {
		stdin, _ := agent(t, t.TempDir(), reply)
		if out, err := run(env("DEL", nil), stdin, noLinks(t)); err != nil || len(out) != 0 {
			t.Errorf("answer %s: prints %q, error %v; want nothing", reply, out, err)
		}
	}
}

func TestAgentRefuses(t *testing.T) {
	for _, command := range []string{"ADD", "DEL"} {
		stdin, _ := agent(t, t.TempDir(), `{"error":{"code":100,"msg":"no address is free","details":"10.42.0.0/24"}}`)
		_, err := run(env(command, nil), stdin, noLinks(t))
		want := `{"cniVersion":"1.0.0","code":100,"msg":"no address is free","details":"10.42.0.0/24"}`
		if got := errorObject(stdin, err); string(got) != want {
			t.Errorf("%s prints %s, want %s", command, got, want)
		}
	}
}

// CNI 1.1.0 section 5: code 11, the runtime should try again later.
func TestAddWithoutAgent(t *testing.T) {
	dir := t.TempDir()
	gone, _ := agent(t, dir, "") // closes the connection without an answer
	for name, stdin := range map[string][]byte{"no socket": conf(dir+"/absent", dir), "no answer": gone} {
		_, err := run(env("ADD", nil), stdin, noLinks(t))
		var e *cniError
		if !errors.As(err, &e) || e.Code != codeTryAgain {
			t.Errorf("%s: %v, want code %d", name, err, codeTryAgain)
		}
	}
}

func TestDelWithoutAgent(t *testing.T) {
	for _, c := range []struct {
		name, record string
		wantLinks    []string
	}{
		{"recorded", `{"link":"hansa0a1b2c3d","ips":["10.42.0.7"]}`, []string{"hansa0a1b2c3d"}},
		{"address but no link yet", `{"ips":["10.42.0.7"]}`, nil},
		{"nothing recorded", "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "box1.json")
			if c.record != "" {
				if err := os.WriteFile(path, []byte(c.record), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			other := filepath.Join(dir, "box2.json")
			if err := os.WriteFile(other, []byte(`{"link":"other"}`), 0o600); err != nil {
				t.Fatal(err)
			}
			var links []string
			out, err := run(env("DEL", nil), conf(dir+"/absent", dir), func(name string) error {
				links = append(links, name)
				return nil
			})
			if err != nil || len(out) != 0 {
				t.Errorf("prints %q, error %v", out, err)
			}
			if !slices.Equal(links, c.wantLinks) {
				t.Errorf("deletes links %v, want %v", links, c.wantLinks)
			}
			if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the record is still there: %v", err)
			}
			if _, err := os.Stat(other); err != nil {
				t.Errorf("another sandbox's record: %v", err)
			}
		})
	}
}

// The address stays taken until the link is gone.
func TestDelKeepsRecordWhenLinkStays(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "box1.json")
	if err := os.WriteFile(path, []byte(`{"link":"hansa1"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := run(env("DEL", nil), conf(dir+"/absent", dir), func(string) error { return errors.New("busy") })
	if err == nil || !strings.Contains(err.Error(), "delete link hansa1: busy") {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the record is gone: %v", err)
	}
}

func TestRefusedRequests(t *testing.T) {
	good := conf("/nowhere", "/nowhere")
	for _, c := range []struct {
		name, command string
		change        map[string]string
		stdin         []byte
		code          int
		want          string
	}{
		{"unknown command", "MEND", nil, good, codeInvalidEnvironment, `"MEND" is none of`},
		{"no container", "ADD", map[string]string{"CNI_CONTAINERID": ""}, good, codeInvalidEnvironment, "missing: CNI_CONTAINERID"},
		{"nothing given", "ADD", map[string]string{"CNI_NETNS": "", "CNI_IFNAME": ""}, good, codeInvalidEnvironment, "missing: CNI_NETNS, CNI_IFNAME"},
		{"path as container", "DEL", map[string]string{"CNI_CONTAINERID": "../../etc/passwd"}, good, codeInvalidEnvironment, "CNI_CONTAINERID is wrong"},
		{"no JSON", "ADD", nil, []byte("{"), codeDecode, "decode network configuration"},
		{"old version", "ADD", nil, []byte(`{"cniVersion":"0.3.1","socket":"/x","dir":"/x"}`), codeUnsupportedVersion, `"0.3.1" is none of 1.0.0, 1.1.0`},
		{"no socket", "ADD", nil, []byte(`{"cniVersion":"1.0.0","dir":"/x"}`), codeInvalidConfig, `"socket" and "dir" must be set`},
		{"no dir", "DEL", nil, []byte(`{"cniVersion":"1.0.0","socket":"/x"}`), codeInvalidConfig, `"socket" and "dir" must be set`},
	} {
		_, err := run(env(c.command, c.change), c.stdin, noLinks(t))
		var e *cniError
		if !errors.As(err, &e) || e.Code != c.code || !strings.Contains(e.Error(), c.want) {
			t.Errorf("%s: %v, want code %d and %q", c.name, err, c.code, c.want)
		}
	}
}

func TestVersion(t *testing.T) {
	out, err := run(env("VERSION", map[string]string{"CNI_CONTAINERID": ""}), nil, noLinks(t))
	want := `{"cniVersion":"1.1.0","supportedVersions":["1.0.0","1.1.0"]}`
	if err != nil || string(out) != want {
		t.Errorf("prints %s, error %v; want %s", out, err, want)
	}
}

// On the real kernel; it needs root.
func TestDeleteLink(t *testing.T) {
	const host, peer = "hansacnitesta", "hansacnitestb"
	if out, err := exec.Command("ip", "link", "add", host, "type", "veth", "peer", "name", peer).CombinedOutput(); err != nil {
		t.Fatalf("make a link: %v %s", err, out)
	}
	t.Cleanup(func() { exec.Command("ip", "link", "delete", host).Run() }) // fails when the test passed
	if err := deleteLink(host); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{host, peer} {
		if _, err := net.InterfaceByName(name); err == nil {
			t.Errorf("%s is still there", name)
		}
	}
	if err := deleteLink(host); err != nil {
		t.Errorf("a link that is not there: %v", err)
	}
	if err := deleteLink("lo"); err == nil {
		t.Error("deleting lo, which the kernel refuses, gave no error")
	}
	if err := deleteLink("sixteen-letters-"); err == nil {
		t.Error("a name of 16 letters was taken")
	}
}
