package volume_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/agent/downward"
	"hansa.dev/hansa/agent/volume"
)

// world is what volumes show.
type world struct {
	configMaps map[string]*v1.ConfigMap
	secrets    map[string]*v1.Secret
	bundles    []*certificatesv1.ClusterTrustBundle
	tokens     int
	account    types.UID // of whom the last token was
	tokenErr   error
	clock      *clocktesting.FakePassiveClock
	recorded   []string
	requests   []*certificatesv1.PodCertificateRequest
	requestErr error
	events     []string
}

func (w *world) ConfigMap(_, name string) *v1.ConfigMap { return w.configMaps[name] }
func (w *world) Secret(_, name string) *v1.Secret       { return w.secrets[name] }

func (w *world) TrustBundles(yield func(*certificatesv1.ClusterTrustBundle) bool) {
	for _, b := range w.bundles {
		if !yield(b) {
			return
		}
	}
}

func (w *world) TrustBundle(name string) *certificatesv1.ClusterTrustBundle {
	for b := range w.TrustBundles {
		if b.Name == name {
			return b
		}
	}
	return nil
}

func (w *world) Token(_ context.Context, p *v1.Pod, r *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	if w.tokenErr != nil {
		return nil, w.tokenErr
	}
	w.tokens++
	w.account = r.UID
	out := r.DeepCopy()
	out.Status.Token = fmt.Sprintf("token %d of %s for %v", w.tokens, r.Spec.BoundObjectRef.Name, r.Spec.Audiences)
	out.Status.ExpirationTimestamp = metav1.NewTime(w.clock.Now().Add(time.Duration(*r.Spec.ExpirationSeconds) * time.Second))
	return out, nil
}

func newManager(t *testing.T) (*volume.Manager, *world) {
	t.Helper()
	w := &world{
		configMaps: map[string]*v1.ConfigMap{"cm": {Data: map[string]string{"a": "1", "b": "2"}, BinaryData: map[string][]byte{"bin": {0, 1}}}},
		secrets:    map[string]*v1.Secret{"s": {Data: map[string][]byte{"key": []byte("hidden")}}},
		clock:      clocktesting.NewFakePassiveClock(time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)),
	}
	m := volume.New(volume.Config{
		PodsDir: filepath.Join(t.TempDir(), "pods"), Objects: w, Clock: w.clock,
		Allocatable: func() v1.ResourceList {
			return v1.ResourceList{v1.ResourceMemory: resource.MustParse("1Gi"), v1.ResourceCPU: resource.MustParse("2")}
		},
		PullImage: func(_ context.Context, _ *v1.Pod, ref string, policy v1.PullPolicy) (string, error) {
			if policy == v1.PullNever {
				return "", errors.New("not there")
			}
			return "name of " + ref, nil
		},
		Event: func(_ *v1.Pod, kind, reason, message string) {
			w.events = append(w.events, kind+" "+reason+": "+message)
		},
		Record: func(kind, name string) error { w.recorded = append(w.recorded, kind+" "+name); return nil },
		Addresses: func(types.UID) downward.Addresses {
			return downward.Addresses{Pod: []string{"10.42.0.5"}, Host: []string{"192.0.2.1"}}
		},
	})
	t.Cleanup(func() {
		if err := volume.UnmountBelow(m.PodsDir); err != nil {
			t.Error(err)
		}
	})
	return m, w
}

func podWith(vols ...v1.Volume) *v1.Pod {
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "uid", Labels: map[string]string{"b": "2", "a": `"1"`}},
		Spec:       v1.PodSpec{Volumes: vols, Containers: []v1.Container{{Name: "app"}}},
	}
}

