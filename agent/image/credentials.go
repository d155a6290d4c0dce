package image

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// entry is one registry's login in a Docker configuration file.
type entry struct {
	Username      string `json:"username"`
	Password      string `json:"password"`
	Auth          string `json:"auth"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

// credential is a login, and the secret that it is of, or the service account
// by whose token a provider gave it. One of neither is the node's.
type credential struct {
	auth    *cri.AuthConfig
	source  holder
	account account
}

// holders are those who may have an image that was pulled with a credential:
// whoever has the secret or is the account, and everyone when it needed neither.
func (c *credential) holders() holders {
	switch {
	case c != nil && c.source.UID != "":
		return holders{Secrets: []holder{c.source}}
	case c != nil && c.account.UID != "":
		return holders{Accounts: []account{c.account}}
	}
	return holders{Everyone: true}
}

// credentials are the logins of the secrets that fit an image, the most
// specific first, as "Pull an image from a private registry" describes them.
// Secrets of other types and unreadable ones give none.
func credentials(image string, secrets []*v1.Secret) []credential {
	ref, err := name.ParseReference(image, name.WeakValidation)
	if err != nil {
		return nil
	}
	repo := ref.Context()
	type match struct {
		pattern string
		credential
	}
	var found []match
	for _, s := range secrets {
		for pattern, e := range entries(s) {
			if fits(pattern, repo.RegistryStr(), repo.RepositoryStr()) {
				auth := e.auth()
				found = append(found, match{pattern, credential{auth: auth, source: holder{
					UID: string(s.UID), Namespace: s.Namespace, Name: s.Name, Hash: hash(auth),
				}}})
			}
		}
	}
	slices.SortStableFunc(found, func(a, b match) int { return strings.Compare(b.pattern, a.pattern) })
	var out []credential
	for _, m := range found {
		out = append(out, m.credential)
	}
	return out
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// hash stands for a login where it may not be written down.
func hash(a *cri.AuthConfig) string {
	h := sha256.New()
	for _, part := range []string{a.Username, a.Password, a.IdentityToken, a.RegistryToken} {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func entries(s *v1.Secret) map[string]entry {
	switch s.Type {
	case v1.SecretTypeDockerConfigJson:
		var file struct {
			Auths map[string]entry `json:"auths"`
		}
		if json.Unmarshal(s.Data[v1.DockerConfigJsonKey], &file) == nil {
			return file.Auths
		}
	case v1.SecretTypeDockercfg:
		var file map[string]entry
		if json.Unmarshal(s.Data[v1.DockerConfigKey], &file) == nil {
			return file
		}
	}
	return nil
}

func (e entry) auth() *cri.AuthConfig {
	a := &cri.AuthConfig{Username: e.Username, Password: e.Password, IdentityToken: e.IdentityToken, RegistryToken: e.RegistryToken}
	if a.Username == "" && e.Auth != "" {
		if raw, err := base64.StdEncoding.DecodeString(e.Auth); err == nil {
			a.Username, a.Password, _ = strings.Cut(string(raw), ":")
		}
	}
	return a
}

// fits says whether a login is for an image: each part of its host matches (*
// stands for any text within a part), ports are equal, and its path is a
// prefix of the repository's.
func fits(pattern, registry, repository string) bool {
	if !strings.Contains(pattern, "://") {
		pattern = "https://" + pattern
	}
	u, err := url.Parse(pattern)
	if err != nil {
		return false
	}
	host, prefix := u.Host, strings.Trim(u.Path, "/")
	if prefix == "v1" || prefix == "v2" {
		prefix = "" // the path of the registry's API
	}
	if host == "docker.io" || host == "registry-1.docker.io" {
		host = name.DefaultRegistry
	}
	want, have := strings.Split(host, "."), strings.Split(registry, ".")
	if len(want) != len(have) {
		return false
	}
	for i := range want {
		if ok, err := path.Match(want[i], have[i]); err != nil || !ok {
			return false
		}
	}
	return prefix == "" || repository == prefix || strings.HasPrefix(repository, prefix+"/")
}
