package conformance

import (
	"net/http"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// binding is a default one.
type binding struct{ resource, namespace, name string }

func (b binding) path() string { return at(b.resource, b.namespace, b.name) }

// leads is where a binding leads and whom.
func (b binding) leads(t *testing.T, p *peer) string {
	t.Helper()
	a := p.do(t, call{path: b.path()})
	if a.code == http.StatusNotFound {
		return "nowhere"
	}
	u := a.object(t)
	return field(u, "roleRef") + " " + field(u, "subjects")
}

// redirect has a binding lead to another role: what it says cannot be changed, but
// another one can take its place.
func (b binding) redirect(t *testing.T, p *peer, change func(u *unstructured.Unstructured)) {
	t.Helper()
	u := p.want(t, http.StatusOK, call{path: b.path()}, nil).object(t)
	p.want(t, http.StatusOK, call{method: "DELETE", path: b.path()}, nil)
	u.SetUID("")
	u.SetResourceVersion("")
	u.SetManagedFields(nil)
	u.Object["roleRef"].(map[string]any)["name"] = "elsewhere"
	change(u)
	p.want(t, http.StatusCreated, call{method: "POST", path: at(b.resource, b.namespace), body: encode(t, u)}, nil)
}

// breakBindings breaks default bindings of the cluster and of kube-system: of each
// kind one goes, one leads elsewhere and one has nobody any more; one leads elsewhere
// and asks to be left alone. mended demands of the next start that it put all but the
// last right ("Default roles and role bindings", "Auto-reconciliation").
func breakBindings(t *testing.T, p *peer) (mended func()) {
	t.Helper()
	cluster := func(name string) binding { return binding{"clusterrolebindings", "", name} }
	system := func(name string) binding { return binding{"rolebindings", "kube-system", name} }
	breaks := map[binding]func(b binding){}
	for _, b := range []binding{cluster("system:discovery"), system("system::leader-locking-kube-scheduler")} {
		breaks[b] = func(b binding) { p.want(t, http.StatusOK, call{method: "DELETE", path: b.path()}, nil) }
	}
	for _, b := range []binding{cluster("system:basic-user"), system("system::leader-locking-kube-controller-manager")} {
		breaks[b] = func(b binding) { b.redirect(t, p, func(*unstructured.Unstructured) {}) }
	}
	for _, b := range []binding{cluster("system:public-info-viewer"), system("system::extension-apiserver-authentication-reader")} {
		breaks[b] = func(b binding) {
			p.want(t, http.StatusOK, call{method: "PATCH", path: b.path(), contentType: mergePatch, body: `{"subjects":null}`}, nil)
		}
	}
	before := map[binding]string{}
	for b, breakIt := range breaks {
		before[b] = b.leads(t, p)
		breakIt(b)
		if now := b.leads(t, p); now == before[b] || before[b] == "nowhere" {
			t.Errorf("%s led to %s and leads to %s", b.path(), before[b], now)
		}
	}
	left := cluster("system:monitoring")
	left.redirect(t, p, func(u *unstructured.Unstructured) {
		u.SetAnnotations(map[string]string{"rbac.authorization.kubernetes.io/autoupdate": "false"})
	})
	return func() {
		t.Helper()
		for b, led := range before {
			if now := b.leads(t, p); now != led {
				t.Errorf("after a start %s leads to %s, want %s", b.path(), now, led)
			}
		}
		if now := left.leads(t, p); !strings.Contains(now, `"elsewhere"`) {
			t.Errorf("%s asked to be left alone, and leads to %s", left.path(), now)
		}
	}
}
