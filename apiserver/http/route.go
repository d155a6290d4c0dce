package http

import (
	"net/http"
	"strings"
)

// target is what a URL path names.
type target struct {
	// resource says that the rest is filled in; otherwise the path is one of
	// the server's own.
	resource       bool
	group, version string
	namespace      string
	plural, name   string
	sub            string
	// rest is what follows the subresource, for proxies, with its slash.
	rest string
	// watch is the old way to ask for a watch, by path.
	watch bool
}

// parsePath takes a path apart as Kubernetes does:
//
//	/api/VERSION/… and /apis/GROUP/VERSION/…, followed by
//	[watch/][namespaces/NAMESPACE/]RESOURCE[/NAME[/SUBRESOURCE[/…]]]
func parsePath(path string) target {
	var t target
	rest, ok := strings.CutPrefix(path, "/api/")
	if !ok {
		if rest, ok = strings.CutPrefix(path, "/apis/"); !ok {
			return t
		}
		if t.group, rest, ok = strings.Cut(rest, "/"); !ok || t.group == "" {
			return t
		}
	}
	if t.version, rest, ok = strings.Cut(rest, "/"); !ok || t.version == "" || rest == "" {
		return t
	}
	if after, found := strings.CutPrefix(rest, "watch/"); found {
		t.watch, rest = true, after
	}
	if after, found := strings.CutPrefix(rest, "namespaces/"); found && strings.Trim(after, "/") != "" {
		t.parseNamespaced(after)
		return t
	}
	t.parseResource(rest)
	return t
}

// parseNamespaced is what follows "namespaces/": a namespace itself, one of its
// subresources, or something in it.
func (t *target) parseNamespaced(rest string) {
	namespace, rest, _ := strings.Cut(rest, "/")
	t.namespace = namespace
	first, _, _ := strings.Cut(rest, "/")
	switch first {
	case "", "status", "finalize":
		t.parseResource("namespaces/" + namespace + "/" + rest)
	default:
		t.parseResource(rest)
	}
}

func (t *target) parseResource(rest string) {
	t.resource = true
	t.plural, rest, _ = strings.Cut(rest, "/")
	t.name, rest, _ = strings.Cut(rest, "/")
	var more bool
	t.sub, rest, more = strings.Cut(rest, "/")
	if more {
		t.rest = "/" + rest
	}
}

// verb is the verb of authorization that a method stands for; lists and watches
// are told apart by their query.
func verb(method string, t *target, watch bool) string {
	switch method {
	case http.MethodGet, http.MethodHead:
		switch {
		case t.watch || watch && t.name == "":
			return "watch"
		case t.name == "":
			return "list"
		}
		return "get"
	case http.MethodPost:
		return "create"
	case http.MethodPut:
		return "update"
	case http.MethodPatch:
		return "patch"
	case http.MethodDelete:
		if t.name == "" {
			return "deletecollection"
		}
		return "delete"
	}
	return "" // no other method has a verb
}
