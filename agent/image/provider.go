package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"golang.org/x/sync/singleflight"
	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubelet "k8s.io/kubelet/config/v1"
	exchange "k8s.io/kubelet/pkg/apis/credentialprovider/v1"
	"k8s.io/utils/clock"
	strict "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// ProviderFiles are where programs are that give credentials for images
// ("Configure a kubelet image credential provider"). Empty is none.
type ProviderFiles struct {
	// Config is a CredentialProviderConfig, or a directory of them; Dir has the
	// programs.
	Config, Dir string
	// Environ is what they find in their environment beside what Config says,
	// NAME=VALUE.
	Environ []string
}

// providerTimeout ends a program that does not answer.
const providerTimeout = time.Minute

// provider is a program that gives credentials. What it says is kept in memory
// only, and neither logged nor in an error.
type provider struct {
	kubelet.CredentialProvider
	program  string
	environ  []string
	clock    clock.PassiveClock
	accounts Accounts
	metrics  *metrics
	group    singleflight.Group

	mu    sync.Mutex
	cache map[cacheKey]cached
}

// cacheKey is what an answer is for: an image, registry or everything, and whom:
// see identity.
type cacheKey struct{ image, whom string }

// everything is the key in the cache of what is for all images.
const everything = "<global>"

type cached struct {
	auth  map[string]exchange.AuthConfig
	until time.Time
}

// loadProviders reads and checks the configuration of providers. Errors name
// the file and the field.
func loadProviders(f ProviderFiles, c clock.PassiveClock, accounts Accounts, m *metrics) ([]*provider, error) {
	if f.Config == "" && f.Dir == "" {
		return nil, nil
	}
	if f.Config == "" || f.Dir == "" {
		return nil, errors.New("credential providers: --image-credential-provider-config and --image-credential-provider-bin-dir go together: give both")
	}
	configs := []string{f.Config}
	if info, err := os.Stat(f.Config); err != nil {
		return nil, fmt.Errorf("credential providers: %w", err)
	} else if info.IsDir() {
		all, _ := filepath.Glob(filepath.Join(f.Config, "*")) // the pattern is good
		configs = slices.DeleteFunc(all, func(p string) bool { return !slices.Contains([]string{".json", ".yaml", ".yml"}, filepath.Ext(p)) })
		if len(configs) == 0 {
			return nil, fmt.Errorf("credential providers: %s has no file *.json, *.yaml or *.yml", f.Config)
		}
	}
	var out []*provider
	sum := sha256.New()
	for _, file := range configs {
		config, err := readProviders(file, sum)
		if err != nil {
			return nil, fmt.Errorf("credential providers of %s: %w", file, err)
		}
		for i := range config.Providers {
			p := &provider{
				CredentialProvider: config.Providers[i], environ: slices.Clone(f.Environ),
				clock: c, accounts: accounts, metrics: m, cache: map[cacheKey]cached{},
			}
			if slices.ContainsFunc(out, func(o *provider) bool { return o.Name == p.Name }) {
				err = errors.New("there is another one of that name")
			} else {
				err = p.check(f.Dir)
			}
			if err != nil {
				return nil, fmt.Errorf("credential providers of %s: %q: %w", file, p.Name, err)
			}
			for _, e := range p.Env {
				p.environ = append(p.environ, e.Name+"="+e.Value)
			}
			out = append(out, p)
		}
	}
	m.configured(sum.Sum(nil))
	return out, nil
}

// readProviders decodes a file strictly, and adds it, behind its length, to what
// sums all files up.
func readProviders(file string, sum io.Writer) (*kubelet.CredentialProviderConfig, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	_, _ = sum.Write(binary.BigEndian.AppendUint64(nil, uint64(len(data)))) // a hash takes all
	_, _ = sum.Write(data)
	text, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return nil, err
	}
	c := &kubelet.CredentialProviderConfig{}
	unknown, err := strict.UnmarshalStrict(text, c)
	if err = errors.Join(append(unknown, err)...); err != nil {
		return nil, err
	}
	if group, version, _ := strings.Cut(c.APIVersion, "/"); group != "kubelet.config.k8s.io" || !slices.Contains(versions, version) || c.Kind != "CredentialProviderConfig" {
		return nil, fmt.Errorf("apiVersion %q, kind %q: it has to be kubelet.config.k8s.io/v1, CredentialProviderConfig", c.APIVersion, c.Kind)
	}
	if len(c.Providers) == 0 {
		return nil, errors.New("providers: there has to be one at least")
	}
	return c, nil
}

// versions are those of the configuration and of the exchange with providers;
// they differ in nothing that is taken here.
var versions = []string{"v1", "v1beta1", "v1alpha1"}

const exchangeGroup = "credentialprovider.kubelet.k8s.io"

// check looks at what a provider is configured to be.
func (p *provider) check(dir string) error {
	if p.Name == "" || p.Name == "." || p.Name == ".." || strings.ContainsAny(p.Name, "/ ") {
		return errors.New("name: it has to be the name of a file, without spaces")
	}
	if group, version, _ := strings.Cut(p.APIVersion, "/"); group != exchangeGroup || !slices.Contains(versions, version) {
		return fmt.Errorf("apiVersion: %q is not %s/v1, v1beta1 or v1alpha1", p.APIVersion, exchangeGroup)
	}
	if len(p.MatchImages) == 0 {
		return errors.New("matchImages: there has to be one at least")
	}
	if d := p.DefaultCacheDuration; d == nil {
		return errors.New("defaultCacheDuration: it has to be given; 0s is not to keep anything")
	} else if d.Duration < 0 {
		return fmt.Errorf("defaultCacheDuration: %v is negative", d.Duration)
	}
	if err := p.checkToken(); err != nil {
		return fmt.Errorf("tokenAttributes: %w", err)
	}
	program, err := exec.LookPath(filepath.Join(dir, p.Name))
	if err != nil {
		return fmt.Errorf("its program: %w", err)
	}
	p.program = program
	return nil
}

