package http

import (
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/munnerz/goautoneg"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"hansa.dev/hansa/apiserver/request/codec"
)

// accepted is one form in which the client would take an answer.
type accepted struct {
	media    codec.MediaType
	anyMedia bool
	// as is the kind to convert to (Table, PartialObjectMetadata, …); empty for
	// the object as it is.
	as     schema.GroupVersionKind
	pretty bool
	stream string
}

// acceptCache remembers parsed Accept headers: clients send few different ones.
// It is emptied when it has grown to acceptCacheSize.
type acceptCache struct {
	mu     sync.RWMutex
	parsed map[string][]accepted
}

const acceptCacheSize = 256

func (c *acceptCache) parse(header string) []accepted {
	c.mu.RLock()
	list, ok := c.parsed[header]
	c.mu.RUnlock()
	if ok {
		return list
	}
	list = parseAccept(header)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.parsed == nil || len(c.parsed) >= acceptCacheSize {
		c.parsed = map[string][]accepted{}
	}
	c.parsed[header] = list
	return list
}

func parseAccept(header string) []accepted {
	if header == "" {
		return []accepted{{media: codec.JSON}}
	}
	var list []accepted
	for _, clause := range goautoneg.ParseAccept(header) {
		a := accepted{
			as:     schema.GroupVersionKind{Group: clause.Params["g"], Version: clause.Params["v"], Kind: clause.Params["as"]},
			pretty: clause.Params["pretty"] == "1",
			stream: clause.Params["stream"],
		}
		switch {
		case clause.SubType == "*" && (clause.Type == "*" || clause.Type == "application"):
			a.anyMedia = true
		default:
			a.media = codec.MediaType(clause.Type + "/" + clause.SubType)
		}
		list = append(list, a)
	}
	return list
}

// output is the agreed form of an answer.
type output struct {
	media  codec.MediaType
	as     schema.GroupVersionKind
	pretty bool
}

// offer is what an endpoint can answer in.
type offer struct {
	// media in order of preference
	media []codec.MediaType
	// transforms: metadata alone and, unless there are none, tables
	transforms bool
	noTables   bool
	stream     bool
	// noProtobuf is for kinds that have no such form; their metadata has.
	noProtobuf bool
}

func (o offer) allows(a accepted) bool {
	if a.stream != "" && (a.stream != "watch" || !o.stream) {
		return false
	}
	if a.as == (schema.GroupVersionKind{}) {
		return a.media != codec.Protobuf || !o.noProtobuf
	}
	if !o.transforms || a.as.Group != metav1.GroupName || a.as.Version != "v1" && a.as.Version != "v1beta1" {
		return false
	}
	switch a.as.Kind {
	case "Table":
		return a.media != codec.Protobuf && !o.noTables
	case "PartialObjectMetadata", "PartialObjectMetadataList":
		return true
	}
	return false
}

// negotiate picks the first form that both sides know.
func (s *Server) negotiate(r *http.Request, o offer) (output, error) {
	for _, a := range s.accepts.parse(r.Header.Get("Accept")) {
		for _, m := range o.media {
			if !a.anyMedia && a.media != m {
				continue
			}
			a.media = m
			if o.allows(a) {
				return output{media: m, as: a.as, pretty: prettyPrint(r, a.pretty)}, nil
			}
			break
		}
	}
	return output{}, notAcceptable(o)
}

// prettyPrint is what the client asks for; people who look by hand get it
// without asking.
func prettyPrint(r *http.Request, asked bool) bool {
	if strings.Contains(r.URL.RawQuery, "pretty") {
		if p := r.URL.Query().Get("pretty"); p != "" {
			pretty, _ := strconv.ParseBool(p)
			return pretty
		}
	}
	if asked {
		return true
	}
	agent := r.UserAgent()
	return strings.HasPrefix(agent, "curl") || strings.HasPrefix(agent, "Wget") || strings.HasPrefix(agent, "Mozilla/5.0")
}

// bodyMedia is the media type of a request's body; JSON when it says none.
func bodyMedia(r *http.Request) (codec.MediaType, error) {
	header := r.Header.Get("Content-Type")
	switch header {
	case "", string(codec.JSON):
		return codec.JSON, nil
	case string(codec.Protobuf):
		return codec.Protobuf, nil
	}
	if name, _, err := mime.ParseMediaType(header); err == nil {
		for _, m := range codec.MediaTypes {
			if name == string(m) {
				return m, nil
			}
		}
	}
	return "", unsupportedMedia(codec.MediaTypes)
}

func joinMedia[T ~string](list []T, suffix string) string {
	names := make([]string, len(list))
	for i, m := range list {
		names[i] = string(m) + suffix
	}
	return strings.Join(names, ", ")
}
