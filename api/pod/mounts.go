package pod

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// volumeMounts checks where a container sees the pod's volumes as directories.
// volumes holds the valid ones: a mount of an invalid volume is not found.
func (c *checker) volumeMounts(at *field.Path, ctr *corev1.Container, volumes map[string]*corev1.VolumeSource) {
	devices, devicePaths := sets.New[string](), sets.New[string]()
	for _, d := range ctr.VolumeDevices {
		devices.Insert(d.Name)
		devicePaths.Insert(d.DevicePath)
	}
	paths := sets.New[string]()
	for i, m := range ctr.VolumeMounts {
		p := at.Index(i)
		c.nonEmpty(p.Child("name"), m.Name)
		if volumes[m.Name] == nil {
			c.notFound(p.Child("name"), m.Name)
		}
		c.nonEmpty(p.Child("mountPath"), m.MountPath)
		if paths.Has(m.MountPath) {
			c.invalid(p.Child("mountPath"), m.MountPath, "must be unique")
		}
		paths.Insert(m.MountPath)
		if devices.Has(m.Name) {
			c.invalid(p.Child("name"), m.Name, "must not already exist in volumeDevices")
		}
		if devicePaths.Has(m.MountPath) {
			c.invalid(p.Child("mountPath"), m.MountPath, "must not already exist as a path in volumeDevices")
		}
		// From here on upstream names the list, not the item.
		if m.SubPath != "" {
			c.relativePath(at.Child("subPath"), m.SubPath)
		}
		if m.SubPathExpr != "" {
			if m.SubPath != "" {
				c.invalid(p.Child("subPathExpr"), m.SubPathExpr, "subPathExpr and subPath are mutually exclusive")
			}
			c.relativePath(at.Child("subPathExpr"), m.SubPathExpr)
		}
		c.mountPropagation(at.Child("mountPropagation"), m.MountPropagation, ctr)
		c.recursiveReadOnly(at.Child("recursiveReadOnly"), &m)
	}
}

func (c *checker) mountPropagation(at *field.Path, mode *corev1.MountPropagationMode, ctr *corev1.Container) {
	optionalOneOf(c, at, mode, corev1.MountPropagationBidirectional, corev1.MountPropagationHostToContainer, corev1.MountPropagationNone)
	privileged := ctr.SecurityContext != nil && isTrue(ctr.SecurityContext.Privileged)
	if mode != nil && *mode == corev1.MountPropagationBidirectional && !privileged {
		c.forbidden(at, "Bidirectional mount propagation is available only to privileged containers")
	}
}

func (c *checker) recursiveReadOnly(at *field.Path, m *corev1.VolumeMount) {
	if m.RecursiveReadOnly == nil || *m.RecursiveReadOnly == corev1.RecursiveReadOnlyDisabled {
		return
	}
	if !oneOf(c, at, *m.RecursiveReadOnly, corev1.RecursiveReadOnlyDisabled, corev1.RecursiveReadOnlyEnabled, corev1.RecursiveReadOnlyIfPossible) {
		return
	}
	if !m.ReadOnly {
		c.forbidden(at, "may only be specified when readOnly is true")
	}
	if m.MountPropagation != nil && *m.MountPropagation != corev1.MountPropagationNone {
		c.forbidden(at, "may only be specified when mountPropagation is None or not specified")
	}
}

// volumeDevices checks where a container sees claims as raw block devices.
func (c *checker) volumeDevices(at *field.Path, ctr *corev1.Container, volumes map[string]*corev1.VolumeSource) {
	mounts, mountPaths := sets.New[string](), sets.New[string]()
	for _, m := range ctr.VolumeMounts {
		mounts.Insert(m.Name)
		mountPaths.Insert(m.MountPath)
	}
	names, paths := sets.New[string](), sets.New[string]()
	for i, d := range ctr.VolumeDevices {
		name, path := at.Index(i).Child("name"), at.Index(i).Child("devicePath")
		c.nonEmpty(name, d.Name)
		if names.Has(d.Name) {
			c.invalid(name, d.Name, "must be unique")
		}
		switch v := volumes[d.Name]; {
		case v == nil:
			c.notFound(name, d.Name)
		case v.PersistentVolumeClaim == nil && v.Ephemeral == nil:
			c.invalid(name, d.Name, "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode")
		}
		c.nonEmpty(path, d.DevicePath)
		if paths.Has(d.DevicePath) {
			c.invalid(path, d.DevicePath, "must be unique")
		}
		if hasBackstep(d.DevicePath) {
			c.invalid(path, d.DevicePath, "can not contain backsteps ('..')")
		} else {
			paths.Insert(d.DevicePath)
		}
		if mounts.Has(d.Name) {
			c.invalid(name, d.Name, "must not already exist in volumeMounts")
		}
		if mountPaths.Has(d.DevicePath) {
			c.invalid(path, d.DevicePath, "must not already exist as a path in volumeMounts")
		}
		if d.Name != "" {
			names.Insert(d.Name)
		}
	}
}
