package pod

import (
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// The grammar of image references (distribution's reference specification).
const (
	hostPart   = `(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])`
	hostName   = hostPart + `(?:\.` + hostPart + `)*`
	hostIPv6   = `\[(?:[a-fA-F0-9:]+)\]`
	domainForm = `(?:` + hostName + `|` + hostIPv6 + `)(?::[0-9]+)?`
	pathPart   = `[a-z0-9]+(?:(?:[._]|__|[-]+)[a-z0-9]+)*`
	nameForm   = `(?:` + domainForm + `/)?` + pathPart + `(?:/` + pathPart + `)*`
	tagForm    = `[\w][\w.-]{0,127}`
	digestForm = `[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[[:xdigit:]]{32,}`
)

var (
	referenceForm = regexp.MustCompile(`^(` + nameForm + `)(?::(` + tagForm + `))?(?:@(` + digestForm + `))?$`)
	bareHash      = regexp.MustCompile(`^[a-f0-9]{64}$`)
)

// maxRepositoryLength is the longest repository path, in characters.
const maxRepositoryLength = 255

// pullPolicyFor is the default pull policy of an image: Always for the tag
// "latest", given or implied. What is not a reference is pulled if not present;
// the node will say what is wrong with it.
func pullPolicyFor(image string) corev1.PullPolicy {
	if !saysOtherTag(image) && imageTag(image) == "latest" {
		return corev1.PullAlways
	}
	return corev1.PullIfNotPresent
}

// saysOtherTag is true for what ends in a tag that is not "latest", well-formed
// or not: nearly all images, seen without the grammar.
func saysOtherTag(image string) bool {
	colon := strings.LastIndexByte(image, ':')
	return colon > strings.LastIndexByte(image, '/') && image[colon+1:] != "latest" && !strings.Contains(image, "@")
}

// imageTag is the tag that a reference names; "latest" when it has neither tag
// nor digest, empty when it has only a digest or is malformed.
func imageTag(image string) string {
	if bareHash.MatchString(image) {
		return ""
	}
	m := referenceForm.FindStringSubmatch(image)
	if m == nil {
		return ""
	}
	name, tag, digest := m[1], m[2], m[3]
	if len(repositoryPath(name)) > maxRepositoryLength {
		return ""
	}
	if tag == "" && digest == "" {
		return "latest"
	}
	return tag
}

// repositoryPath is a name without its registry. The first part is a registry
// when it could not be a path: it has a dot, a port or a capital, or is localhost.
func repositoryPath(name string) string {
	first, rest, found := strings.Cut(name, "/")
	if found && (strings.ContainsAny(first, ".:") || first == "localhost" || strings.ToLower(first) != first) {
		return rest
	}
	return name
}
