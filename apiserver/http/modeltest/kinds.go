package modeltest

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/value"
)

// Kind is a kind of objects, as far as the model knows it.
type Kind struct {
	version, name, plural string
	// base is what every object says beside its leaves, in YAML.
	base   string
	leaves []leaf
	// generation says whether objects have one; bumps, which leaves raise it.
	generation bool
	bumps      func(leaf) bool
	// status says that there is the subresource; statusKeeps, what writes of it
	// leave alone.
	status      bool
	statusKeeps func(leaf) bool
	// grace is how long objects are given to end, in seconds.
	grace int64
}

// leaf is something that an object may say.
type leaf struct {
	// path leads to it by keys of maps, by "name=N" to the element of a list
	// that has this name, and by "=V" to the value V of a set.
	path   []string
	values []any
	// always: it is never left out. fixed: it is never changed either.
	always, fixed bool
}

func (l leaf) finalizer() bool { return l.path[1] == "finalizers" }

// inSet says whether the leaf is a value of a set, which is there or not.
func (l leaf) inSet() bool { return strings.HasPrefix(l.path[len(l.path)-1], "=") }

// held says whether a finalizer keeps an object.
func (k *Kind) held(c content) bool {
	for i, l := range k.leaves {
		if l.finalizer() && c[i] != nil {
			return true
		}
	}
	return false
}

func in(parts ...string) func(leaf) bool {
	return func(l leaf) bool { return slices.Contains(parts, l.path[0]) || slices.Contains(parts, l.path[1]) }
}

func path(text string) []string { return strings.Split(text, " ") }

// common are the leaves of all kinds. The first tells the run that an object is
// of; the second is what is selected by.
func common(run string, more ...leaf) []leaf {
	return append([]leaf{
		{path: path("metadata labels run"), values: []any{run}, always: true, fixed: true},
		{path: path("metadata labels color"), values: []any{"red", "blue"}},
		{path: path("metadata annotations note"), values: []any{"x", "y"}},
		{path: path("metadata finalizers =example.com/f"), values: []any{true}},
		{path: path("metadata finalizers =example.com/g"), values: []any{true}},
	}, more...)
}

const color = 1 // the place of the color among the leaves

func configMaps(run string) *Kind {
	return &Kind{
		version: "v1", name: "ConfigMap", plural: "configmaps",
		base: `{data: {fixed: x}}`,
		leaves: common(run,
			leaf{path: path("data a"), values: []any{"1", "2"}},
			leaf{path: path("data b"), values: []any{"1", "2"}}),
		bumps: func(leaf) bool { return false },
	}
}

// Annotations of deployments are part of what their generation counts.
func deployments(run string) *Kind {
	return &Kind{
		version: "apps/v1", name: "Deployment", plural: "deployments",
		base: `{spec: {selector: {matchLabels: {l: x}}, template: {metadata: {labels: {l: x}}, spec: {containers: [{name: c}]}}}}`,
		leaves: common(run,
			leaf{path: path("spec replicas"), values: []any{int64(1), int64(2)}, always: true},
			leaf{path: path("spec minReadySeconds"), values: []any{int64(1), int64(2)}},
			leaf{path: path("spec paused"), values: []any{true}},
			leaf{path: path("spec template spec containers name=c image"), values: []any{"i:1", "i:2"}, always: true},
			leaf{path: path("status observedGeneration"), values: []any{int64(1), int64(2)}},
			leaf{path: path("status replicas"), values: []any{int64(1), int64(2)}}),
		generation: true, bumps: in("spec", "annotations"),
		status: true, statusKeeps: in("spec", "labels"),
	}
}

// Pods have a node from the start, so that they are deleted gracefully, and say
// all that admission would say for them.
func pods(run, node string) *Kind {
	return &Kind{
		version: "v1", name: "Pod", plural: "pods",
		base: `{spec: {nodeName: ` + node + `, serviceAccountName: default, automountServiceAccountToken: false, priority: 0, preemptionPolicy: PreemptLowerPriority,
tolerations: [{key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 300}, {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 300}],
containers: [{name: c}]}}`,
		leaves: common(run,
			leaf{path: path("spec containers name=c image"), values: []any{"i:1", "i:2"}, always: true},
			leaf{path: path("status message"), values: []any{"m", "n"}},
			leaf{path: path("status reason"), values: []any{"r", "s"}}),
		generation: true, bumps: in("spec"),
		status: true, statusKeeps: in("spec"),
		grace: 30,
	}
}