// credentials are what a provider has for an image, the most specific first.
// They are the node's, so everyone's, unless the provider is told of the service
// account of the pod.
func (p *provider) credentials(ctx context.Context, image string, pod *v1.Pod) ([]credential, error) {
	ref, err := name.ParseReference(image, name.WeakValidation)
	if err != nil {
		return nil, nil //nolint:nilerr // such an image is refused elsewhere
	}
	repo := ref.Context()
	if !slices.ContainsFunc(p.MatchImages, func(pattern string) bool { return fits(pattern, repo.RegistryStr(), repo.RepositoryStr()) }) {
		return nil, nil
	}
	asked := repository(FullName(image)) // as the kubelet asks: in full, without tag or digest
	who, err := p.identify(ctx, pod)
	if err != nil {
		return nil, fmt.Errorf("credential provider %s for image %s: %w", p.Name, asked, err)
	}
	if who == nil {
		return nil, nil
	}
	auth, ok := p.known(asked, who.key)
	if !ok {
		got, err, _ := p.group.Do(asked+"\x00"+who.flight, func() (any, error) { return p.ask(context.WithoutCancel(ctx), asked, who) })
		if err != nil {
			return nil, fmt.Errorf("credential provider %s for image %s: %w", p.Name, asked, err)
		}
		auth, _ = got.(map[string]exchange.AuthConfig)
	}
	var out []credential
	for _, pattern := range slices.Backward(sortedKeys(auth)) {
		if fits(pattern, repo.RegistryStr(), repo.RepositoryStr()) {
			out = append(out, credential{
				auth: &cri.AuthConfig{Username: auth[pattern].Username, Password: auth[pattern].Password}, account: who.account,
			})
		}
	}
	return out, nil
}

// known is what was said before and still holds.
func (p *provider) known(image, whom string) (map[string]exchange.AuthConfig, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, key := range []string{image, registryOf(image), everything} {
		if c, ok := p.cache[cacheKey{key, whom}]; ok && !p.clock.Now().After(c.until) {
			return c.auth, true
		}
	}
	return nil, false
}

func registryOf(image string) string { host, _, _ := strings.Cut(image, "/"); return host }

// ask runs the program and keeps its answer for as long as it, or else the
// configuration, says.
func (p *provider) ask(ctx context.Context, image string, who *identity) (map[string]exchange.AuthConfig, error) {
	r, err := p.run(ctx, image, who)
	if err != nil {
		return nil, err
	}
	if err := p.checkAnswer(r, who); err != nil {
		return nil, err
	}
	key := map[exchange.PluginCacheKeyType]string{
		exchange.ImagePluginCacheKeyType: image, exchange.RegistryPluginCacheKeyType: registryOf(image), exchange.GlobalPluginCacheKeyType: everything,
	}[r.CacheKeyType]
	if key == "" {
		return nil, fmt.Errorf("its answer has cacheKeyType %q, which is not Image, Registry or Global", r.CacheKeyType)
	}
	keep := p.DefaultCacheDuration.Duration
	if r.CacheDuration != nil {
		keep = r.CacheDuration.Duration
	}
	if keep <= 0 {
		return r.Auth, nil
	}
	now := p.clock.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	for k, c := range p.cache {
		if now.After(c.until) {
			delete(p.cache, k)
		}
	}
	p.cache[cacheKey{key, who.key}] = cached{r.Auth, now.Add(keep)}
	return r.Auth, nil
}

// run asks the program once: a CredentialProviderRequest on its standard input,
// a CredentialProviderResponse on its standard output.
func (p *provider) run(ctx context.Context, image string, who *identity) (*exchange.CredentialProviderResponse, error) {
	request := exchange.CredentialProviderRequest{Image: image, ServiceAccountToken: who.token, ServiceAccountAnnotations: who.annotations}
	request.APIVersion, request.Kind = p.APIVersion, "CredentialProviderRequest"
	in, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, providerTimeout)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, p.program, p.Args...)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = p.environ, bytes.NewReader(in), &stdout, &stderr
	cmd.WaitDelay = time.Second // for children that hold its output
	start := p.clock.Now()
	err = cmd.Run()
	p.metrics.ran(p.Name, p.clock.Since(start), err)
	if err != nil {
		said := strings.TrimSpace(stderr.String())
		return nil, fmt.Errorf("run %s: %w: %s", p.program, err, said[:min(len(said), 1024)])
	}
	r := &exchange.CredentialProviderResponse{}
	// An error of the decoder may quote the answer, which has passwords.
	if unknown, err := strict.UnmarshalStrict(stdout.Bytes(), r); err != nil || len(unknown) > 0 {
		return nil, errors.New("its answer is no CredentialProviderResponse in JSON")
	}
	if r.APIVersion != p.APIVersion || r.Kind != "CredentialProviderResponse" {
		return nil, fmt.Errorf("its answer has apiVersion %q, kind %q: it has to be %s, CredentialProviderResponse", r.APIVersion, r.Kind, p.APIVersion)
	}
	return r, nil
}
