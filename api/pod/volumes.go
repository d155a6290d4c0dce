package pod

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// volumes answers with the valid volumes by name.
func (c *checker) volumes(at *field.Path, volumes []corev1.Volume, meta *metav1.ObjectMeta) map[string]*corev1.VolumeSource {
	// Claims made for the pod are named after it and the volume.
	made := sets.New[string]()
	podName := ""
	if meta != nil {
		podName = meta.Name
	}
	if podName != "" {
		for _, v := range volumes {
			if v.Ephemeral != nil {
				made.Insert(podName + "-" + v.Name)
			}
		}
	}
	valid := make(map[string]*corev1.VolumeSource, len(volumes))
	for i := range volumes {
		v, p := &volumes[i], at.Index(i)
		before := len(c.errs)
		c.volumeSource(p, v, podName)
		if c.nonEmpty(p.Child("name"), v.Name) {
			c.dnsLabel(p.Child("name"), v.Name)
		}
		if valid[v.Name] != nil {
			c.duplicate(p.Child("name"), v.Name)
		}
		if len(c.errs) == before {
			valid[v.Name] = &v.VolumeSource
		}
		if claim := v.PersistentVolumeClaim; claim != nil && made.Has(claim.ClaimName) {
			c.invalid(p.Child("persistentVolumeClaim", "claimName"), claim.ClaimName,
				"must not reference a PVC that gets created for an ephemeral volume")
		}
	}
	return valid
}

// volumeKind is one way to get a volume, in a pod or in the cluster: V is the
// struct with a pointer for each. In a few cases upstream names the field
// otherwise, when it is one too many (extra) or in what is wrong with it (name).
type volumeKind[V any] struct {
	name, extra string
	beside      bool // never one too many
	set         func(*V) bool
	check       func(*checker, *field.Path, *V)
}

// kind makes a row from the pointer of a source and the check of what it
// points to.
func kind[V, S any](name string, get func(*V) *S, check func(*checker, *field.Path, *S)) volumeKind[V] {
	return volumeKind[V]{
		name: name, extra: name,
		set:   func(v *V) bool { return get(v) != nil },
		check: func(c *checker, p *field.Path, v *V) { check(c, p, get(v)) },
	}
}

func (k volumeKind[V]) extraNamed(name string) volumeKind[V] {
	k.extra = name
	return k
}

// oneSource checks that there is one source, and that; it answers with its name.
func oneSource[V any](c *checker, at *field.Path, kinds []volumeKind[V], v *V) string {
	var first string
	for _, k := range kinds {
		switch {
		case !k.set(v):
		case first != "" && !k.beside:
			c.forbidden(at.Child(k.extra), "may not specify more than 1 volume type")
		default:
			if first == "" {
				first = k.name
			}
			k.check(c, at.Child(k.name), v)
		}
	}
	if first == "" {
		c.required(at, "must specify a volume type")
	}
	return first
}

// volumeKinds are in the order in which they take precedence: the first that is
// set is checked, the others are one too many.
var volumeKinds = []volumeKind[corev1.VolumeSource]{
	kind("emptyDir", func(v *corev1.VolumeSource) *corev1.EmptyDirVolumeSource { return v.EmptyDir }, (*checker).emptyDir),
	kind("hostPath", func(v *corev1.VolumeSource) *corev1.HostPathVolumeSource { return v.HostPath }, (*checker).hostPath),
	kind("gitRepo", func(v *corev1.VolumeSource) *corev1.GitRepoVolumeSource { return v.GitRepo }, (*checker).gitRepo),
	kind("persistentDisk", func(v *corev1.VolumeSource) *corev1.GCEPersistentDiskVolumeSource { return v.GCEPersistentDisk }, (*checker).gceDisk).extraNamed("gcePersistentDisk"),
	kind("awsElasticBlockStore", func(v *corev1.VolumeSource) *corev1.AWSElasticBlockStoreVolumeSource { return v.AWSElasticBlockStore }, (*checker).awsDisk),
	kind("secret", func(v *corev1.VolumeSource) *corev1.SecretVolumeSource { return v.Secret }, (*checker).secretVolume),
	kind("nfs", func(v *corev1.VolumeSource) *corev1.NFSVolumeSource { return v.NFS }, (*checker).nfs),
	kind("iscsi", func(v *corev1.VolumeSource) *corev1.ISCSIVolumeSource { return v.ISCSI }, (*checker).iscsi),
	kind("glusterfs", func(v *corev1.VolumeSource) *corev1.GlusterfsVolumeSource { return v.Glusterfs }, (*checker).glusterfs),
	kind("flocker", func(v *corev1.VolumeSource) *corev1.FlockerVolumeSource { return v.Flocker }, (*checker).flocker),
	kind("persistentVolumeClaim", func(v *corev1.VolumeSource) *corev1.PersistentVolumeClaimVolumeSource { return v.PersistentVolumeClaim }, (*checker).claimVolume),
	kind("rbd", func(v *corev1.VolumeSource) *corev1.RBDVolumeSource { return v.RBD }, (*checker).rbd),
	kind("cinder", func(v *corev1.VolumeSource) *corev1.CinderVolumeSource { return v.Cinder }, (*checker).cinder),
	kind("cephfs", func(v *corev1.VolumeSource) *corev1.CephFSVolumeSource { return v.CephFS }, (*checker).cephfs).extraNamed("cephFS"),
	kind("quobyte", func(v *corev1.VolumeSource) *corev1.QuobyteVolumeSource { return v.Quobyte }, (*checker).quobyte),
	kind("downwardAPI", func(v *corev1.VolumeSource) *corev1.DownwardAPIVolumeSource { return v.DownwardAPI }, (*checker).downwardVolume).extraNamed("downwarAPI"),
	kind("fc", func(v *corev1.VolumeSource) *corev1.FCVolumeSource { return v.FC }, (*checker).fibreChannel),
	kind("flexVolume", func(v *corev1.VolumeSource) *corev1.FlexVolumeSource { return v.FlexVolume }, (*checker).flexVolume),
	kind("configMap", func(v *corev1.VolumeSource) *corev1.ConfigMapVolumeSource { return v.ConfigMap }, (*checker).configMapVolume),
	kind("azureFile", func(v *corev1.VolumeSource) *corev1.AzureFileVolumeSource { return v.AzureFile }, (*checker).azureFile),
	kind("vsphereVolume", func(v *corev1.VolumeSource) *corev1.VsphereVirtualDiskVolumeSource { return v.VsphereVolume }, (*checker).vsphere),
	kind("photonPersistentDisk", func(v *corev1.VolumeSource) *corev1.PhotonPersistentDiskVolumeSource { return v.PhotonPersistentDisk }, (*checker).photon),
	kind("portworxVolume", func(v *corev1.VolumeSource) *corev1.PortworxVolumeSource { return v.PortworxVolume }, (*checker).portworx),
	kind("azureDisk", func(v *corev1.VolumeSource) *corev1.AzureDiskVolumeSource { return v.AzureDisk }, (*checker).azureDisk),
	kind("storageos", func(v *corev1.VolumeSource) *corev1.StorageOSVolumeSource { return v.StorageOS }, (*checker).storageOS),
	kind("projected", func(v *corev1.VolumeSource) *corev1.ProjectedVolumeSource { return v.Projected }, (*checker).projectedVolume),
	kind("scaleIO", func(v *corev1.VolumeSource) *corev1.ScaleIOVolumeSource { return v.ScaleIO }, (*checker).scaleIO),
	kind("csi", func(v *corev1.VolumeSource) *corev1.CSIVolumeSource { return v.CSI }, (*checker).csi),
	kind("ephemeral", func(v *corev1.VolumeSource) *corev1.EphemeralVolumeSource { return v.Ephemeral }, (*checker).ephemeralVolume),
	kind("image", func(v *corev1.VolumeSource) *corev1.ImageVolumeSource { return v.Image }, (*checker).imageVolume),
}

