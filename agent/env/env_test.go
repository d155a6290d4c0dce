package env_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/agent/downward"
	"hansa.dev/hansa/agent/env"
)

func sources() env.Sources {
	return env.Sources{
		ConfigMap: func(namespace, name string) *v1.ConfigMap {
			if namespace+"/"+name == "ns/cm" {
				return &v1.ConfigMap{Data: map[string]string{"KEY": "from cm", "other": "x"}}
			}
			return nil
		},
		Secret: func(namespace, name string) *v1.Secret {
			if namespace+"/"+name == "ns/s" {
				return &v1.Secret{Data: map[string][]byte{"KEY": []byte("from secret"), "PASS": []byte("pw")}}
			}
			return nil
		},
		Addresses:   downward.Addresses{Pod: []string{"10.42.0.5", "fd00::5"}, Host: []string{"192.0.2.1"}},
		Allocatable: v1.ResourceList{v1.ResourceCPU: resource.MustParse("4")},
		Services: []*v1.Service{{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "my-db"},
			Spec: v1.ServiceSpec{ClusterIP: "10.43.0.7", Ports: []v1.ServicePort{
				{Name: "sql-main", Port: 5432}, {Name: "m", Port: 53, Protocol: v1.ProtocolUDP},
			}},
		}},
		File: func(volume, path string) ([]byte, error) {
			if volume+"/"+path == "v/f" {
				return []byte("# comment\n\nA='one'\nB='two words'\n"), nil
			}
			return nil, errors.New("no such file")
		},
	}
}

func testPod() *v1.Pod {
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "u", Labels: map[string]string{"app": "web"}},
		Spec:       v1.PodSpec{NodeName: "n1", ServiceAccountName: "sa"},
	}
}

func ref(name string) v1.LocalObjectReference { return v1.LocalObjectReference{Name: name} }

// "Define environment variables": every source, in the order of the API
// documentation; later ones replace earlier ones.
func TestBuild(t *testing.T) {
	field := func(name, path string) v1.EnvVar {
		return v1.EnvVar{Name: name, ValueFrom: &v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{FieldPath: path}}}
	}
	c := &v1.Container{
		Name:      "app",
		Resources: v1.ResourceRequirements{Requests: v1.ResourceList{v1.ResourceMemory: resource.MustParse("1500Ki")}},
		EnvFrom: []v1.EnvFromSource{
			{ConfigMapRef: &v1.ConfigMapEnvSource{LocalObjectReference: ref("cm")}},
			{SecretRef: &v1.SecretEnvSource{LocalObjectReference: ref("s")}, Prefix: "S_"},
			{SecretRef: &v1.SecretEnvSource{LocalObjectReference: ref("gone"), Optional: ptr.To(true)}},
		},
		Env: []v1.EnvVar{
			{Name: "PLAIN", Value: "a"},
			{Name: "EMPTY"},
			{Name: "REF", Value: "$(PLAIN)-$(S_PASS)-$(MY_DB_SERVICE_HOST)-$(NONE)-$$(PLAIN)-$(LATER"},
			{Name: "KEY", ValueFrom: &v1.EnvVarSource{SecretKeyRef: &v1.SecretKeySelector{LocalObjectReference: ref("s"), Key: "KEY"}}},
			{Name: "CM", ValueFrom: &v1.EnvVarSource{ConfigMapKeyRef: &v1.ConfigMapKeySelector{LocalObjectReference: ref("cm"), Key: "KEY"}}},
			{Name: "OPT", ValueFrom: &v1.EnvVarSource{ConfigMapKeyRef: &v1.ConfigMapKeySelector{LocalObjectReference: ref("cm"), Key: "no", Optional: ptr.To(true)}}},
			{Name: "FILE", ValueFrom: &v1.EnvVarSource{FileKeyRef: &v1.FileKeySelector{VolumeName: "v", Path: "f", Key: "B"}}},
			field("NAME", "metadata.name"), field("NS", "metadata.namespace"), field("UID", "metadata.uid"),
			field("LABEL", "metadata.labels['app']"), field("NODE", "spec.nodeName"), field("SA", "spec.serviceAccountName"),
			field("HOST", "status.hostIP"), field("IP", "status.podIP"), field("IPS", "status.podIPs"),
			{Name: "CPU", ValueFrom: &v1.EnvVarSource{ResourceFieldRef: &v1.ResourceFieldSelector{Resource: "limits.cpu"}}},
			{Name: "MEM", ValueFrom: &v1.EnvVarSource{ResourceFieldRef: &v1.ResourceFieldSelector{Resource: "requests.memory", Divisor: resource.MustParse("1Mi")}}},
			{Name: "PLAIN", Value: "b"},
		},
	}
	got, err := env.Build(testPod(), c, sources())
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, v := range got.Vars {
		if !strings.HasPrefix(v.Name, "MY_DB") {
			lines = append(lines, v.Name+"="+v.Value)
		}
	}
	want := strings.Split(strings.TrimSpace(`
other=x
S_KEY=from secret
S_PASS=pw
EMPTY=
REF=a-pw-10.43.0.7-$(NONE)-$(PLAIN)-$(LATER
KEY=from secret
CM=from cm
FILE=two words
NAME=p
NS=ns
UID=u
LABEL=web
NODE=n1
SA=sa
HOST=192.0.2.1
IP=10.42.0.5
IPS=10.42.0.5,fd00::5
CPU=4
MEM=2
PLAIN=b`), "\n")
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
}