func mount(t *testing.T, m *volume.Manager, p *v1.Pod) time.Time {
	t.Helper()
	next, err := m.Mount(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

// tree prints what a container sees in a volume: mode, owner, name, content.
func tree(t *testing.T, m *volume.Manager, p *v1.Pod, i int) string {
	t.Helper()
	root, err := m.Path(p, &p.Spec.Volumes[i])
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	var visit func(path, name string)
	visit = func(path, name string) {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.IsDir() {
			sub, err := os.ReadDir(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range sub {
				visit(filepath.Join(path, e.Name()), name+"/"+e.Name())
			}
			return
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		st := info.Sys().(*syscall.Stat_t)
		out = append(out, fmt.Sprintf("%04o %d:%d %s=%q", info.Mode().Perm(), st.Uid, st.Gid, name, data))
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "..") {
			visit(filepath.Join(root, e.Name()), e.Name())
		}
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

func equal(t *testing.T, what, got, want string) {
	t.Helper()
	if got != strings.TrimSpace(want) {
		t.Errorf("%s:\ngot:\n%s\nwant:\n%s", what, got, strings.TrimSpace(want))
	}
}

// API documentation of ConfigMapVolumeSource: keys become files; items choose
// and place them; the mode of an item comes before the default.
func TestConfigMap(t *testing.T) {
	m, w := newManager(t)
	p := podWith(
		v1.Volume{Name: "all", VolumeSource: v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: v1.LocalObjectReference{Name: "cm"}}}},
		v1.Volume{Name: "some", VolumeSource: v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{
			LocalObjectReference: v1.LocalObjectReference{Name: "cm"}, DefaultMode: ptr.To[int32](0o400),
			Items: []v1.KeyToPath{{Key: "a", Path: "dir/sub/a.txt"}, {Key: "b", Path: "dir/b", Mode: ptr.To[int32](0o777)}},
		}}},
		v1.Volume{Name: "none", VolumeSource: v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{
			LocalObjectReference: v1.LocalObjectReference{Name: "gone"}, Optional: ptr.To(true),
		}}},
	)
	mount(t, m, p)
	equal(t, "all", tree(t, m, p, 0), `
0644 0:0 a="1"
0644 0:0 b="2"
0644 0:0 bin="\x00\x01"`)
	equal(t, "some", tree(t, m, p, 1), `
0400 0:0 dir/sub/a.txt="1"
0777 0:0 dir/b="2"`)
	equal(t, "none", tree(t, m, p, 2), "")

	// Updates are seen, all at once: ..data changes its target.
	root, _ := m.Path(p, &p.Spec.Volumes[0])
	before, err := os.Readlink(filepath.Join(root, "..data"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Refresh(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if same, _ := os.Readlink(filepath.Join(root, "..data")); same != before {
		t.Errorf("content was written again without a change: %s, then %s", before, same)
	}
	w.configMaps["cm"] = &v1.ConfigMap{Data: map[string]string{"a": "new", "c": "3"}}
	if _, err := m.Refresh(t.Context(), podWith(p.Spec.Volumes[0])); err != nil {
		t.Fatal(err)
	}
	equal(t, "after an update", tree(t, m, p, 0), `
0644 0:0 a="new"
0644 0:0 c="3"`)
	if _, err := os.Stat(filepath.Join(root, before)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the old content is left: %v", err)
	}
	if err := m.Unmount(p.UID); err != nil {
		t.Fatal(err)
	}
}

func TestMissing(t *testing.T) {
	m, _ := newManager(t)
	for _, c := range []struct {
		volume v1.VolumeSource
		want   string
	}{
		{v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: v1.LocalObjectReference{Name: "gone"}}},
			`MountVolume.SetUp failed for volume "v" : configmap "gone" not found`},
		{v1.VolumeSource{Secret: &v1.SecretVolumeSource{SecretName: "gone"}},
			`MountVolume.SetUp failed for volume "v" : secret "gone" not found`},
		{v1.VolumeSource{Secret: &v1.SecretVolumeSource{SecretName: "s", Items: []v1.KeyToPath{{Key: "no", Path: "x"}}}},
			`MountVolume.SetUp failed for volume "v" : references non-existent secret ns/s key: no`},
		{v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: v1.LocalObjectReference{Name: "cm"}, Items: []v1.KeyToPath{{Key: "a", Path: "../x"}}}},
			`MountVolume.SetUp failed for volume "v" : write content: invalid path "../x": must not contain or start with '..'`},
		{v1.VolumeSource{HostPath: &v1.HostPathVolumeSource{Path: "/dev/null", Type: ptr.To(v1.HostPathDirectory)}},
			`MountVolume.SetUp failed for volume "v" : hostPath type check failed: /dev/null is not a directory`},
		{v1.VolumeSource{NFS: &v1.NFSVolumeSource{}},
			`MountVolume.SetUp failed for volume "v" : volume "v" is of a type that this node cannot mount: it has emptyDir, hostPath, configMap, secret, downwardAPI, projected and image`},
	} {
		_, err := m.Mount(t.Context(), podWith(v1.Volume{Name: "v", VolumeSource: c.volume}))
		if err == nil || err.Error() != c.want {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
}

// Secrets are kept in memory, tokens belong to their user, and fsGroup gets
// access to everything.
func TestSecretAndGroup(t *testing.T) {
	m, w := newManager(t)
	p := podWith(
		v1.Volume{Name: "s", VolumeSource: v1.VolumeSource{Secret: &v1.SecretVolumeSource{SecretName: "s", DefaultMode: ptr.To[int32](0o400)}}},
		v1.Volume{Name: "e", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}},
	)
	p.Spec.SecurityContext = &v1.PodSecurityContext{FSGroup: ptr.To[int64](4321)}
	mount(t, m, p)
	equal(t, "secret", tree(t, m, p, 0), `0440 0:4321 key="hidden"`)
	if !slices.Contains(w.recorded, "mount "+m.PodsDir) {
		t.Errorf("the mount is not in the ledger: %v", w.recorded)
	}
	path, _ := m.Path(p, &p.Spec.Volumes[0])
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil || st.Type != 0x01021994 {
		t.Errorf("the secret is on file system type %#x: %v", st.Type, err)
	}
	path, _ = m.Path(p, &p.Spec.Volumes[1])
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().String(); got != "dgrwxrwxrwx" || info.Sys().(*syscall.Stat_t).Gid != 4321 {
		t.Errorf("emptyDir of a group: %s %d", got, info.Sys().(*syscall.Stat_t).Gid)
	}
}

func TestHostPath(t *testing.T) {
	m, _ := newManager(t)
	dir := t.TempDir()
	for kind, want := range map[v1.HostPathType]string{
		v1.HostPathDirectoryOrCreate: "drwxr-xr-x",
		v1.HostPathFileOrCreate:      "-rw-r--r--",
	} {
		path := filepath.Join(dir, string(kind))
		mount(t, m, podWith(v1.Volume{Name: "h", VolumeSource: v1.VolumeSource{HostPath: &v1.HostPathVolumeSource{Path: path, Type: &kind}}}))
		info, err := os.Stat(path)
		if err != nil || info.Mode().String() != want {
			t.Errorf("%s: %v %v", kind, info, err)
		}
	}
	mount(t, m, podWith(v1.Volume{Name: "h", VolumeSource: v1.VolumeSource{HostPath: &v1.HostPathVolumeSource{Path: "/dev/null", Type: ptr.To(v1.HostPathCharDev)}}}))
}

// Downward volumes: fields and resources; a limit that is not set is the
// node's.
func TestDownward(t *testing.T) {
	m, _ := newManager(t)
	p := podWith(v1.Volume{Name: "d", VolumeSource: v1.VolumeSource{DownwardAPI: &v1.DownwardAPIVolumeSource{Items: []v1.DownwardAPIVolumeFile{
		{Path: "labels", FieldRef: &v1.ObjectFieldSelector{FieldPath: "metadata.labels"}},
		{Path: "one", FieldRef: &v1.ObjectFieldSelector{FieldPath: "metadata.labels['b']"}, Mode: ptr.To[int32](0o600)},
		{Path: "cpu", ResourceFieldRef: &v1.ResourceFieldSelector{ContainerName: "app", Resource: "limits.cpu", Divisor: resource.MustParse("1m")}},
		{Path: "memory", ResourceFieldRef: &v1.ResourceFieldSelector{ContainerName: "app", Resource: "requests.memory"}},
	}}}})
	p.Spec.Containers[0].Resources.Requests = v1.ResourceList{v1.ResourceMemory: resource.MustParse("32Mi")}
	mount(t, m, p)
	equal(t, "downward", tree(t, m, p, 0), `
0600 0:0 one="2"
0644 0:0 cpu="2000"
0644 0:0 labels="a=\"\\\"1\\\"\"\nb=\"2\""
0644 0:0 memory="33554432"`)
}

// Projected: the token is asked for once, renewed at four fifths of its life,
// and the old one serves while no new one can be had.
func TestProjectedToken(t *testing.T) {
	m, w := newManager(t)
	p := podWith(v1.Volume{Name: "p", VolumeSource: v1.VolumeSource{Projected: &v1.ProjectedVolumeSource{Sources: []v1.VolumeProjection{
		{ServiceAccountToken: &v1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: ptr.To[int64](1000), Audience: "vault"}},
		{ConfigMap: &v1.ConfigMapProjection{LocalObjectReference: v1.LocalObjectReference{Name: "cm"}, Items: []v1.KeyToPath{{Key: "a", Path: "ca.crt"}}}},
		{DownwardAPI: &v1.DownwardAPIProjection{Items: []v1.DownwardAPIVolumeFile{{Path: "namespace", FieldRef: &v1.ObjectFieldSelector{FieldPath: "metadata.namespace"}}}}},
		{Secret: &v1.SecretProjection{LocalObjectReference: v1.LocalObjectReference{Name: "s"}}},
	}}}})
	next := mount(t, m, p)
	if want := w.clock.Now().Add(800 * time.Second); !next.Equal(want) {
		t.Errorf("due at %v, want %v", next, want)
	}
	rest := `
0644 0:0 ca.crt="1"
0644 0:0 key="hidden"
0644 0:0 namespace="ns"
0644 0:0 token=`
	equal(t, "projected", tree(t, m, p, 0), rest+`"token 1 of p for [vault]"`)
	refresh := func() time.Time {
		t.Helper()
		next, err := m.Refresh(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		return next
	}
	w.clock.SetTime(next.Add(-time.Second))
	refresh()
	equal(t, "before it is due", tree(t, m, p, 0), rest+`"token 1 of p for [vault]"`)
	w.clock.SetTime(next)
	w.tokenErr = errors.New("no server")
	again := refresh()
	if want := next.Add(time.Minute); !again.Equal(want) {
		t.Errorf("tried again at %v, want %v", again, want)
	}
	equal(t, "without a server", tree(t, m, p, 0), rest+`"token 1 of p for [vault]"`)
	w.clock.SetTime(again)
	w.tokenErr = nil
	refresh()
	equal(t, "renewed", tree(t, m, p, 0), rest+`"token 2 of p for [vault]"`)
}

// The clock jumps: a token is renewed that has expired by the time of day, and one
// that was issued in what is the future now. Between, it serves.
func TestTokenAfterClockJump(t *testing.T) {
	m, w := newManager(t)
	p := podWith(v1.Volume{Name: "p", VolumeSource: v1.VolumeSource{Projected: &v1.ProjectedVolumeSource{Sources: []v1.VolumeProjection{
		{ServiceAccountToken: &v1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: ptr.To[int64](3600)}},
	}}}})
	mount(t, m, p)
	for _, c := range []struct {
		jump   time.Duration
		tokens int
	}{{time.Minute, 1}, {2 * time.Hour, 2}, {-time.Hour, 3}, {time.Minute, 3}, {-24 * time.Hour, 4}} {
		w.clock.SetTime(w.clock.Now().Add(c.jump))
		if _, err := m.Refresh(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		equal(t, fmt.Sprint("after ", c.jump), tree(t, m, p, 0), fmt.Sprintf("0644 0:0 token=%q", fmt.Sprintf("token %d of p for []", c.tokens)))
	}
}

// A token is renewed by the time of day: what a machine slept through counts.
func TestTokenIsRenewedByTheTimeOfDay(t *testing.T) {
	m, _ := newManager(t)
	m.Clock = clock.RealClock{}
	p := podWith(v1.Volume{Name: "p", VolumeSource: v1.VolumeSource{Projected: &v1.ProjectedVolumeSource{Sources: []v1.VolumeProjection{
		{ServiceAccountToken: &v1.ServiceAccountTokenProjection{Path: "token"}},
	}}}})
	if next := mount(t, m, p); next != next.Round(0) {
		t.Errorf("due at %v, by the clock that cannot be set", next)
	}
}

func TestTokenOfOneUser(t *testing.T) {
	m, _ := newManager(t)
	p := podWith(v1.Volume{Name: "p", VolumeSource: v1.VolumeSource{Projected: &v1.ProjectedVolumeSource{Sources: []v1.VolumeProjection{
		{ServiceAccountToken: &v1.ServiceAccountTokenProjection{Path: "token"}},
	}}}})
	p.Spec.Containers[0].SecurityContext = &v1.SecurityContext{RunAsUser: ptr.To[int64](1234)}
	mount(t, m, p)
	equal(t, "token", tree(t, m, p, 0), `0600 1234:0 token="token 1 of p for []"`)
}

// subPath: a file or directory of a volume, made if missing, never outside.
func TestSubPath(t *testing.T) {
	m, _ := newManager(t)
	p := podWith(
		v1.Volume{Name: "e", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}},
		v1.Volume{Name: "c", VolumeSource: v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: v1.LocalObjectReference{Name: "cm"}}}},
	)
	mount(t, m, p)
	dir, _ := m.Path(p, &p.Spec.Volumes[0])
	if err := os.Symlink("/etc", filepath.Join(dir, "trap")); err != nil {
		t.Fatal(err)
	}
	c := &v1.Container{Name: "app", VolumeMounts: []v1.VolumeMount{
		{Name: "e", MountPath: "/data", SubPathExpr: "$(POD)/x"},
		{Name: "c", MountPath: "/etc/a", SubPath: "a", ReadOnly: true},
	}}
	expand := func(s string) (string, error) { return strings.ReplaceAll(s, "$(POD)", "p"), nil }
	mounts, err := m.ContainerMounts(p, c, expand)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(mounts[0].HostPath, "f"), []byte("seen"), 0o644); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "p/x/f")); err != nil || string(data) != "seen" {
		t.Errorf("subPath is not the volume's: %q %v", data, err)
	}
	if info, err := os.Stat(filepath.Join(dir, "p/x")); err != nil || info.Mode().Perm() != 0o777 {
		t.Errorf("mode of a directory made for a subPath: %v %v", info.Mode(), err)
	}
	if data, err := os.ReadFile(mounts[1].HostPath); err != nil || string(data) != "1" || !mounts[1].Readonly {
		t.Errorf("file of a ConfigMap: %q %v", data, err)
	}
	// Once more, as when the container is restarted.
	if _, err := m.ContainerMounts(p, c, expand); err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{"trap/passwd", "trap/new"} {
		c.VolumeMounts = []v1.VolumeMount{{Name: "e", MountPath: "/x", SubPath: sub}}
		if _, err := m.ContainerMounts(p, c, expand); err == nil || !strings.Contains(err.Error(), "leads out of its volume") {
			t.Errorf("subPath %s: %v", sub, err)
		}
	}
	c.VolumeMounts[0].SubPath = "a/../../x"
	if _, err := m.ContainerMounts(p, c, expand); err == nil || !strings.Contains(err.Error(), "must not contain '..'") {
		t.Errorf("subPath with ..: %v", err)
	}
	if err := m.Remove(p.UID); err != nil {
		t.Fatal(err)
	}
}

