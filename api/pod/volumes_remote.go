package pod

import (
	"net"
	"path"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Volumes on storage systems. Most of their drivers are gone; the API still
// takes them, and so their rules stand.

func (c *checker) gceDisk(at *field.Path, s *corev1.GCEPersistentDiskVolumeSource) {
	c.nonEmpty(at.Child("pdName"), s.PDName)
	c.partition(at.Child("partition"), s.Partition)
}

func (c *checker) awsDisk(at *field.Path, s *corev1.AWSElasticBlockStoreVolumeSource) {
	c.nonEmpty(at.Child("volumeID"), s.VolumeID)
	c.partition(at.Child("partition"), s.Partition)
}

// partition: 0 means the whole disk, which the message does not say.
func (c *checker) partition(at *field.Path, n int32) {
	if n < 0 || n > 255 {
		c.invalid(at, n, validation.InclusiveRangeError(1, 255))
	}
}

func (c *checker) nfs(at *field.Path, s *corev1.NFSVolumeSource) {
	c.nonEmpty(at.Child("server"), s.Server)
	c.nonEmpty(at.Child("path"), s.Path)
	if !path.IsAbs(s.Path) {
		c.invalid(at.Child("path"), s.Path, "must be an absolute path")
	}
}

// iSCSI names by their prefix (RFC 3721).
var iscsiNames = map[string]*regexp.Regexp{
	"iqn": regexp.MustCompile(`iqn\.\d{4}-\d{2}\.([[:alnum:]-.]+)(:[^,;*&$|\s]+)$`),
	"eui": regexp.MustCompile(`^eui.[[:alnum:]]{16}$`),
	"naa": regexp.MustCompile(`^naa.[[:alnum:]]{32}$`),
}

const iscsiPrefixes = "must be valid format starting with iqn, eui, or naa"

func (c *checker) iscsi(at *field.Path, s *corev1.ISCSIVolumeSource) {
	c.nonEmpty(at.Child("targetPortal"), s.TargetPortal)
	if c.nonEmpty(at.Child("iqn"), s.IQN) {
		c.iscsiName(at.Child("iqn"), s.IQN, iscsiPrefixes)
	}
	c.lun(at.Child("lun"), s.Lun)
	if (s.DiscoveryCHAPAuth || s.SessionCHAPAuth) && s.SecretRef == nil {
		c.required(at.Child("secretRef"), "")
	}
	if s.InitiatorName != nil {
		c.iscsiName(at.Child("initiatorname"), *s.InitiatorName, iscsiPrefixes)
	}
}

// Kubernetes makes an initiator of its own from the names of volume and portal.
const (
	maxInitiatorName = 64
	initiatorTooLong = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified."
)

func (c *checker) iscsiName(at *field.Path, name, unknown string) {
	for prefix, form := range iscsiNames {
		if strings.HasPrefix(name, prefix) {
			if !form.MatchString(name) {
				c.invalid(at, name, "must be valid format")
			}
			return
		}
	}
	c.invalid(at, name, unknown)
}

func (c *checker) lun(at *field.Path, n int32) {
	if n < 0 || n > 255 {
		c.invalid(at, n, validation.InclusiveRangeError(0, 255))
	}
}

func (c *checker) fibreChannel(at *field.Path, s *corev1.FCVolumeSource) {
	names := at.Child("targetWWNs")
	switch {
	case len(s.TargetWWNs) == 0 && len(s.WWIDs) == 0:
		c.required(names, "must specify either targetWWNs or wwids, but not both")
	case len(s.TargetWWNs) > 0 && len(s.WWIDs) > 0:
		c.invalid(names, s.TargetWWNs, "targetWWNs and wwids can not be specified simultaneously")
	}
	if len(s.TargetWWNs) == 0 {
		return
	}
	if s.Lun == nil {
		c.required(at.Child("lun"), "lun is required if targetWWNs is specified")
		return
	}
	c.lun(at.Child("lun"), *s.Lun)
}

func (c *checker) glusterfs(at *field.Path, s *corev1.GlusterfsVolumeSource) {
	c.nonEmpty(at.Child("endpoints"), s.EndpointsName)
	c.nonEmpty(at.Child("path"), s.Path)
}

func (c *checker) flocker(at *field.Path, s *corev1.FlockerVolumeSource) {
	if s.DatasetName == "" && s.DatasetUUID == "" {
		c.required(at, "one of datasetName and datasetUUID is required")
	}
	if s.DatasetName != "" && s.DatasetUUID != "" {
		c.invalid(at, "resource", "datasetName and datasetUUID can not be specified simultaneously")
	}
	if strings.Contains(s.DatasetName, "/") {
		c.invalid(at.Child("datasetName"), s.DatasetName, "must not contain '/'")
	}
}

func (c *checker) rbd(at *field.Path, s *corev1.RBDVolumeSource) {
	if len(s.CephMonitors) == 0 {
		c.required(at.Child("monitors"), "")
	}
	c.nonEmpty(at.Child("image"), s.RBDImage)
}

func (c *checker) cephfs(at *field.Path, s *corev1.CephFSVolumeSource) {
	if len(s.Monitors) == 0 {
		c.required(at.Child("monitors"), "")
	}
}

func (c *checker) cinder(at *field.Path, s *corev1.CinderVolumeSource) {
	c.nonEmpty(at.Child("volumeID"), s.VolumeID)
	c.namedRef(at.Child("secretRef"), s.SecretRef)
}

func (c *checker) namedRef(at *field.Path, ref *corev1.LocalObjectReference) {
	if ref != nil {
		c.nonEmpty(at.Child("name"), ref.Name)
	}
}

func (c *checker) quobyte(at *field.Path, s *corev1.QuobyteVolumeSource) {
	const form = "must be a host:port pair or multiple pairs separated by commas"
	registry := at.Child("registry")
	switch {
	case s.Registry == "":
		c.required(registry, form)
	case len(s.Tenant) >= 65:
		c.required(at.Child("tenant"), "must be a UUID and may not exceed a length of 64 characters")
	default:
		for pair := range strings.SplitSeq(s.Registry, ",") {
			if _, _, err := net.SplitHostPort(pair); err != nil {
				c.invalid(registry, s.Registry, form)
			}
		}
	}
	c.nonEmpty(at.Child("volume"), s.Volume)
}

func (c *checker) flexVolume(at *field.Path, s *corev1.FlexVolumeSource) {
	c.nonEmpty(at.Child("driver"), s.Driver)
	for _, option := range sortedKeys(s.Options) {
		namespace, _, _ := strings.Cut(option, "/")
		namespace = "." + strings.ToLower(namespace)
		if strings.HasSuffix(namespace, ".kubernetes.io") || strings.HasSuffix(namespace, ".k8s.io") {
			c.invalid(at.Child("options").Key(option), option, "kubernetes.io and k8s.io namespaces are reserved")
		}
	}
}

func (c *checker) azureFile(at *field.Path, s *corev1.AzureFileVolumeSource) {
	c.nonEmpty(at.Child("secretName"), s.SecretName)
	c.nonEmpty(at.Child("shareName"), s.ShareName)
}

func (c *checker) azureDisk(at *field.Path, s *corev1.AzureDiskVolumeSource) {
	uri := at.Child("diskURI")
	c.nonEmpty(at.Child("diskName"), s.DiskName)
	c.nonEmpty(uri, s.DataDiskURI)
	optionalOneOf(c, at.Child("cachingMode"), s.CachingMode,
		corev1.AzureDataDiskCachingNone, corev1.AzureDataDiskCachingReadOnly, corev1.AzureDataDiskCachingReadWrite)
	optionalOneOf(c, at.Child("kind"), s.Kind,
		corev1.AzureDedicatedBlobDisk, corev1.AzureManagedDisk, corev1.AzureSharedBlobDisk)
	if s.Kind == nil {
		return
	}
	prefix, form := "https://", "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"
	if *s.Kind == corev1.AzureManagedDisk {
		prefix, form = "/subscriptions/", "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"
	}
	if !strings.HasPrefix(s.DataDiskURI, prefix) {
		c.add(field.NotSupported(uri, s.DataDiskURI, []string{form}))
	}
}

func (c *checker) vsphere(at *field.Path, s *corev1.VsphereVirtualDiskVolumeSource) {
	c.nonEmpty(at.Child("volumePath"), s.VolumePath)
}

func (c *checker) photon(at *field.Path, s *corev1.PhotonPersistentDiskVolumeSource) {
	c.nonEmpty(at.Child("pdID"), s.PdID)
}

func (c *checker) portworx(at *field.Path, s *corev1.PortworxVolumeSource) {
	c.nonEmpty(at.Child("volumeID"), s.VolumeID)
}

func (c *checker) scaleIO(at *field.Path, s *corev1.ScaleIOVolumeSource) {
	c.nonEmpty(at.Child("gateway"), s.Gateway)
	c.nonEmpty(at.Child("system"), s.System)
	c.nonEmpty(at.Child("volumeName"), s.VolumeName)
}

func (c *checker) storageOS(at *field.Path, s *corev1.StorageOSVolumeSource) {
	if c.nonEmpty(at.Child("volumeName"), s.VolumeName) {
		c.dnsLabel(at.Child("volumeName"), s.VolumeName)
	}
	if s.VolumeNamespace != "" {
		c.dnsLabel(at.Child("volumeNamespace"), s.VolumeNamespace)
	}
	c.namedRef(at.Child("secretRef"), s.SecretRef)
}

// maxDriverName is the longest name of a CSI driver, in bytes.
const maxDriverName = 63

func (c *checker) csi(at *field.Path, s *corev1.CSIVolumeSource) {
	c.driverName(at.Child("driver"), s.Driver)
	if ref := s.NodePublishSecretRef; ref != nil && c.nonEmpty(at.Child("nodePublishSecretRef", "name"), ref.Name) {
		c.reasons(at.Child("name"), ref.Name, apivalidation.NameIsDNSSubdomain(ref.Name, false))
	}
}

// ValidateDriverName checks the name of a CSI driver, which may have capitals.
func ValidateDriverName(name string, path *field.Path) field.ErrorList {
	c := &checker{}
	c.driverName(path, name)
	return c.errs
}

func (c *checker) driverName(at *field.Path, name string) {
	if !c.nonEmpty(at, name) {
		return
	}
	if len(name) > maxDriverName {
		c.add(field.TooLong(at, "", maxDriverName))
	}
	c.reasons(at, name, validation.IsDNS1123Subdomain(strings.ToLower(name)))
}
