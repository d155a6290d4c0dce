package encryption

import (
	"crypto/aes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	apiserverv1 "k8s.io/apiserver/pkg/apis/apiserver/v1"
	"k8s.io/apiserver/pkg/storage/value"
	aestransformer "k8s.io/apiserver/pkg/storage/value/encrypt/aes"
	"k8s.io/apiserver/pkg/storage/value/encrypt/identity"
	"k8s.io/apiserver/pkg/storage/value/encrypt/secretbox"
	"sigs.k8s.io/yaml"
)

// What encrypted values begin with; the name of the key and a colon follow.
const (
	prefixGCM       = "k8s:enc:aesgcm:v1:"
	prefixCBC       = "k8s:enc:aescbc:v1:"
	prefixSecretbox = "k8s:enc:secretbox:v1:"
)

// Config says how the values of which resources are stored.
type Config struct {
	byResource map[schema.GroupResource]value.Transformer
	sum        [sha256.Size]byte // of its text
}

// Is says whether the configuration was read from this text.
func (c *Config) Is(data []byte) bool { return c.sum == sha256.Sum256(data) }

var (
	everything = schema.GroupResource{Group: "*", Resource: "*"}
	plain      = identity.NewEncryptCheckTransformer()
)

func wholeGroup(group string) schema.GroupResource {
	return schema.GroupResource{Group: group, Resource: "*"}
}

// of is the transformer of a resource: that of its own name, else its group's,
// else that of everything.
func (c *Config) of(gr schema.GroupResource) value.Transformer {
	for _, key := range []schema.GroupResource{gr, wholeGroup(gr.Group), everything} {
		if t := c.byResource[key]; t != nil {
			return t
		}
	}
	return plain
}

// Parse reads an EncryptionConfiguration (apiserver.config.k8s.io/v1). The error
// names the field, and never shows a secret.
func Parse(data []byte) (*Config, error) {
	file := &apiserverv1.EncryptionConfiguration{}
	if err := yaml.UnmarshalStrict(data, file); err != nil {
		return nil, fmt.Errorf("it is no EncryptionConfiguration: %w", withoutText(err))
	}
	if want := apiserverv1.SchemeGroupVersion.String(); file.APIVersion != want || file.Kind != "EncryptionConfiguration" {
		return nil, fmt.Errorf("it is a %q of %q, where an EncryptionConfiguration of %q is expected", file.Kind, file.APIVersion, want)
	}
	root := field.NewPath("resources")
	if len(file.Resources) == 0 {
		return nil, fmt.Errorf("%s: at least one entry is required", root)
	}
	lists := map[schema.GroupResource][]value.PrefixTransformer{}
	for i, entry := range file.Resources {
		resources, err := parseResources(root.Index(i).Child("resources"), entry.Resources)
		if err != nil {
			return nil, err
		}
		providers, err := parseProviders(root.Index(i).Child("providers"), entry.Providers)
		if err != nil {
			return nil, err
		}
		for _, gr := range resources {
			for _, earlier := range []schema.GroupResource{wholeGroup(gr.Group), everything} {
				if lists[earlier] != nil {
					return nil, fmt.Errorf("%s: %q has no effect behind %q, which comes first and covers it",
						root.Index(i).Child("resources"), written(gr), written(earlier))
				}
			}
		}
		for _, gr := range resources {
			lists[gr] = append(lists[gr], providers...)
		}
	}
	c := &Config{byResource: map[schema.GroupResource]value.Transformer{}, sum: sha256.Sum256(data)}
	for gr, list := range lists {
		c.byResource[gr] = value.NewPrefixTransformers(errNoKey, list...)
	}
	return c, nil
}

var errNoKey = errors.New("no provider or key of the configuration fits it")

// A parser's error may quote the name of a field, which is a secret where a
// blank or a line break is missing. quoted is all between its quotation marks,
// word what cannot be a secret: the shortest has 24 characters and a digit or
// sign among them.
var (
	quoted = regexp.MustCompile("[\"'`].*[\"'`]")
	word   = regexp.MustCompile("^.[A-Za-z]{1,23}.$")
)

// withoutText keeps what the parser found, but not what it quotes of the file.
func withoutText(err error) error {
	text, _, _ := strings.Cut(err.Error(), "\n")
	return errors.New(quoted.ReplaceAllStringFunc(text, func(q string) string {
		if word.MatchString(q) {
			return q
		}
		return "(not shown)"
	}))
}

// written is a resource as it is written in the file.
func written(gr schema.GroupResource) string {
	if gr.Group == "" && gr.Resource == "*" {
		return "*."
	}
	return gr.String()
}