func TestReadFile(t *testing.T) {
	m, _ := newManager(t)
	p := podWith(v1.Volume{Name: "e", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}})
	mount(t, m, p)
	dir, _ := m.Path(p, &p.Spec.Volumes[0])
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "env"), []byte("A='1'\n"), 0o644), os.Symlink("/etc/passwd", filepath.Join(dir, "trap"))); err != nil {
		t.Fatal(err)
	}
	if data, err := m.ReadFile(p, "e", "env"); err != nil || string(data) != "A='1'\n" {
		t.Errorf("%q %v", data, err)
	}
	for _, path := range []string{"trap", "../../../../etc/passwd", "no"} {
		if _, err := m.ReadFile(p, "e", path); err == nil {
			t.Errorf("%s was read", path)
		}
	}
}

func TestPropagation(t *testing.T) {
	m, _ := newManager(t)
	p := podWith(v1.Volume{Name: "e", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}})
	mount(t, m, p)
	c := &v1.Container{Name: "app", VolumeMounts: []v1.VolumeMount{
		{Name: "e", MountPath: "/a"},
		{Name: "e", MountPath: "/b", MountPropagation: ptr.To(v1.MountPropagationBidirectional)},
		{Name: "e", MountPath: "/c", ReadOnly: true, RecursiveReadOnly: ptr.To(v1.RecursiveReadOnlyEnabled), MountPropagation: ptr.To(v1.MountPropagationNone)},
	}}
	mounts, err := m.ContainerMounts(p, c, nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, mt := range mounts {
		got = append(got, fmt.Sprintf("%s %s ro=%v rro=%v", mt.ContainerPath, mt.Propagation, mt.Readonly, mt.RecursiveReadOnly))
	}
	equal(t, "mounts", strings.Join(got, "\n"), `
/a PROPAGATION_PRIVATE ro=false rro=false
/b PROPAGATION_BIDIRECTIONAL ro=false rro=false
/c PROPAGATION_PRIVATE ro=true rro=true`)
}