func ingresses(run string) *Kind {
	port := func(number int64) any { return map[string]any{"number": number} }
	address := func(ip string) any { return []any{map[string]any{"ip": ip}} }
	return &Kind{
		version: "networking.k8s.io/v1", name: "Ingress", plural: "ingresses",
		base: `{spec: {defaultBackend: {service: {name: s}}}}`,
		leaves: common(run,
			leaf{path: path("spec ingressClassName"), values: []any{"x", "y"}},
			leaf{path: path("spec defaultBackend service port"), values: []any{port(80), port(81)}, always: true}, // atomic
			leaf{path: path("status loadBalancer ingress"), values: []any{address("192.0.2.1"), address("192.0.2.2")}}),
		generation: true, bumps: in("spec"),
		status: true, statusKeeps: in("spec"),
	}
}

// object is the base with what every object of the kind says of itself.
func (k *Kind) object(name, namespace string) map[string]any {
	obj, err := decode(runtime.ContentTypeYAML, []byte(k.base))
	if err != nil {
		panic(err) // a constant
	}
	obj["apiVersion"], obj["kind"] = k.version, k.name
	obj["metadata"] = map[string]any{"name": name, "namespace": namespace, "annotations": map[string]any{"fixed": "x"}}
	return obj
}

// compose is an object with the content; the finalizers that it has keep their
// order.
func (k *Kind) compose(obj map[string]any, c content) map[string]any {
	obj = runtime.DeepCopyJSON(obj)
	for i, l := range k.leaves {
		if v, ok := c[i]; ok {
			put(obj, l.path, runtime.DeepCopyJSONValue(v))
		} else {
			drop(obj, l.path)
		}
	}
	return obj
}

// read is what an object says.
func (k *Kind) read(obj map[string]any) content {
	c := content{}
	for i, l := range k.leaves {
		if v := get(obj, l.path); v != nil {
			c[i] = v
		}
	}
	return c
}

// get is what is at a path, nil if nothing is; true for a value of a set.
func get(at any, path []string) any {
	for _, p := range path {
		switch key, v, list := strings.Cut(p, "="); {
		case !list:
			m, _ := at.(map[string]any)
			at = m[p]
		case key == "":
			set, _ := at.([]any)
			if !slices.Contains(set, any(v)) {
				return nil
			}
			at = true
		default:
			items, _ := at.([]any)
			i := place(items, key, v)
			if i < 0 {
				return nil
			}
			at = items[i]
		}
	}
	return at
}

// place is that of the element of a list which has the key, or -1.
func place(items []any, key, v string) int {
	return slices.IndexFunc(items, func(item any) bool { return get(item, []string{key}) == v })
}

// put is at with v at a path, for which it may be changed.
func put(at any, path []string, v any) any {
	if len(path) == 0 {
		return v
	}
	switch key, name, list := strings.Cut(path[0], "="); {
	case !list:
		m, _ := at.(map[string]any)
		if m == nil {
			m = map[string]any{}
		}
		m[path[0]] = put(m[path[0]], path[1:], v)
		return m
	case key == "":
		set, _ := at.([]any)
		if slices.Contains(set, any(name)) {
			return set
		}
		return append(set, name)
	default:
		items, _ := at.([]any)
		i := place(items, key, name)
		if i < 0 {
			i, items = len(items), append(items, map[string]any{key: name})
		}
		items[i] = put(items[i], path[1:], v)
		return items
	}
}

// drop is at without what is at a path, for which it may be changed; nil when
// that was all of it.
func drop(at any, path []string) any {
	switch key, name, list := strings.Cut(path[0], "="); {
	case at == nil:
		return nil
	case !list:
		m := at.(map[string]any)
		var rest any
		if len(path) > 1 {
			rest = drop(m[path[0]], path[1:])
		}
		if m[path[0]] = rest; rest == nil {
			delete(m, path[0])
		}
		return m
	case key == "":
		set := slices.DeleteFunc(slices.Clone(at.([]any)), func(have any) bool { return have == name })
		if len(set) == 0 {
			return nil
		}
		return set
	default:
		items := at.([]any)
		if i := place(items, key, name); i >= 0 {
			items[i] = drop(items[i], path[1:])
		}
		return items
	}
}

// field is a path as managedFields have it.
func field(path []string) fieldpath.Path {
	var out fieldpath.Path
	for _, p := range path {
		switch key, v, list := strings.Cut(p, "="); {
		case !list:
			out = append(out, fieldpath.PathElement{FieldName: &p})
		case key == "":
			set := value.NewValueInterface(v)
			out = append(out, fieldpath.PathElement{Value: &set})
		default:
			out = append(out, fieldpath.PathElement{Key: fieldpath.KeyByFields(key, v)})
		}
	}
	return out
}