func (c *checker) volumeSource(at *field.Path, v *corev1.Volume, podName string) {
	if oneSource(c, at, volumeKinds, &v.VolumeSource) == "ephemeral" && podName != "" && v.Name != "" {
		claim := podName + "-" + v.Name
		for _, reason := range apivalidation.NameIsDNSSubdomain(claim, false) {
			c.invalid(at.Child("name"), v.Name, fmt.Sprintf("PVC name %q: %v", claim, reason))
		}
	}
	if s := v.ISCSI; s != nil && s.InitiatorName != nil && len(v.Name+":"+s.TargetPortal) > maxInitiatorName {
		c.invalid(at.Child("name"), v.Name, initiatorTooLong)
	}
}

func (c *checker) emptyDir(at *field.Path, s *corev1.EmptyDirVolumeSource) {
	if s.SizeLimit != nil && s.SizeLimit.Sign() < 0 {
		c.forbidden(at.Child("sizeLimit"), "SizeLimit field must be a valid resource quantity")
	}
}

func (c *checker) hostPath(at *field.Path, s *corev1.HostPathVolumeSource) {
	if !c.nonEmpty(at.Child("path"), s.Path) {
		return
	}
	c.noBacksteps(at.Child("path"), s.Path)
	optionalOneOf(c, at.Child("type"), s.Type,
		corev1.HostPathUnset, corev1.HostPathBlockDev, corev1.HostPathCharDev, corev1.HostPathDirectory,
		corev1.HostPathDirectoryOrCreate, corev1.HostPathFile, corev1.HostPathFileOrCreate, corev1.HostPathSocket)
}

func (c *checker) gitRepo(at *field.Path, s *corev1.GitRepoVolumeSource) {
	c.nonEmpty(at.Child("repository"), s.Repository)
	c.relativePath(at.Child("directory"), s.Directory)
}

func (c *checker) secretVolume(at *field.Path, s *corev1.SecretVolumeSource) {
	c.nonEmpty(at.Child("secretName"), s.SecretName)
	c.fileMode(at.Child("defaultMode"), s.DefaultMode)
	c.keysToPaths(at.Child("items"), s.Items)
}

func (c *checker) configMapVolume(at *field.Path, s *corev1.ConfigMapVolumeSource) {
	c.nonEmpty(at.Child("name"), s.Name)
	c.fileMode(at.Child("defaultMode"), s.DefaultMode)
	c.keysToPaths(at.Child("items"), s.Items)
}

func (c *checker) keysToPaths(at *field.Path, items []corev1.KeyToPath) {
	for i, item := range items {
		p := at.Index(i)
		c.nonEmpty(p.Child("key"), item.Key)
		c.nonEmpty(p.Child("path"), item.Path)
		c.plainRelativePath(p.Child("path"), item.Path)
		c.fileMode(p.Child("mode"), item.Mode)
	}
}

func (c *checker) claimVolume(at *field.Path, s *corev1.PersistentVolumeClaimVolumeSource) {
	c.nonEmpty(at.Child("claimName"), s.ClaimName)
}

func (c *checker) imageVolume(at *field.Path, s *corev1.ImageVolumeSource) {
	if !c.emptyImageReference {
		c.nonEmpty(at.Child("reference"), s.Reference)
	}
	c.pullPolicy(at.Child("pullPolicy"), s.PullPolicy)
}
