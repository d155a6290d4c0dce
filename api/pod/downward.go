package pod

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// envFields and fileFields are what a container may learn of its own pod,
// sorted as the message lists them. Single labels and annotations can be had by
// a subscript besides.
var (
	envFields = []string{
		"metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
		"status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs",
	}
	fileFields = []string{
		"metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid",
	}
	resourceFields = []string{
		"limits.cpu", "limits.ephemeral-storage", "limits.memory",
		"requests.cpu", "requests.ephemeral-storage", "requests.memory",
	}
)

// podFields are all fields of a pod that have a name in v1, whether a container
// may see them or not.
var podFields = []string{
	"metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid",
	"spec.nodeName", "spec.restartPolicy", "spec.serviceAccountName", "spec.schedulerName",
	"status.phase", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs",
}

func (c *checker) fieldRef(at *field.Path, r *corev1.ObjectFieldSelector, allowed []string) {
	if !c.nonEmpty(at.Child("apiVersion"), r.APIVersion) {
		return
	}
	path := at.Child("fieldPath")
	if !c.nonEmpty(path, r.FieldPath) {
		return
	}
	name, key, subscripted := splitSubscript(r.FieldPath)
	if reason := unknownField(r.APIVersion, r.FieldPath, name, subscripted); reason != "" {
		c.invalid(path, r.FieldPath, "error converting fieldPath: "+reason)
		return
	}
	switch {
	case subscripted && name == "metadata.annotations":
		c.qualifiedName(at, strings.ToLower(key))
	case subscripted:
		c.qualifiedName(at, key)
	default:
		if name == "spec.host" {
			name = "spec.nodeName"
		}
		oneOf(c, path, name, allowed...)
	}
}

// unknownField says why a field path means nothing, if so. spec.host is the old
// name of spec.nodeName.
func unknownField(version, label, name string, subscripted bool) string {
	switch {
	case version != "v1":
		return "unsupported pod version: " + version
	case subscripted && name != "metadata.annotations" && name != "metadata.labels":
		return "field label does not support subscript: " + label
	case subscripted || name == "spec.host" || slices.Contains(podFields, name):
		return ""
	}
	return "field label not supported: " + label
}

// splitSubscript takes metadata.labels['KEY'] apart.
func splitSubscript(path string) (name, key string, ok bool) {
	rest, ok := strings.CutSuffix(path, "']")
	if !ok {
		return path, "", false
	}
	name, key, ok = strings.Cut(rest, "['")
	if !ok || name == "" {
		return path, "", false
	}
	return name, key, true
}

// byteDivisors are the units in which an amount of bytes can be told.
var byteDivisors = []string{"1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"}

// resourceFieldRef checks a limit or request that a container is told. In a
// volume it must say whose.
func (c *checker) resourceFieldRef(at *field.Path, r *corev1.ResourceFieldSelector, volume bool) {
	hugePages := strings.HasPrefix(r.Resource, "requests.hugepages-") || strings.HasPrefix(r.Resource, "limits.hugepages-")
	switch {
	case volume && r.ContainerName == "":
		c.required(at.Child("containerName"), "")
	case r.Resource == "":
		c.required(at.Child("resource"), "")
	case !hugePages:
		oneOf(c, at.Child("resource"), r.Resource, resourceFields...)
	}
	if r.Divisor.IsZero() {
		return
	}
	divisor := r.Divisor.String()
	bytesOf := func(what string) {
		if !slices.Contains(byteDivisors, divisor) {
			c.invalid(at.Child("divisor"), r.Resource,
				fmt.Sprintf("only divisor's values %s are supported with the %s resource", strings.Join(byteDivisors, ", "), what))
		}
	}
	switch r.Resource {
	case "limits.cpu", "requests.cpu":
		if divisor != "1" && divisor != "1m" {
			c.invalid(at.Child("divisor"), r.Resource, "only divisor's values 1m and 1 are supported with the cpu resource")
		}
	case "limits.memory", "requests.memory":
		bytesOf("memory")
	case "limits.ephemeral-storage", "requests.ephemeral-storage":
		bytesOf("local ephemeral storage")
	default:
		if hugePages {
			bytesOf("hugepages")
		}
	}
}

// downwardVolume reports its files at the volume, without their index, as
// upstream does.
func (c *checker) downwardVolume(at *field.Path, s *corev1.DownwardAPIVolumeSource) {
	c.fileMode(at.Child("defaultMode"), s.DefaultMode)
	for i := range s.Items {
		c.downwardFile(at, &s.Items[i])
	}
}

func (c *checker) downwardFile(at *field.Path, f *corev1.DownwardAPIVolumeFile) {
	c.nonEmpty(at.Child("path"), f.Path)
	c.plainRelativePath(at.Child("path"), f.Path)
	switch {
	case f.FieldRef != nil:
		c.fieldRef(at.Child("fieldRef"), f.FieldRef, fileFields)
		if f.ResourceFieldRef != nil {
			c.invalid(at, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously")
		}
	case f.ResourceFieldRef != nil:
		c.resourceFieldRef(at.Child("resourceFieldRef"), f.ResourceFieldRef, true)
	default:
		c.required(at, "one of fieldRef and resourceFieldRef is required")
	}
	c.fileMode(at.Child("mode"), f.Mode)
}
