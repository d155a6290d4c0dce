package agent

import (
	"context"
	"fmt"
	"sync"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"hansa.dev/hansa/agent/pod"
	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
)

// objects is what pods use of the API, read from the client's view.
type objects struct {
	client client.Interface
	rows   *rows
	users  *users
}

// ConfigMap is nil when there is none of that name.
func (o *objects) ConfigMap(namespace, name string) *v1.ConfigMap {
	obj, _ := o.client.View().Get(o.rows.configMaps, api.Key{Namespace: namespace, Name: name}).(*v1.ConfigMap)
	return obj
}

// Secret is nil when there is none of that name.
func (o *objects) Secret(namespace, name string) *v1.Secret {
	obj, _ := o.client.View().Get(o.rows.secrets, api.Key{Namespace: namespace, Name: name}).(*v1.Secret)
	return obj
}

// TrustBundle is nil when there is none of that name.
func (o *objects) TrustBundle(name string) *certificatesv1.ClusterTrustBundle {
	obj, _ := o.client.View().Get(o.rows.trustBundles, api.Key{Name: name}).(*certificatesv1.ClusterTrustBundle)
	return obj
}

// TrustBundles goes through all.
func (o *objects) TrustBundles(yield func(*certificatesv1.ClusterTrustBundle) bool) {
	for obj := range o.client.View().List(o.rows.trustBundles, "") {
		if b, ok := obj.(*certificatesv1.ClusterTrustBundle); ok && !yield(b) {
			return
		}
	}
}

// Services goes through all.
func (o *objects) Services(yield func(*v1.Service) bool) {
	for obj := range o.client.View().List(o.rows.services, "") {
		if s, ok := obj.(*v1.Service); ok && !yield(s) {
			return
		}
	}
}

// RuntimeClass is nil when there is none of that name.
func (o *objects) RuntimeClass(name string) *nodev1.RuntimeClass {
	obj, _ := o.client.View().Get(o.rows.classes, api.Key{Name: name}).(*nodev1.RuntimeClass)
	return obj
}

// ServiceAccount is the account as the API has it now.
func (o *objects) ServiceAccount(ctx context.Context, namespace, name string) (*v1.ServiceAccount, error) {
	out, err := o.client.Get(ctx, api.Ref{Resource: o.rows.accounts, Namespace: namespace, Name: name})
	if err != nil {
		return nil, err
	}
	account, ok := out.(*v1.ServiceAccount)
	if !ok {
		return nil, fmt.Errorf("service account %s/%s: the answer is a %T", namespace, name, out)
	}
	return account, nil
}

// Token asks for a token of the pod's service account.
func (o *objects) Token(ctx context.Context, p *v1.Pod, request *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	ref := api.Ref{Resource: o.rows.accounts, Namespace: p.Namespace, Name: p.Spec.ServiceAccountName}
	out, err := o.client.Post(ctx, ref, "token", request)
	if err != nil {
		return nil, err
	}
	token, ok := out.(*authenticationv1.TokenRequest)
	if !ok {
		return nil, fmt.Errorf("token of service account %s/%s: the answer is a %T", p.Namespace, p.Spec.ServiceAccountName, out)
	}
	return token, nil
}

// RequestCertificate makes a PodCertificateRequest for a pod of this node.
func (o *objects) RequestCertificate(ctx context.Context, p *v1.Pod, spec certificatesv1.PodCertificateRequestSpec) (*certificatesv1.PodCertificateRequest, error) {
	account, err := o.ServiceAccount(ctx, p.Namespace, p.Spec.ServiceAccountName)
	if err != nil {
		return nil, err
	}
	node, _ := o.client.View().Get(o.rows.nodes, api.Key{Name: p.Spec.NodeName}).(*v1.Node)
	if node == nil {
		return nil, fmt.Errorf("there is no node %q", p.Spec.NodeName)
	}
	spec.PodName, spec.PodUID = p.Name, p.UID
	spec.ServiceAccountName, spec.ServiceAccountUID = account.Name, account.UID
	spec.NodeName, spec.NodeUID = types.NodeName(node.Name), node.UID
	out, err := o.client.Create(ctx, o.rows.certificates, &certificatesv1.PodCertificateRequest{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: p.Namespace, GenerateName: "req-",
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: p.Name, UID: p.UID}},
		},
		Spec: spec,
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	request, ok := out.(*certificatesv1.PodCertificateRequest)
	if !ok {
		return nil, fmt.Errorf("PodCertificateRequest for pod %s/%s: the answer is a %T", p.Namespace, p.Name, out)
	}
	return request, nil
}

// CertificateRequest is nil when there is none of that name.
func (o *objects) CertificateRequest(namespace, name string) *certificatesv1.PodCertificateRequest {
	obj, _ := o.client.View().Get(o.rows.certificates, api.Key{Namespace: namespace, Name: name}).(*certificatesv1.PodCertificateRequest)
	return obj
}

