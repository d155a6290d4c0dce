package kinds_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"hansa.dev/hansa/api/kinds"
)

// TestCanonicalEndpoints packs subsets as the documentation of Endpoints says:
// the set of endpoints is the union of all subsets, and no address is both
// ready and not ready on a port.
func TestCanonicalEndpoints(t *testing.T) {
	row := kinds.Registry().Must("", "endpoints")
	for name, c := range map[string]struct{ sent, want string }{
		"none": {`{}`, `{}`},
		"one set of ports, several subsets": {
			`subsets: [{addresses: [{ip: 10.0.0.2}], ports: [{port: 80}]}, {addresses: [{ip: 10.0.0.1}], ports: [{port: 80}]}]`,
			`subsets: [{addresses: [{ip: 10.0.0.1}, {ip: 10.0.0.2}], ports: [{port: 80}]}]`,
		},
		"one address, several ports": {
			`subsets: [{addresses: [{ip: 10.0.0.1}], ports: [{name: b, port: 81}]}, {addresses: [{ip: 10.0.0.1}], ports: [{name: a, port: 80}]}]`,
			`subsets: [{addresses: [{ip: 10.0.0.1}], ports: [{name: a, port: 80}, {name: b, port: 81}]}]`,
		},
		"different ports": {
			`subsets: [{addresses: [{ip: 10.0.0.1}, {ip: 10.0.0.2}], ports: [{name: a, port: 80}]}, {addresses: [{ip: 10.0.0.2}], ports: [{name: b, port: 81}]}]`,
			`subsets: [{addresses: [{ip: 10.0.0.1}], ports: [{name: a, port: 80}]}, {addresses: [{ip: 10.0.0.2}], ports: [{name: a, port: 80}, {name: b, port: 81}]}]`,
		},
		"ready and not ready on one port": {
			`subsets: [{addresses: [{ip: 10.0.0.1}, {ip: 10.0.0.2}], notReadyAddresses: [{ip: 10.0.0.1}], ports: [{port: 80}]}]`,
			`subsets: [{addresses: [{ip: 10.0.0.2}], notReadyAddresses: [{ip: 10.0.0.1}], ports: [{port: 80}]}]`,
		},
		"ready on one port, not on another": {
			`subsets: [{addresses: [{ip: 10.0.0.1}], ports: [{name: a, port: 80}]}, {notReadyAddresses: [{ip: 10.0.0.1}], ports: [{name: b, port: 81}]}]`,
			`subsets: [{addresses: [{ip: 10.0.0.1}], ports: [{name: a, port: 80}]}, {notReadyAddresses: [{ip: 10.0.0.1}], ports: [{name: b, port: 81}]}]`,
		},
		"no ports": {
			`subsets: [{addresses: [{ip: 10.0.0.2}]}, {addresses: [{ip: 10.0.0.1}]}]`,
			`subsets: [{addresses: [{ip: 10.0.0.1}, {ip: 10.0.0.2}]}]`,
		},
		"ready and not, without ports": {
			`subsets: [{addresses: [{ip: 10.0.0.1}, {ip: 10.0.0.2}], notReadyAddresses: [{ip: 10.0.0.1}]}]`,
			`subsets: [{addresses: [{ip: 10.0.0.2}], notReadyAddresses: [{ip: 10.0.0.1}]}]`,
		},
		"two targets at one address": {
			`subsets: [{addresses: [{ip: 10.0.0.1, targetRef: {uid: b}}, {ip: 10.0.0.1, targetRef: {uid: a}}], ports: [{port: 80}]}]`,
			`subsets: [{addresses: [{ip: 10.0.0.1, targetRef: {uid: a}}, {ip: 10.0.0.1, targetRef: {uid: b}}], ports: [{port: 80}]}]`,
		},
	} {
		got, want := &corev1.Endpoints{}, &corev1.Endpoints{}
		for text, into := range map[string]*corev1.Endpoints{c.sent: got, c.want: want} {
			if err := yaml.UnmarshalStrict([]byte(text), into); err != nil {
				t.Fatal(err)
			}
		}
		if c.sent == c.want {
			want = got.DeepCopy()
		}
		row.Canonicalize(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		row.Canonicalize(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s, packed again (-want +got):\n%s", name, diff)
		}
	}
}