func TestErrors(t *testing.T) {
	from := func(s v1.EnvVarSource) *v1.Container {
		return &v1.Container{Env: []v1.EnvVar{{Name: "X", ValueFrom: &s}}}
	}
	for _, c := range []struct {
		container *v1.Container
		want      string
	}{
		{&v1.Container{EnvFrom: []v1.EnvFromSource{{ConfigMapRef: &v1.ConfigMapEnvSource{LocalObjectReference: ref("gone")}}}}, `configmap "gone" not found`},
		{&v1.Container{EnvFrom: []v1.EnvFromSource{{SecretRef: &v1.SecretEnvSource{LocalObjectReference: ref("gone")}}}}, `secret "gone" not found`},
		{from(v1.EnvVarSource{ConfigMapKeyRef: &v1.ConfigMapKeySelector{LocalObjectReference: ref("gone"), Key: "k"}}), `configmap "gone" not found`},
		{from(v1.EnvVarSource{ConfigMapKeyRef: &v1.ConfigMapKeySelector{LocalObjectReference: ref("cm"), Key: "k"}}), `couldn't find key k in ConfigMap ns/cm`},
		{from(v1.EnvVarSource{SecretKeyRef: &v1.SecretKeySelector{LocalObjectReference: ref("s"), Key: "k"}}), `couldn't find key k in Secret ns/s`},
		{from(v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{FieldPath: "spec.hostname"}}), `unsupported fieldPath: spec.hostname`},
		{from(v1.EnvVarSource{FileKeyRef: &v1.FileKeySelector{VolumeName: "v", Path: "f", Key: "C"}}), `environment variable key "C" not found in file "f"`},
		{from(v1.EnvVarSource{FileKeyRef: &v1.FileKeySelector{VolumeName: "v", Path: "g", Key: "C"}}), `couldn't parse env file g of volume v: no such file`},
	} {
		if _, err := env.Build(testPod(), c.container, sources()); err == nil || err.Error() != c.want {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
}

// "Discovering services": variables of the pod's own namespace and of
// default/kubernetes.
func TestServices(t *testing.T) {
	got, err := env.Build(testPod(), &v1.Container{}, sources())
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, v := range got.Vars {
		lines = append(lines, v.Name+"="+v.Value)
	}
	want := strings.Split(strings.TrimSpace(`
MY_DB_PORT=tcp://10.43.0.7:5432
MY_DB_PORT_53_UDP=udp://10.43.0.7:53
MY_DB_PORT_53_UDP_ADDR=10.43.0.7
MY_DB_PORT_53_UDP_PORT=53
MY_DB_PORT_53_UDP_PROTO=udp
MY_DB_PORT_5432_TCP=tcp://10.43.0.7:5432
MY_DB_PORT_5432_TCP_ADDR=10.43.0.7
MY_DB_PORT_5432_TCP_PORT=5432
MY_DB_PORT_5432_TCP_PROTO=tcp
MY_DB_SERVICE_HOST=10.43.0.7
MY_DB_SERVICE_PORT=5432
MY_DB_SERVICE_PORT_M=53
MY_DB_SERVICE_PORT_SQL_MAIN=5432`), "\n")
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}

	service := func(namespace, name, ip string) *v1.Service {
		return &v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: v1.ServiceSpec{ClusterIP: ip}}
	}
	all := []*v1.Service{
		service("default", "kubernetes", "10.43.0.1"), service("default", "other", "10.43.0.2"),
		service("ns", "a", "10.43.0.3"), service("ns", "headless", "None"), service("ns", "external", ""),
	}
	for _, c := range []struct {
		links *bool
		want  []string
	}{
		{nil, []string{"kubernetes", "a"}},
		{ptr.To(false), []string{"kubernetes"}},
	} {
		p := testPod()
		p.Spec.EnableServiceLinks = c.links
		var names []string
		for _, s := range env.Links(p, slices.Values(all)) {
			names = append(names, s.Name)
		}
		if diff := cmp.Diff(c.want, names); diff != "" {
			t.Error(diff)
		}
	}
}

func TestExpandStrict(t *testing.T) {
	lookup := func(name string) (string, bool) { return "v", name == "A" }
	if got, err := env.ExpandStrict("x/$(A)/$$(B)", lookup); err != nil || got != "x/v/$(B)" {
		t.Errorf("%q %v", got, err)
	}
	if _, err := env.ExpandStrict("$(B)", lookup); err == nil {
		t.Error("an unknown reference was taken")
	}
}
