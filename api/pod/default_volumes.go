package pod

import (
	"reflect"

	corev1 "k8s.io/api/core/v1"
)

// tokenLifetime is how long a projected service account token lives unless the
// pod says otherwise, in seconds.
const tokenLifetime int64 = 3600

// defaultVolume treats every source that is set, also when there is more than
// one: that is for validation to refuse.
func defaultVolume(v *corev1.Volume) {
	if reflect.ValueOf(v.VolumeSource).IsZero() {
		v.EmptyDir = &corev1.EmptyDirVolumeSource{}
	}
	if s := v.HostPath; s != nil {
		setIfNil(&s.Type, corev1.HostPathUnset)
	}
	if s := v.Image; s != nil {
		setIfEmpty(&s.PullPolicy, pullPolicyFor(s.Reference))
	}
	if s := v.Secret; s != nil {
		setIfNil(&s.DefaultMode, corev1.SecretVolumeSourceDefaultMode)
	}
	if s := v.ConfigMap; s != nil {
		setIfNil(&s.DefaultMode, corev1.ConfigMapVolumeSourceDefaultMode)
	}
	if s := v.DownwardAPI; s != nil {
		setIfNil(&s.DefaultMode, corev1.DownwardAPIVolumeSourceDefaultMode)
		defaultDownwardFiles(s.Items)
	}
	if s := v.Projected; s != nil {
		defaultProjected(s)
	}
	if s := v.Ephemeral; s != nil && s.VolumeClaimTemplate != nil {
		DefaultClaimSpec(&s.VolumeClaimTemplate.Spec)
	}
	defaultBlockVolume(&v.VolumeSource)
}

// DefaultClaimSpec fills in what the spec of a claim for a volume leaves out.
func DefaultClaimSpec(s *corev1.PersistentVolumeClaimSpec) {
	setIfNil(&s.VolumeMode, corev1.PersistentVolumeFilesystem)
	roundUp(s.Resources.Limits)
	roundUp(s.Resources.Requests)
}

func defaultDownwardFiles(files []corev1.DownwardAPIVolumeFile) {
	for i := range files {
		defaultFieldRef(files[i].FieldRef)
	}
}

func defaultProjected(s *corev1.ProjectedVolumeSource) {
	setIfNil(&s.DefaultMode, corev1.ProjectedVolumeSourceDefaultMode)
	for i := range s.Sources {
		src := &s.Sources[i]
		if src.DownwardAPI != nil {
			defaultDownwardFiles(src.DownwardAPI.Items)
		}
		if src.ServiceAccountToken != nil {
			setIfNil(&src.ServiceAccountToken.ExpirationSeconds, tokenLifetime)
		}
	}
}

// defaultBlockVolume: constants of storage systems that have no CSI driver in
// the pod's own terms.
func defaultBlockVolume(v *corev1.VolumeSource) {
	if s := v.ISCSI; s != nil {
		setIfEmpty(&s.ISCSIInterface, "default")
	}
	if s := v.RBD; s != nil {
		setIfEmpty(&s.RBDPool, "rbd")
		setIfEmpty(&s.RadosUser, "admin")
		setIfEmpty(&s.Keyring, "/etc/ceph/keyring")
	}
	if s := v.ScaleIO; s != nil {
		setIfEmpty(&s.StorageMode, "ThinProvisioned")
		setIfEmpty(&s.FSType, "xfs")
	}
	if s := v.AzureDisk; s != nil {
		setIfNil(&s.CachingMode, corev1.AzureDataDiskCachingReadWrite)
		setIfNil(&s.Kind, corev1.AzureSharedBlobDisk)
		setIfNil(&s.FSType, "ext4")
		setIfNil(&s.ReadOnly, false)
	}
}