// certificateChanged is a subscriber that tells the pod for which a request is.
func (o *objects) certificateChanged(tell func([]types.UID)) func(old, new api.Object) {
	return func(old, _ api.Object) {
		if r, ok := old.(*certificatesv1.PodCertificateRequest); ok && r != nil {
			tell([]types.UID{r.Spec.PodUID})
		}
	}
}

// used names an object that pods use.
type used struct {
	kind            string
	namespace, name string
}

const (
	kindConfigMap = "ConfigMap"
	kindSecret    = "Secret"
	kindBundle    = "ClusterTrustBundle"
	// kindSigner stands for all trust bundles of a signer, its name.
	kindSigner = "signer"
)

// users knows which pods use an object. It may be asked from any goroutine.
type users struct {
	mu   sync.Mutex
	pods map[used]map[types.UID]bool
}

func newUsers() *users { return &users{pods: map[used]map[types.UID]bool{}} }

func (u *users) add(p *v1.Pod) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, o := range uses(p) {
		if u.pods[o] == nil {
			u.pods[o] = map[types.UID]bool{}
		}
		u.pods[o][p.UID] = true
	}
}

func (u *users) remove(uid types.UID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for o, pods := range u.pods {
		delete(pods, uid)
		if len(pods) == 0 {
			delete(u.pods, o)
		}
	}
}

func (u *users) of(o used) []types.UID {
	u.mu.Lock()
	defer u.mu.Unlock()
	var out []types.UID
	for uid := range u.pods[o] {
		out = append(out, uid)
	}
	return out
}

// changed is a subscriber that tells who has to look at a changed object.
func (o *objects) changed(kind string, tell func([]types.UID)) func(old, new api.Object) {
	return func(old, new api.Object) {
		obj := new
		if obj == nil {
			obj = old
		}
		if pods := o.users.of(used{kind, obj.GetNamespace(), obj.GetName()}); len(pods) > 0 {
			tell(pods)
		}
	}
}

// bundleChanged is a subscriber that tells who has to look at a changed trust
// bundle.
func (o *objects) bundleChanged(tell func([]types.UID)) func(old, new api.Object) {
	return func(old, new api.Object) {
		for _, obj := range []api.Object{old, new} {
			b, ok := obj.(*certificatesv1.ClusterTrustBundle)
			if !ok || b == nil {
				continue
			}
			if pods := append(o.users.of(used{kindBundle, "", b.Name}), o.users.of(used{kindSigner, "", b.Spec.SignerName})...); len(pods) > 0 {
				tell(pods)
			}
		}
	}
}

// uses lists the ConfigMaps and Secrets that a pod shows or waits for, and the
// trust bundles.
func uses(p *v1.Pod) []used {
	var out []used
	configMap := func(name string) { out = append(out, used{kindConfigMap, p.Namespace, name}) }
	secret := func(name string) { out = append(out, used{kindSecret, p.Namespace, name}) }
	for i := range p.Spec.Volumes {
		volumeUses(&p.Spec.Volumes[i], configMap, secret)
		out = append(out, trustUses(&p.Spec.Volumes[i])...)
	}
	for _, ref := range p.Spec.ImagePullSecrets {
		secret(ref.Name)
	}
	for c := range pod.Containers(&p.Spec) {
		envUses(c.Env, c.EnvFrom, configMap, secret)
	}
	for i := range p.Spec.EphemeralContainers {
		e := &p.Spec.EphemeralContainers[i]
		envUses(e.Env, e.EnvFrom, configMap, secret)
	}
	return out
}

func volumeUses(v *v1.Volume, configMap, secret func(string)) {
	if v.ConfigMap != nil {
		configMap(v.ConfigMap.Name)
	}
	if v.Secret != nil {
		secret(v.Secret.SecretName)
	}
	if v.Projected == nil {
		return
	}
	for _, s := range v.Projected.Sources {
		if s.ConfigMap != nil {
			configMap(s.ConfigMap.Name)
		}
		if s.Secret != nil {
			secret(s.Secret.Name)
		}
	}
}

// trustUses lists the trust bundles that a volume shows.
func trustUses(v *v1.Volume) []used {
	if v.Projected == nil {
		return nil
	}
	var out []used
	for _, s := range v.Projected.Sources {
		if b := s.ClusterTrustBundle; b != nil && b.Name != nil {
			out = append(out, used{kindBundle, "", *b.Name})
		} else if b != nil && b.SignerName != nil {
			out = append(out, used{kindSigner, "", *b.SignerName})
		}
	}
	return out
}

func envUses(vars []v1.EnvVar, from []v1.EnvFromSource, configMap, secret func(string)) {
	for _, e := range vars {
		if e.ValueFrom != nil && e.ValueFrom.ConfigMapKeyRef != nil {
			configMap(e.ValueFrom.ConfigMapKeyRef.Name)
		}
		if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil {
			secret(e.ValueFrom.SecretKeyRef.Name)
		}
	}
	for _, e := range from {
		if e.ConfigMapRef != nil {
			configMap(e.ConfigMapRef.Name)
		}
		if e.SecretRef != nil {
			secret(e.SecretRef.Name)
		}
	}
}
