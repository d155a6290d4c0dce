package volume

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"time"

	v1 "k8s.io/api/core/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/agent/downward"
)

// The volumes whose content comes from the API. What may be secret is kept in
// memory.
var (
	configMap   = &plugin{dir: "kubernetes.io~configmap", setUp: setUpConfigMap, live: true}
	secret      = &plugin{dir: "kubernetes.io~secret", setUp: setUpSecret, live: true}
	downwardAPI = &plugin{dir: "kubernetes.io~downward-api", setUp: setUpDownward, live: true}
	projected   = &plugin{dir: "kubernetes.io~projected", setUp: setUpProjected, live: true}
)

func setUpConfigMap(_ context.Context, m *Manager, p *v1.Pod, v *v1.Volume, dir string) (time.Time, error) {
	src := v.ConfigMap
	out := payload{}
	err := m.addConfigMap(out, p.Namespace, src.Name, src.Items, modeOr(src.DefaultMode), ptr.Deref(src.Optional, false))
	if err != nil {
		return time.Time{}, err
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return time.Time{}, err
	}
	return time.Time{}, m.publish(p, dir, out)
}

func setUpSecret(_ context.Context, m *Manager, p *v1.Pod, v *v1.Volume, dir string) (time.Time, error) {
	src := v.Secret
	out := payload{}
	err := m.addSecret(out, p.Namespace, src.SecretName, src.Items, modeOr(src.DefaultMode), ptr.Deref(src.Optional, false))
	if err != nil {
		return time.Time{}, err
	}
	if err := m.tmpfs(dir, 0); err != nil {
		return time.Time{}, err
	}
	return time.Time{}, m.publish(p, dir, out)
}

func setUpDownward(_ context.Context, m *Manager, p *v1.Pod, v *v1.Volume, dir string) (time.Time, error) {
	out := payload{}
	if err := m.addDownward(out, p, v.DownwardAPI.Items, modeOr(v.DownwardAPI.DefaultMode)); err != nil {
		return time.Time{}, err
	}
	if err := m.tmpfs(dir, 0); err != nil {
		return time.Time{}, err
	}
	return time.Time{}, m.publish(p, dir, out)
}

func setUpProjected(ctx context.Context, m *Manager, p *v1.Pod, v *v1.Volume, dir string) (next time.Time, err error) {
	out := payload{}
	mode := modeOr(v.Projected.DefaultMode)
	var errs []error
	for i := range v.Projected.Sources {
		src := &v.Projected.Sources[i]
		var at time.Time
		switch {
		case src.ConfigMap != nil:
			err = m.addConfigMap(out, p.Namespace, src.ConfigMap.Name, src.ConfigMap.Items, mode, ptr.Deref(src.ConfigMap.Optional, false))
		case src.Secret != nil:
			err = m.addSecret(out, p.Namespace, src.Secret.Name, src.Secret.Items, mode, ptr.Deref(src.Secret.Optional, false))
		case src.DownwardAPI != nil:
			err = m.addDownward(out, p, src.DownwardAPI.Items, mode)
		case src.ServiceAccountToken != nil:
			at, err = m.addToken(ctx, out, p, src.ServiceAccountToken, mode)
		case src.ClusterTrustBundle != nil:
			err = m.addTrust(out, p, src.ClusterTrustBundle, mode)
		case src.PodCertificate != nil:
			at, err = m.addCertificate(ctx, out, p, v.Name, i, src.PodCertificate, mode)
		default:
			err = fmt.Errorf("projected source %d is of a type that this node does not have: it has configMap, secret, downwardAPI, serviceAccountToken, clusterTrustBundle and podCertificate", i)
		}
		if err != nil {
			errs = append(errs, err)
		}
		next = earlier(next, at)
	}
	if len(errs) > 0 {
		return time.Time{}, utilerrors.NewAggregate(errs)
	}
	if err := m.tmpfs(dir, 0); err != nil {
		return time.Time{}, err
	}
	return next, m.publish(p, dir, out)
}

func (m *Manager) publish(p *v1.Pod, dir string, out payload) error {
	if err := os.Chmod(dir, 0o777); err != nil {
		return err
	}
	o := ownerOf(p, nil)
	if err := writeAtomic(dir, out, o, m.Clock.Now()); err != nil {
		return fmt.Errorf("write content: %w", err)
	}
	if o.group == nil {
		return nil
	}
	// The files were given to the group before they were published; what is
	// left are the directory and its links.
	return own(dir, owner{group: o.group}, true)
}

func modeOr(mode *int32) fs.FileMode {
	if mode == nil {
		return 0o644
	}
	return fs.FileMode(*mode)
}

func (m *Manager) addConfigMap(out payload, namespace, name string, items []v1.KeyToPath, mode fs.FileMode, optional bool) error {
	obj := m.Objects.ConfigMap(namespace, name)
	if obj == nil {
		if optional {
			return nil
		}
		return fmt.Errorf("configmap %q not found", name)
	}
	values := map[string][]byte{}
	for k, v := range obj.Data {
		values[k] = []byte(v)
	}
	maps.Copy(values, obj.BinaryData)
	return addKeys(out, values, items, mode, optional, "configmap "+namespace+"/"+name)
}

func (m *Manager) addSecret(out payload, namespace, name string, items []v1.KeyToPath, mode fs.FileMode, optional bool) error {
	obj := m.Objects.Secret(namespace, name)
	if obj == nil {
		if optional {
			return nil
		}
		return fmt.Errorf("secret %q not found", name)
	}
	return addKeys(out, obj.Data, items, mode, optional, "secret "+namespace+"/"+name)
}

func addKeys(out payload, values map[string][]byte, items []v1.KeyToPath, mode fs.FileMode, optional bool, what string) error {
	if len(items) == 0 {
		for k, v := range values {
			out[k] = file{data: v, mode: mode}
		}
		return nil
	}
	for _, item := range items {
		v, ok := values[item.Key]
		if !ok {
			if optional {
				continue
			}
			return fmt.Errorf("references non-existent %s key: %s", what, item.Key)
		}
		f := file{data: v, mode: mode}
		if item.Mode != nil {
			f.mode = fs.FileMode(*item.Mode)
		}
		out[item.Path] = f
	}
	return nil
}

func (m *Manager) addDownward(out payload, p *v1.Pod, items []v1.DownwardAPIVolumeFile, mode fs.FileMode) error {
	at := m.Addresses(p.UID)
	for _, item := range items {
		f := file{mode: mode}
		if item.Mode != nil {
			f.mode = fs.FileMode(*item.Mode)
		}
		var value string
		var err error
		switch {
		case item.FieldRef != nil:
			value, err = downward.Field(p, at, item.FieldRef.FieldPath)
		case item.ResourceFieldRef != nil:
			value, err = downward.Resource(p, nil, item.ResourceFieldRef, m.Allocatable())
		}
		if err != nil {
			return fmt.Errorf("downward item %q: %w", item.Path, err)
		}
		f.data = []byte(value)
		out[item.Path] = f
	}
	return nil
}
