package pod

import (
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func (c *checker) env(at *field.Path, env []corev1.EnvVar) {
	for i := range env {
		e, p := &env[i], at.Index(i)
		if c.nonEmpty(p.Child("name"), e.Name) {
			c.reasons(p.Child("name"), e.Name, validation.IsRelaxedEnvVarName(e.Name))
		}
		if e.ValueFrom != nil {
			c.envSource(p.Child("valueFrom"), e)
		}
	}
}

func (c *checker) envSource(at *field.Path, e *corev1.EnvVar) {
	from, count := e.ValueFrom, 0
	if from.FieldRef != nil {
		count++
		c.fieldRef(at.Child("fieldRef"), from.FieldRef, envFields)
	}
	if from.ResourceFieldRef != nil {
		count++
		c.resourceFieldRef(at.Child("resourceFieldRef"), from.ResourceFieldRef, false)
	}
	if from.ConfigMapKeyRef != nil {
		count++
		c.keyRef(at.Child("configMapKeyRef"), from.ConfigMapKeyRef.Name, from.ConfigMapKeyRef.Key)
	}
	if from.SecretKeyRef != nil {
		count++
		c.keyRef(at.Child("secretKeyRef"), from.SecretKeyRef.Name, from.SecretKeyRef.Key)
	}
	if from.FileKeyRef != nil {
		count++
		c.fileKeyRef(at.Child("fileKeyRef"), from.FileKeyRef)
	}
	switch {
	case count == 0:
		c.invalid(at, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`")
	case e.Value != "":
		c.invalid(at, "", "may not be specified when `value` is not empty")
	case count > 1:
		c.invalid(at, "", "may not have more than one field specified at a time")
	}
}

// keyRef names one key of a ConfigMap or a Secret.
func (c *checker) keyRef(at *field.Path, name, key string) {
	c.reasons(at.Child("name"), name, apivalidation.NameIsDNSSubdomain(name, false))
	if c.nonEmpty(at.Child("key"), key) {
		c.reasons(at.Child("key"), key, validation.IsConfigMapKey(key))
	}
}

func (c *checker) fileKeyRef(at *field.Path, r *corev1.FileKeySelector) {
	if c.nonEmpty(at.Child("key"), r.Key) {
		c.reasons(at.Child("key"), r.Key, validation.IsRelaxedEnvVarName(r.Key))
	}
	if c.nonEmpty(at.Child("volumeName"), r.VolumeName) {
		c.dnsLabel(at.Child("volumeName"), r.VolumeName)
	}
	if c.nonEmpty(at.Child("path"), r.Path) {
		c.noBacksteps(at.Child("path"), r.Path)
	}
}

func (c *checker) envFrom(at *field.Path, sources []corev1.EnvFromSource) {
	for i, s := range sources {
		p := at.Index(i)
		if s.Prefix != "" {
			c.reasons(p.Child("prefix"), s.Prefix, validation.IsRelaxedEnvVarName(s.Prefix))
		}
		count := 0
		if s.ConfigMapRef != nil {
			count++
			c.envFromName(p.Child("configMapRef", "name"), s.ConfigMapRef.Name)
		}
		if s.SecretRef != nil {
			count++
			c.envFromName(p.Child("secretRef", "name"), s.SecretRef.Name)
		}
		// Upstream names the list, not the item.
		switch {
		case count == 0:
			c.invalid(at, "", "must specify one of: `configMapRef` or `secretRef`")
		case count > 1:
			c.invalid(at, "", "may not have more than one field specified at a time")
		}
	}
}

// envFromName allows what would only do as a prefix of a name: upstream's
// leniency, on which clients may rely.
func (c *checker) envFromName(at *field.Path, name string) {
	if c.nonEmpty(at, name) {
		c.reasons(at, name, apivalidation.NameIsDNSSubdomain(name, true))
	}
}

// envFileVolumes: files of variables are written by init containers into an
// empty directory, nowhere else.
func (c *checker) envFileVolumes(at *field.Path, spec *corev1.PodSpec) {
	volumes := make(map[string]*corev1.VolumeSource, len(spec.Volumes))
	for i := range spec.Volumes {
		volumes[spec.Volumes[i].Name] = &spec.Volumes[i].VolumeSource
	}
	eachContainer(spec, at, func(ctr *corev1.Container, p *field.Path) {
		for i, e := range ctr.Env {
			if e.ValueFrom == nil || e.ValueFrom.FileKeyRef == nil {
				continue
			}
			name := e.ValueFrom.FileKeyRef.VolumeName
			ref := p.Child("env").Index(i).Child("valueFrom", "fileKeyRef", "volumeName")
			switch v := volumes[name]; {
			case v == nil:
				c.notFound(ref, name)
			case v.EmptyDir == nil:
				c.invalid(ref, name, "referenced volume must be of type emptyDir")
			}
		}
	})
}
