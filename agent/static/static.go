// Package static reads the pods that a node runs without being told by the API:
// those of a directory (or one file) and of a URL ("Create static Pods").
package static

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"

	"hansa.dev/hansa/agent/pod"
	"hansa.dev/hansa/api"
)

// Reader reads pods.
type Reader struct {
	Node string
	// Pods is the kind, with its defaults and rules.
	Pods *api.Resource
	// Path is a directory or a file, URL serves a pod or a list of them; each may
	// be empty.
	Path, URL string
	Header    http.Header
	HTTP      *http.Client
}

// maxBody bounds what is read of a file or an answer.
const maxBody = 10 << 20

// Files reads the pods of the path, those of good files in spite of bad ones:
// each error names its file. A path that does not exist holds no pods. Files
// whose names begin with a dot are left out.
func (r *Reader) Files() ([]*v1.Pod, []error) {
	if r.Path == "" {
		return nil, nil
	}
	info, err := os.Stat(r.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, []error{fmt.Errorf("read static pods: %w", err)}
	}
	files := []string{r.Path}
	if info.IsDir() {
		entries, err := os.ReadDir(r.Path)
		if err != nil {
			return nil, []error{fmt.Errorf("read static pods: %w", err)}
		}
		files = nil
		for _, e := range entries {
			path := filepath.Join(r.Path, e.Name())
			info, err := os.Stat(path) // a link counts as what it leads to
			if strings.HasPrefix(e.Name(), ".") || err != nil || !info.Mode().IsRegular() {
				continue
			}
			files = append(files, path)
		}
	}
	var pods []*v1.Pod
	var errs []error
	for _, path := range files {
		p, err := r.file(path)
		if err != nil {
			errs = append(errs, fmt.Errorf("static pod of %s: %w", path, err))
			continue
		}
		pods = append(pods, p)
	}
	return unique(pods, errs)
}

func (r *Reader) file(path string) (*v1.Pod, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxBody))
	if err != nil {
		return nil, err
	}
	p, err := decode(data)
	if err != nil {
		return nil, err
	}
	return p, r.complete(p, "file", path)
}