func parseResources(path *field.Path, names []string) ([]schema.GroupResource, error) {
	if len(names) == 0 {
		return nil, fmt.Errorf("%s: at least one resource is required", path)
	}
	var all []schema.GroupResource
	for i, name := range names {
		gr := schema.ParseGroupResource(name)
		if why := badResource(name, gr); why != "" {
			return nil, fmt.Errorf("%s: %q: %s", path.Index(i), name, why)
		}
		if slices.Contains(all, gr) {
			return nil, fmt.Errorf("%s: %q is there twice", path, name)
		}
		all = append(all, gr)
	}
	for _, gr := range all {
		for _, wider := range []schema.GroupResource{wholeGroup(gr.Group), everything} {
			if gr != wider && slices.Contains(all, wider) {
				return nil, fmt.Errorf("%s: %q covers %q already", path, written(wider), written(gr))
			}
		}
	}
	return all, nil
}

// badResource says why a name is none that can be encrypted.
func badResource(name string, gr schema.GroupResource) string {
	switch {
	case name == "":
		return "the name of a resource is expected"
	case strings.ToLower(name) != name:
		return "resource names have no capital letters"
	case name == "*":
		return `use "*." for the core group or "*.*" for all resources`
	case name == "apiserveripinfo", name == "serviceipallocations", name == "servicenodeportallocations":
		return "what is no resource of the API cannot be named"
	case gr.Group == "events.k8s.io":
		return `events are stored in the core group, so use "events"`
	case gr.Group == "extensions":
		return "the group has been removed"
	case gr.Group == "*" && gr.Resource != "*":
		return "a resource cannot be named in all groups at once"
	}
	return ""
}

func parseProviders(path *field.Path, providers []apiserverv1.ProviderConfiguration) ([]value.PrefixTransformer, error) {
	if len(providers) == 0 {
		return nil, fmt.Errorf("%s: at least one provider is required", path)
	}
	var all []value.PrefixTransformer
	for i, p := range providers {
		t, err := parseProvider(path.Index(i), p)
		if err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, nil
}

func parseProvider(path *field.Path, p apiserverv1.ProviderConfiguration) (t value.PrefixTransformer, err error) {
	n := 0
	for _, given := range []bool{p.AESGCM != nil, p.AESCBC != nil, p.Secretbox != nil, p.Identity != nil, p.KMS != nil} {
		if given {
			n++
		}
	}
	switch {
	case n != 1:
		return t, fmt.Errorf("%s: exactly one of aesgcm, aescbc, secretbox and identity is expected", path)
	case p.KMS != nil:
		return t, fmt.Errorf("%s: key management services are not supported; use aesgcm, aescbc or secretbox", path.Child("kms"))
	case p.Identity != nil:
		return value.PrefixTransformer{Transformer: plain}, nil
	case p.AESGCM != nil:
		return withKeys(path.Child("aesgcm", "keys"), prefixGCM, p.AESGCM.Keys, aesSizes, newGCM)
	case p.AESCBC != nil:
		return withKeys(path.Child("aescbc", "keys"), prefixCBC, p.AESCBC.Keys, aesSizes, newCBC)
	}
	return withKeys(path.Child("secretbox", "keys"), prefixSecretbox, p.Secretbox.Keys, []int{32}, newSecretbox)
}

var aesSizes = []int{16, 24, 32}

func newGCM(key []byte) (value.Transformer, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return aestransformer.NewGCMTransformer(block)
}

func newCBC(key []byte) (value.Transformer, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return aestransformer.NewCBCTransformer(block), nil
}

func newSecretbox(key []byte) (value.Transformer, error) {
	return secretbox.NewSecretboxTransformer([32]byte(key)), nil
}

// withKeys is a provider that writes with its first key and reads with any.
func withKeys(path *field.Path, prefix string, keys []apiserverv1.Key, sizes []int, transformer func([]byte) (value.Transformer, error)) (t value.PrefixTransformer, err error) {
	if len(keys) == 0 {
		return t, fmt.Errorf("%s: at least one key is required", path)
	}
	var all []value.PrefixTransformer
	for i, k := range keys {
		path := path.Index(i)
		if k.Name == "" {
			return t, fmt.Errorf("%s: a key needs a name", path.Child("name"))
		}
		secret, err := base64.StdEncoding.DecodeString(k.Secret)
		if err != nil {
			return t, fmt.Errorf("%s: the secret must be encoded in base64", path.Child("secret"))
		}
		if !slices.Contains(sizes, len(secret)) {
			return t, fmt.Errorf("%s: the secret has %d bytes; one of %v is expected", path.Child("secret"), len(secret), sizes)
		}
		one, err := transformer(secret)
		if err != nil {
			return t, fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, value.PrefixTransformer{Prefix: []byte(k.Name + ":"), Transformer: one})
	}
	return value.PrefixTransformer{Prefix: []byte(prefix), Transformer: value.NewPrefixTransformers(errNoKey, all...)}, nil
}
