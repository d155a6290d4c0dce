// Package zpages is what a component tells of itself at /statusz and /flagz, as
// Kubernetes' components do ("Kubernetes z-pages"): text for people, and objects
// of config.k8s.io for programs that ask for them by name.
package zpages

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/munnerz/goautoneg"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	flagz "k8s.io/apiserver/pkg/server/flagz/api/v1beta1"
	statusz "k8s.io/apiserver/pkg/server/statusz/api/v1beta1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/yaml"
)

// Component is who tells.
type Component struct {
	Name  string // "apiserver", "kubelet"
	Clock clock.PassiveClock
	// Started is when the process began.
	Started time.Time
	// Version is that of the program, Emulates that of the API, MAJOR.MINOR.
	Version, Emulates string
	// Paths are those that it serves.
	Paths func() []string
	// Flags are those that it was started with, by name. None may be secret.
	Flags map[string]string
}

// warning is on every page for people.
const warning = "Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for debugging purposes only."

// Status is the handler of /statusz.
func (c *Component) Status() http.Handler {
	return page{
		kind: "Statusz",
		text: func() string {
			s := c.status()
			up := s.UptimeSeconds
			lines := []string{
				"Started: " + s.StartTime.Format(time.UnixDate),
				fmt.Sprintf("Up: %d hr %02d min %02d sec", up/3600, up/60%60, up%60),
				"Go version: " + s.GoVersion,
				"Binary version: " + s.BinaryVersion,
				"Emulation version: " + s.EmulationVersion,
				"Paths: " + strings.Join(s.Paths, " "),
			}
			return c.head("statusz") + "\n" + strings.Join(lines, "\n") + "\n"
		},
		object: func(meta metav1.TypeMeta) any {
			s := c.status()
			s.TypeMeta = meta
			return s
		},
	}
}

// Parameters is the handler of /flagz.
func (c *Component) Parameters() http.Handler {
	return page{
		kind: "Flagz",
		text: func() string {
			var b strings.Builder
			b.WriteString(c.head("flagz"))
			for _, name := range slices.Sorted(maps.Keys(c.Flags)) {
				fmt.Fprintf(&b, "%s=%s\n", name, c.Flags[name])
			}
			return b.String()
		},
		object: func(meta metav1.TypeMeta) any {
			return &flagz.Flagz{TypeMeta: meta, ObjectMeta: metav1.ObjectMeta{Name: c.Name}, Flags: c.Flags}
		},
	}
}

func (c *Component) head(page string) string {
	return fmt.Sprintf("\n%s %s\n%s\n", c.Name, page, warning)
}

func (c *Component) status() *statusz.Statusz {
	return &statusz.Statusz{
		ObjectMeta:       metav1.ObjectMeta{Name: c.Name},
		StartTime:        metav1.NewTime(c.Started),
		UptimeSeconds:    max(0, int64(c.Clock.Since(c.Started).Seconds())),
		GoVersion:        runtime.Version(),
		BinaryVersion:    c.Version,
		EmulationVersion: c.Emulates,
		Paths:            roots(c.Paths()),
	}
}

// roots are the first parts of paths that are there to look into the component,
// each once.
func roots(paths []string) []string {
	set := map[string]bool{}
	for _, p := range paths {
		root, _, _ := strings.Cut(strings.TrimPrefix(p, "/"), "/")
		switch root {
		case "", "api", "apis", "openid", "openapi", ".well-known":
		default:
			set["/"+root] = true
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// page is one thing that is told, in each form.
type page struct {
	kind   string
	text   func() string
	object func(metav1.TypeMeta) any
}

const (
	asText = "text/plain"
	asJSON = "application/json"
	asYAML = "application/yaml"
)

// media are the forms, in the order in which an open question is answered.
var media = []string{asJSON, asYAML, asText}

func (p page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	form, version, ok := p.negotiate(r.Header.Get("Accept"))
	switch {
	case !ok:
		refuse(w)
		return
	case form == asText:
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprint(w, p.text())
		return
	case version == "v1alpha1":
		w.Header().Set("Warning", fmt.Sprintf(`299 - "This version of the %s endpoint is deprecated. Please use a newer version."`, strings.ToLower(p.kind)))
	}
	gv := schema.GroupVersion{Group: flagz.GroupName, Version: version}
	w.Header().Set("Content-Type", fmt.Sprintf("%s;g=%s;v=%s;as=%s", form, gv.Group, gv.Version, p.kind))
	send(w, http.StatusOK, form, p.object(metav1.TypeMeta{APIVersion: gv.String(), Kind: p.kind}))
}

// negotiate picks the first form that the client would take: text without a kind,
// the others with the page's kind.
func (p page) negotiate(accept string) (form, version string, ok bool) {
	if strings.TrimSpace(accept) == "" {
		return asText, "", true
	}
	for _, clause := range goautoneg.ParseAccept(accept) {
		as := schema.GroupVersionKind{Group: clause.Params["g"], Version: clause.Params["v"], Kind: clause.Params["as"]}
		known := as.Group == flagz.GroupName && as.Kind == p.kind && (as.Version == "v1beta1" || as.Version == "v1alpha1")
		if clause.Params["stream"] != "" {
			continue
		}
		for _, form := range media {
			kind, _, _ := strings.Cut(form, "/")
			matches := form == clause.Type+"/"+clause.SubType || clause.SubType == "*" && (clause.Type == "*" || clause.Type == kind)
			if matches && (form == asText && as.Empty() || form != asText && known) {
				return form, as.Version, true
			}
		}
	}
	return "", "", false
}

func refuse(w http.ResponseWriter) {
	w.Header().Set("Content-Type", asJSON)
	send(w, http.StatusNotAcceptable, asJSON, &metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"},
		Status:   metav1.StatusFailure,
		Code:     http.StatusNotAcceptable,
		Reason:   metav1.StatusReasonNotAcceptable,
		Message:  "only the following media types are accepted: " + strings.Join(media, ", "),
	})
}

func send(w http.ResponseWriter, code int, form string, v any) {
	data, err := json.Marshal(v)
	data = append(data, '\n')
	if form == asYAML {
		data, err = yaml.Marshal(v)
	}
	if err != nil {
		panic(fmt.Sprintf("zpages: encode %T: %v", v, err)) // plain data
	}
	w.WriteHeader(code)
	_, _ = w.Write(data)
}