// An image volume is mounted by the runtime, read-only.
func TestImage(t *testing.T) {
	m, _ := newManager(t)
	p := podWith(v1.Volume{Name: "i", VolumeSource: v1.VolumeSource{Image: &v1.ImageVolumeSource{Reference: "tools:1"}}})
	c := &v1.Container{Name: "app", VolumeMounts: []v1.VolumeMount{{Name: "i", MountPath: "/tools", SubPath: "bin"}}}
	mount(t, m, p)
	if _, err := m.PullImages(t.Context(), p, c); err != nil {
		t.Fatal(err)
	}
	mounts, err := m.ContainerMounts(p, c, nil)
	if err != nil {
		t.Fatal(err)
	}
	if mt := mounts[0]; mt.Image.Image != "name of tools:1" || mt.ImageSubPath != "bin" || !mt.Readonly || mt.HostPath != "" {
		t.Errorf("%v", mt)
	}
	p.Spec.Volumes[0].Image.PullPolicy = v1.PullNever
	if missing, err := m.PullImages(t.Context(), p, c); err == nil || err.Error() != "not there" || missing != "tools:1" {
		t.Errorf("%s: %v", missing, err)
	}
	if _, err := m.PullImages(t.Context(), p, &v1.Container{Name: "other"}); err != nil {
		t.Errorf("a container that does not mount it: %v", err)
	}
}
