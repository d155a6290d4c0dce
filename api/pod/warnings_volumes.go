package pod

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// retiredVolumes are kinds that nodes no longer know.
var retiredVolumes = []struct {
	name, text string
	set        func(*corev1.VolumeSource) bool
}{
	{"photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+", func(v *corev1.VolumeSource) bool { return v.PhotonPersistentDisk != nil }},
	{"gitRepo", "deprecated in v1.11, and disabled by default in v1.33+", func(v *corev1.VolumeSource) bool { return v.GitRepo != nil }},
	{"scaleIO", "deprecated in v1.16, non-functional in v1.22+", func(v *corev1.VolumeSource) bool { return v.ScaleIO != nil }},
	{"flocker", "deprecated in v1.22, non-functional in v1.25+", func(v *corev1.VolumeSource) bool { return v.Flocker != nil }},
	{"storageOS", "deprecated in v1.22, non-functional in v1.25+", func(v *corev1.VolumeSource) bool { return v.StorageOS != nil }},
	{"quobyte", "deprecated in v1.22, non-functional in v1.25+", func(v *corev1.VolumeSource) bool { return v.Quobyte != nil }},
	{"glusterfs", "deprecated in v1.25, non-functional in v1.26+", func(v *corev1.VolumeSource) bool { return v.Glusterfs != nil }},
	{"cephfs", "deprecated in v1.28, non-functional in v1.31+", func(v *corev1.VolumeSource) bool { return v.CephFS != nil }},
	{"rbd", "deprecated in v1.28, non-functional in v1.31+", func(v *corev1.VolumeSource) bool { return v.RBD != nil }},
}

func (w *warner) volumes(at *field.Path, volumes []corev1.Volume) {
	for i := range volumes {
		v, p := &volumes[i], at.Index(i)
		for _, r := range retiredVolumes {
			if r.set(&v.VolumeSource) {
				w.add("%s: %s", p.Child(r.name), r.text)
			}
		}
		if e := v.Ephemeral; e != nil && e.VolumeClaimTemplate != nil {
			w.claimSpec(p.Child("ephemeral", "volumeClaimTemplate", "spec"), &e.VolumeClaimTemplate.Spec)
		}
	}
	for i := range volumes {
		w.overlappingFiles(&volumes[i])
	}
}

func (w *warner) claimSpec(at *field.Path, s *corev1.PersistentVolumeClaimSpec) {
	w.fraction(at.Child("resources", "requests"), s.Resources.Requests, corev1.ResourceStorage)
	w.fraction(at.Child("resources", "limits"), s.Resources.Limits, corev1.ResourceStorage)
}

// volumeFile is a file that a volume consists of; source says which part of a
// projected volume writes it.
type volumeFile struct{ path, source string }

func (f volumeFile) String() string {
	if f.source == "" {
		return fmt.Sprintf("%q", f.path)
	}
	return fmt.Sprintf("%q (%s)", f.path, f.source)
}

// clashes: the same file, or one that is the other's directory.
func (f volumeFile) clashes(o volumeFile) bool {
	return f.path != "" && o.path != "" &&
		(strings.HasPrefix(f.path+"/", o.path+"/") || strings.HasPrefix(o.path+"/", f.path+"/"))
}

func (w *warner) overlappingFiles(v *corev1.Volume) {
	if s := v.ConfigMap; s != nil {
		w.overlaps(v.Name, fmt.Sprintf("ConfigMap %q", s.Name), keyFiles(s.Items, ""))
	}
	if s := v.Secret; s != nil {
		w.overlaps(v.Name, fmt.Sprintf("Secret %q", s.SecretName), keyFiles(s.Items, ""))
	}
	if s := v.DownwardAPI; s != nil {
		w.overlaps(v.Name, "DownwardAPI", downwardFiles(s.Items, ""))
	}
	if s := v.Projected; s != nil {
		var files []volumeFile
		for i := range s.Sources {
			if s.Sources[i] == (corev1.VolumeProjection{}) {
				w.add("volume %q (Projected) has no sources provided", v.Name)
				continue
			}
			files = append(files, projectedFiles(&s.Sources[i])...)
		}
		w.overlaps(v.Name, "Projected", files)
	}
}

func (w *warner) overlaps(volume, kind string, files []volumeFile) {
	for i := range files {
		files[i].path = strings.TrimRight(files[i].path, "/")
		for _, before := range files[:i] {
			if files[i].clashes(before) {
				w.add("volume %q (%s): overlapping paths: %v with %v", volume, kind, files[i], before)
			}
		}
	}
}

func keyFiles(items []corev1.KeyToPath, source string) []volumeFile {
	files := make([]volumeFile, 0, len(items))
	for _, item := range items {
		files = append(files, volumeFile{item.Path, source})
	}
	return files
}

func downwardFiles(items []corev1.DownwardAPIVolumeFile, source string) []volumeFile {
	files := make([]volumeFile, 0, len(items))
	for _, item := range items {
		files = append(files, volumeFile{item.Path, source})
	}
	return files
}

func projectedFiles(p *corev1.VolumeProjection) []volumeFile {
	switch {
	case p.ConfigMap != nil && p.ConfigMap.Items != nil:
		return keyFiles(p.ConfigMap.Items, fmt.Sprintf("ConfigMap %q", p.ConfigMap.Name))
	case p.Secret != nil && p.Secret.Items != nil:
		return keyFiles(p.Secret.Items, fmt.Sprintf("Secret %q", p.Secret.Name))
	case p.DownwardAPI != nil && p.DownwardAPI.Items != nil:
		return downwardFiles(p.DownwardAPI.Items, "DownwardAPI")
	case p.ServiceAccountToken != nil:
		return []volumeFile{{p.ServiceAccountToken.Path, "ServiceAccountToken"}}
	case p.ClusterTrustBundle != nil:
		b := p.ClusterTrustBundle
		name := b.Name
		if name == nil {
			name = b.SignerName
		}
		return []volumeFile{{b.Path, fmt.Sprintf("ClusterTrustBundle %q", deref(name))}}
	case p.PodCertificate != nil:
		var files []volumeFile
		for _, f := range []volumeFile{
			{p.PodCertificate.CertificateChainPath, "PodCertificate chain"},
			{p.PodCertificate.KeyPath, "PodCertificate key"},
			{p.PodCertificate.CredentialBundlePath, "PodCertificate credential bundle"},
		} {
			if f.path != "" {
				files = append(files, f)
			}
		}
		return files
	}
	return nil
}
