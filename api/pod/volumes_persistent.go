package pod

import (
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Volumes of the cluster. They come from the same storage systems as a pod's
// own, but name secrets with their namespaces, having none themselves.

// persistentKinds are as volumeKinds.
var persistentKinds = []volumeKind[corev1.PersistentVolumeSource]{
	kind("hostPath", func(v *corev1.PersistentVolumeSource) *corev1.HostPathVolumeSource { return v.HostPath }, (*checker).hostPath),
	kind("persistentDisk", func(v *corev1.PersistentVolumeSource) *corev1.GCEPersistentDiskVolumeSource {
		return v.GCEPersistentDisk
	}, (*checker).gceDisk).extraNamed("gcePersistentDisk"),
	kind("awsElasticBlockStore", func(v *corev1.PersistentVolumeSource) *corev1.AWSElasticBlockStoreVolumeSource {
		return v.AWSElasticBlockStore
	}, (*checker).awsDisk),
	kind("glusterfs", func(v *corev1.PersistentVolumeSource) *corev1.GlusterfsPersistentVolumeSource { return v.Glusterfs }, (*checker).persistentGlusterfs),
	kind("flocker", func(v *corev1.PersistentVolumeSource) *corev1.FlockerVolumeSource { return v.Flocker }, (*checker).flocker),
	kind("nfs", func(v *corev1.PersistentVolumeSource) *corev1.NFSVolumeSource { return v.NFS }, (*checker).nfs),
	kind("rbd", func(v *corev1.PersistentVolumeSource) *corev1.RBDPersistentVolumeSource { return v.RBD }, (*checker).persistentRBD),
	kind("quobyte", func(v *corev1.PersistentVolumeSource) *corev1.QuobyteVolumeSource { return v.Quobyte }, (*checker).quobyte),
	kind("cephfs", func(v *corev1.PersistentVolumeSource) *corev1.CephFSPersistentVolumeSource { return v.CephFS }, (*checker).persistentCephFS).extraNamed("cephFS"),
	kind("iscsi", func(v *corev1.PersistentVolumeSource) *corev1.ISCSIPersistentVolumeSource { return v.ISCSI }, (*checker).persistentISCSI),
	kind("cinder", func(v *corev1.PersistentVolumeSource) *corev1.CinderPersistentVolumeSource { return v.Cinder }, (*checker).persistentCinder),
	kind("fc", func(v *corev1.PersistentVolumeSource) *corev1.FCVolumeSource { return v.FC }, (*checker).fibreChannel),
	flexKind(),
	kind("azureFile", func(v *corev1.PersistentVolumeSource) *corev1.AzureFilePersistentVolumeSource { return v.AzureFile }, (*checker).persistentAzureFile),
	kind("vsphereVolume", func(v *corev1.PersistentVolumeSource) *corev1.VsphereVirtualDiskVolumeSource { return v.VsphereVolume }, (*checker).vsphere),
	kind("photonPersistentDisk", func(v *corev1.PersistentVolumeSource) *corev1.PhotonPersistentDiskVolumeSource {
		return v.PhotonPersistentDisk
	}, (*checker).photon),
	kind("portworxVolume", func(v *corev1.PersistentVolumeSource) *corev1.PortworxVolumeSource { return v.PortworxVolume }, (*checker).portworx),
	kind("azureDisk", func(v *corev1.PersistentVolumeSource) *corev1.AzureDiskVolumeSource { return v.AzureDisk }, (*checker).azureDisk),
	kind("scaleIO", func(v *corev1.PersistentVolumeSource) *corev1.ScaleIOPersistentVolumeSource { return v.ScaleIO }, (*checker).persistentScaleIO),
	kind("local", func(v *corev1.PersistentVolumeSource) *corev1.LocalVolumeSource { return v.Local }, (*checker).localVolume),
	kind("storageos", func(v *corev1.PersistentVolumeSource) *corev1.StorageOSPersistentVolumeSource { return v.StorageOS }, (*checker).persistentStorageOS),
	kind("csi", func(v *corev1.PersistentVolumeSource) *corev1.CSIPersistentVolumeSource { return v.CSI }, (*checker).persistentCSI),
}

// flexKind: of all kinds, upstream lets this one pass beside another.
func flexKind() volumeKind[corev1.PersistentVolumeSource] {
	k := kind("flexVolume", func(v *corev1.PersistentVolumeSource) *corev1.FlexPersistentVolumeSource { return v.FlexVolume }, (*checker).persistentFlex)
	k.beside = true
	return k
}

// ValidatePersistentVolumeSource checks where the volume called name is, and
// answers with the field that says so.
func ValidatePersistentVolumeSource(s *corev1.PersistentVolumeSource, name string, path *field.Path) (string, field.ErrorList) {
	c := &checker{}
	kind := oneSource(c, path, persistentKinds, s)
	if v := s.ISCSI; kind == "iscsi" && v.InitiatorName != nil && len(name+":"+v.TargetPortal) > maxInitiatorName {
		c.invalid(path.Child("iscsi", "targetportal"), v.TargetPortal, initiatorTooLong)
	}
	return kind, c.errs
}

// DefaultPersistentVolumeSource fills in what the source of a volume leaves out.
func DefaultPersistentVolumeSource(s *corev1.PersistentVolumeSource) {
	if v := s.HostPath; v != nil {
		setIfNil(&v.Type, corev1.HostPathUnset)
	}
	if v := s.ISCSI; v != nil {
		setIfEmpty(&v.ISCSIInterface, "default")
	}
	if v := s.RBD; v != nil {
		setIfEmpty(&v.RBDPool, "rbd")
		setIfEmpty(&v.RadosUser, "admin")
		setIfEmpty(&v.Keyring, "/etc/ceph/keyring")
	}
	if v := s.ScaleIO; v != nil {
		setIfEmpty(&v.StorageMode, "ThinProvisioned")
		setIfEmpty(&v.FSType, "xfs")
	}
	defaultBlockVolume(&corev1.VolumeSource{AzureDisk: s.AzureDisk})
}

func (c *checker) persistentGlusterfs(at *field.Path, s *corev1.GlusterfsPersistentVolumeSource) {
	c.glusterfs(at, &corev1.GlusterfsVolumeSource{EndpointsName: s.EndpointsName, Path: s.Path})
	if s.EndpointsNamespace == nil {
		return
	}
	namespace := at.Child("endpointsNamespace")
	if *s.EndpointsNamespace == "" {
		c.invalid(namespace, "", "if the endpointnamespace is set, it must be a valid namespace name")
		return
	}
	c.reasons(namespace, *s.EndpointsNamespace, apivalidation.ValidateNamespaceName(*s.EndpointsNamespace, false))
}

func (c *checker) persistentRBD(at *field.Path, s *corev1.RBDPersistentVolumeSource) {
	c.rbd(at, &corev1.RBDVolumeSource{CephMonitors: s.CephMonitors, RBDImage: s.RBDImage})
}

func (c *checker) persistentCephFS(at *field.Path, s *corev1.CephFSPersistentVolumeSource) {
	c.cephfs(at, &corev1.CephFSVolumeSource{Monitors: s.Monitors})
}

func (c *checker) persistentISCSI(at *field.Path, s *corev1.ISCSIPersistentVolumeSource) {
	const unknown = "must be valid format"
	c.nonEmpty(at.Child("targetPortal"), s.TargetPortal)
	if c.nonEmpty(at.Child("iqn"), s.IQN) {
		c.iscsiName(at.Child("iqn"), s.IQN, unknown)
	}
	c.lun(at.Child("lun"), s.Lun)
	secret := at.Child("secretRef")
	if s.SecretRef != nil {
		c.nonEmpty(secret.Child("name"), s.SecretRef.Name)
	} else if s.DiscoveryCHAPAuth || s.SessionCHAPAuth {
		c.required(secret, "")
	}
	if s.InitiatorName != nil {
		c.iscsiName(at.Child("initiatorname"), *s.InitiatorName, unknown)
	}
}

func (c *checker) persistentCinder(at *field.Path, s *corev1.CinderPersistentVolumeSource) {
	c.nonEmpty(at.Child("volumeID"), s.VolumeID)
	if s.SecretRef != nil {
		c.nonEmpty(at.Child("secretRef", "name"), s.SecretRef.Name)
		c.nonEmpty(at.Child("secretRef", "namespace"), s.SecretRef.Namespace)
	}
}

func (c *checker) persistentFlex(at *field.Path, s *corev1.FlexPersistentVolumeSource) {
	c.flexVolume(at, &corev1.FlexVolumeSource{Driver: s.Driver, Options: s.Options})
}

func (c *checker) persistentAzureFile(at *field.Path, s *corev1.AzureFilePersistentVolumeSource) {
	c.azureFile(at, &corev1.AzureFileVolumeSource{SecretName: s.SecretName, ShareName: s.ShareName})
	if s.SecretNamespace != nil {
		c.nonEmpty(at.Child("secretNamespace"), *s.SecretNamespace)
	}
}

func (c *checker) persistentScaleIO(at *field.Path, s *corev1.ScaleIOPersistentVolumeSource) {
	c.scaleIO(at, &corev1.ScaleIOVolumeSource{Gateway: s.Gateway, System: s.System, VolumeName: s.VolumeName})
}

func (c *checker) localVolume(at *field.Path, s *corev1.LocalVolumeSource) {
	if c.nonEmpty(at.Child("path"), s.Path) {
		c.noBacksteps(at.Child("path"), s.Path)
	}
}

func (c *checker) persistentStorageOS(at *field.Path, s *corev1.StorageOSPersistentVolumeSource) {
	c.storageOS(at, &corev1.StorageOSVolumeSource{VolumeName: s.VolumeName, VolumeNamespace: s.VolumeNamespace})
	if s.SecretRef != nil {
		c.nonEmpty(at.Child("secretRef", "name"), s.SecretRef.Name)
		c.nonEmpty(at.Child("secretRef", "namespace"), s.SecretRef.Namespace)
	}
}

func (c *checker) persistentCSI(at *field.Path, s *corev1.CSIPersistentVolumeSource) {
	c.driverName(at.Child("driver"), s.Driver)
	c.nonEmpty(at.Child("volumeHandle"), s.VolumeHandle)
	for _, secret := range []struct {
		name string
		ref  *corev1.SecretReference
	}{
		{"controllerPublishSecretRef", s.ControllerPublishSecretRef},
		{"controllerExpandSecretRef", s.ControllerExpandSecretRef},
		{"nodePublishSecretRef", s.NodePublishSecretRef},
		{"nodeExpandSecretRef", s.NodeExpandSecretRef},
	} {
		if secret.ref == nil {
			continue
		}
		p := at.Child(secret.name)
		if c.nonEmpty(p.Child("name"), secret.ref.Name) {
			c.dnsSubdomain(p.Child("name"), secret.ref.Name)
		}
		if c.nonEmpty(p.Child("namespace"), secret.ref.Namespace) {
			c.dnsLabel(p.Child("namespace"), secret.ref.Namespace)
		}
	}
}