// Fetch reads the pods of the URL. An error means that nothing is known of them.
func (r *Reader) Fetch(ctx context.Context) ([]*v1.Pod, []error, error) {
	fail := func(err error) ([]*v1.Pod, []error, error) {
		return nil, nil, fmt.Errorf("static pods of %s: %w", r.URL, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.URL, nil)
	if err != nil {
		return fail(err)
	}
	req.Header = r.Header.Clone()
	resp, err := r.HTTP.Do(req)
	if err != nil {
		return fail(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	switch {
	case err != nil:
		return fail(err)
	case resp.StatusCode != http.StatusOK:
		return fail(errors.New(resp.Status))
	case len(data) == 0:
		return fail(errors.New("the answer is empty"))
	}
	var list v1.PodList
	if yaml.Unmarshal(data, &list) != nil || list.Kind != "PodList" && list.Kind != "List" {
		p, err := decode(data)
		if err != nil {
			return fail(err)
		}
		list.Items = []v1.Pod{*p}
	}
	var pods []*v1.Pod
	var errs []error
	for i := range list.Items {
		p := &list.Items[i]
		if err := r.complete(p, "http", r.URL); err != nil {
			errs = append(errs, fmt.Errorf("static pod %d of %s: %w", i, r.URL, err))
			continue
		}
		pods = append(pods, p)
	}
	pods, errs = unique(pods, errs)
	return pods, errs, nil
}

// unique leaves out pods of a name that another has.
func unique(pods []*v1.Pod, errs []error) ([]*v1.Pod, []error) {
	seen := map[string]bool{}
	var out []*v1.Pod
	for _, p := range pods {
		name := p.Namespace + "/" + p.Name
		if seen[name] {
			errs = append(errs, fmt.Errorf("static pod %s: it is there twice", name))
			continue
		}
		seen[name] = true
		out = append(out, p)
	}
	return out, errs
}

func decode(data []byte) (*v1.Pod, error) {
	p := &v1.Pod{}
	if err := yaml.Unmarshal(data, p); err != nil {
		return nil, err
	}
	if p.APIVersion != "v1" || p.Kind != "Pod" {
		return nil, fmt.Errorf("apiVersion %q, kind %q: it has to be v1, Pod", p.APIVersion, p.Kind)
	}
	return p, nil
}

// complete makes of what somebody wrote the pod that the node runs. Its UID is a
// digest of all it says, so that a changed file is another pod.
func (r *Reader) complete(p *v1.Pod, source, from string) error {
	if p.Name == "" {
		return errors.New("metadata.name is missing")
	}
	if p.UID == "" {
		data, err := json.Marshal(p)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%s\n%s", r.Node, source, from, data))
		p.UID = types.UID(hex.EncodeToString(sum[:16]))
	}
	p.Name += "-" + strings.ToLower(r.Node)
	if p.Namespace == "" {
		p.Namespace = metav1.NamespaceDefault
	}
	if why := append(validation.IsDNS1123Subdomain(p.Name), validation.IsDNS1123Label(p.Namespace)...); len(why) > 0 {
		return fmt.Errorf("metadata: %s/%s: %s", p.Namespace, p.Name, why[0])
	}
	p.Spec.NodeName = r.Node
	if p.Annotations == nil {
		p.Annotations = map[string]string{}
	}
	p.Annotations[pod.NoteSource], p.Annotations[pod.NoteHash] = source, string(p.UID)
	delete(p.Annotations, pod.NoteMirror)
	// Whoever put the file there wants it on this node, whatever its taints.
	p.Spec.Tolerations = append(p.Spec.Tolerations, v1.Toleration{Operator: v1.TolerationOpExists, Effect: v1.TaintEffectNoExecute})
	p.Status = v1.PodStatus{Phase: v1.PodPending}
	if what := refers(p); what != "" {
		return fmt.Errorf("static pods may not reference %s", what)
	}
	r.Pods.Default(p)
	if errs := r.Pods.Validate(p); len(errs) > 0 {
		return errs.ToAggregate()
	}
	return nil
}

// refers names what of the API a pod needs, which a static one may not: it runs
// before there is one.
func refers(p *v1.Pod) string {
	if p.Spec.ServiceAccountName != "" || p.Spec.DeprecatedServiceAccount != "" {
		return "serviceaccounts"
	}
	if len(p.Spec.ResourceClaims) > 0 {
		return "resourceclaims"
	}
	if len(p.Spec.ImagePullSecrets) > 0 {
		return "secrets"
	}
	if len(p.Spec.EphemeralContainers) > 0 {
		return "ephemeral containers"
	}
	for i := range p.Spec.Volumes {
		if what := volumeRefers(&p.Spec.Volumes[i]); what != "" {
			return what
		}
	}
	for c := range pod.Containers(&p.Spec) {
		for _, e := range c.Env {
			switch from := e.ValueFrom; {
			case from != nil && from.SecretKeyRef != nil:
				return "secrets"
			case from != nil && from.ConfigMapKeyRef != nil:
				return "configmaps"
			}
		}
		for _, e := range c.EnvFrom {
			switch {
			case e.SecretRef != nil:
				return "secrets"
			case e.ConfigMapRef != nil:
				return "configmaps"
			}
		}
	}
	return ""
}

func volumeRefers(v *v1.Volume) string {
	switch {
	case v.Secret != nil:
		return "secrets"
	case v.ConfigMap != nil:
		return "configmaps"
	case v.PersistentVolumeClaim != nil, v.Ephemeral != nil:
		return "persistentvolumeclaims"
	case v.CSI != nil:
		return "csidrivers"
	case v.Projected == nil:
		return ""
	}
	i := slices.IndexFunc(v.Projected.Sources, func(s v1.VolumeProjection) bool { return s.DownwardAPI == nil })
	if i < 0 {
		return ""
	}
	switch s := v.Projected.Sources[i]; {
	case s.Secret != nil:
		return "secrets"
	case s.ConfigMap != nil:
		return "configmaps"
	case s.ServiceAccountToken != nil:
		return "serviceaccounts"
	}
	return "what only the API has"
}
