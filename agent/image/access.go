package image

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/internal/whole"
)

// Verification says for which images that are on the node a pod has to show
// credentials (KubeletConfiguration, imagePullCredentialsVerificationPolicy).
type Verification string

// The policies. What was imported is "preloaded", as is what somebody else
// pulled.
const (
	NeverVerify                  Verification = "NeverVerify"
	NeverVerifyPreloadedImages   Verification = "NeverVerifyPreloadedImages"
	NeverVerifyAllowlistedImages Verification = "NeverVerifyAllowlistedImages"
	AlwaysVerify                 Verification = "AlwaysVerify"
)

// access remembers with which credentials images were pulled, so that a pod
// without them does not get at an image because another one pulled it ("Ensure
// secret pulled images"). It outlives the agent in files of the kubelet's
// layout:
//
//	DIR/pulling/sha256-HASH  an image that was being pulled, by its name
//	DIR/pulled/sha256-HASH   an image that was pulled, by its ID
//
// Invariant: from before an image can be on the node by our doing until it is
// gone, one of the two is there. The first one is synced to disk; a pull takes
// longer.
type access struct {
	dir    string
	policy Verification
	listed []string // allowed without credentials, a repository or PREFIX/*
	clock  clock.PassiveClock

	mu      sync.Mutex
	pulled  map[string]*record // by image ID
	pulling map[string]*pulls  // by image, as pods name it: as the files are
}

// pulls are those of an image whose end was not seen.
type pulls struct {
	name string // of the image, as the runtime has it
	now  int    // how many are under way
	cut  bool   // one of an earlier agent was cut off
}

// record is the kubelet's ImagePulledRecord.
type record struct {
	Kind     string             `json:"kind"`
	Version  string             `json:"apiVersion"`
	Updated  time.Time          `json:"lastUpdatedTime"`
	ImageRef string             `json:"imageRef"`
	By       map[string]holders `json:"credentialMapping,omitempty"` // by repository
}

// holders are those who have shown that they may have an image.
type holders struct {
	Secrets  []holder  `json:"kubernetesSecrets,omitempty"`
	Accounts []account `json:"kubernetesServiceAccounts,omitempty"`
	Everyone bool      `json:"nodePodsAccessible,omitempty"`
}

// account is a service account by whose token a provider gave a login.
type account struct {
	UID       string `json:"uid"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// holder is a secret with the hash of the login that it had.
type holder struct {
	UID       string `json:"uid"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Hash      string `json:"credentialHash"`
}

func (h holder) place() holder { return holder{UID: h.UID, Namespace: h.Namespace, Name: h.Name} }

// intent is the kubelet's ImagePullIntent.
type intent struct {
	Kind    string `json:"kind"`
	Version string `json:"apiVersion"`
	Image   string `json:"image"`
}

const recordVersion = "kubelet.config.k8s.io/v1beta1"

// mostHolders bounds the secrets of a record that are added without a pull, mostKept
// all of its secrets, and its service accounts. Who had been there longest when
// others came is sent to the registry again.
const (
	mostHolders = 100
	mostKept    = 1000
)

// openAccess reads what earlier agents wrote. What cannot be read is as if it
// were an image pulled with credentials that nobody has.
func openAccess(dir string, policy Verification, listed []string, c clock.PassiveClock) (*access, error) {
	if policy == "" {
		policy = NeverVerifyPreloadedImages
	}
	a := &access{dir: dir, policy: policy, listed: listed, clock: c, pulled: map[string]*record{}, pulling: map[string]*pulls{}}
	for _, sub := range []string{"pulled", "pulling"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, fmt.Errorf("remember pulled images: %w", err)
		}
	}
	var broken []error
	for _, file := range files(filepath.Join(dir, "pulled")) {
		r := &record{}
		if err := readJSON(file, r); err != nil || r.ImageRef == "" {
			broken = append(broken, fmt.Errorf("record of a pulled image %s: %w", file, err))
			continue
		}
		a.pulled[r.ImageRef] = r
	}
	for _, file := range files(filepath.Join(dir, "pulling")) {
		var i intent
		if err := readJSON(file, &i); err != nil || i.Image == "" {
			broken = append(broken, fmt.Errorf("record of a begun pull %s: %w", file, err))
			continue
		}
		a.pulling[i.Image] = &pulls{name: FullName(i.Image), cut: true}
	}
	return a, errors.Join(broken...)
}

func files(dir string) []string {
	all, _ := filepath.Glob(filepath.Join(dir, "sha256-*[0-9a-f]")) // the pattern is good
	return all
}

func readJSON(file string, into any) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, into)
}

func fileOf(dir, sub, key string) string {
	sum := sha256.Sum256([]byte(key))
	return filepath.Join(dir, sub, "sha256-"+hex.EncodeToString(sum[:]))
}

// encode makes what a file is to hold, and puts it there.
func encode(put func(file string, data []byte) error, file string, content any) error {
	data, err := json.Marshal(content)
	if err != nil {
		return err
	}
	return put(file, data)
}

// begin notes that an image will be pulled; done is called at the end, with the
// ID when the image came, and by which credentials. Pulls of one image may overlap:
// the note goes with the last, unless none of them tells what became of an image
// whose pull was cut off.
func (a *access) begin(image string) (done func(id string, by *credential) error, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	file := fileOf(a.dir, "pulling", image)
	p := a.pulling[image]
	if p == nil {
		if err := encode(whole.WriteSynced, file, intent{"ImagePullIntent", recordVersion, image}); err != nil {
			return nil, fmt.Errorf("note that image %s will be pulled: %w", image, err)
		}
		p = &pulls{name: FullName(image)}
		a.pulling[image] = p
	}
	p.now++
	return func(id string, by *credential) error {
		a.mu.Lock()
		defer a.mu.Unlock()
		if id != "" {
			// When this fails the other file stays, and with it the doubt.
			if err := a.add(image, id, by.holders()); err != nil {
				return err
			}
			p.cut = false
		}
		if p.now--; p.now > 0 || p.cut {
			return nil
		}
		delete(a.pulling, image)
		return os.Remove(file)
	}, nil
}

// add writes down who may have an image. a.mu is held.
func (a *access) add(image, id string, by holders) error {
	r := &record{Kind: "ImagePulledRecord", Version: recordVersion, Updated: a.clock.Now(), ImageRef: id, By: map[string]holders{}}
	old := a.pulled[id]
	if old != nil {
		maps.Copy(r.By, old.By)
	}
	repo := repository(image)
	had, known := r.By[repo]
	now := had.and(by)
	if old != nil && known && now.equal(had) {
		return nil
	}
	r.By[repo] = now
	if err := encode(whole.Write, fileOf(a.dir, "pulled", id), r); err != nil {
		return fmt.Errorf("note who may have image %s: %w", image, err)
	}
	a.pulled[id] = r
	return nil
}

func (h holders) equal(o holders) bool {
	return h.Everyone == o.Everyone && slices.Equal(h.Secrets, o.Secrets) && slices.Equal(h.Accounts, o.Accounts)
}

// and is both together; of a secret the newer login counts.
func (h holders) and(more holders) holders {
	if h.Everyone || more.Everyone {
		return holders{Everyone: true}
	}
	out := holders{Secrets: slices.Clone(h.Secrets), Accounts: slices.Clone(h.Accounts)}
	for _, s := range more.Secrets {
		i := slices.IndexFunc(out.Secrets, func(o holder) bool { return o.place() == s.place() })
		if i < 0 {
			out.Secrets = append(out.Secrets, s)
		} else {
			out.Secrets[i] = s
		}
	}
	for _, s := range more.Accounts {
		if !slices.Contains(out.Accounts, s) {
			out.Accounts = append(out.Accounts, s)
		}
	}
	return holders{Secrets: newest(out.Secrets), Accounts: newest(out.Accounts)}
}

func newest[T any](list []T) []T { return list[max(0, len(list)-mostKept):] }

// allows says whether a pod with these credentials may have an image that is on
// the node, without a registry being asked. have is only asked for them when
// they count: it may take long.
func (a *access) allows(image string, found *cri.Image, have func() []credential) bool {
	if all, some := a.open(image, found); all || !some {
		return all
	}
	creds := have()
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.pulled[found.GetId()]
	if r == nil {
		return false // it went meanwhile
	}
	by := r.By[repository(image)]
	return by.Everyone || slices.ContainsFunc(creds, func(c credential) bool { return a.has(image, found.GetId(), by, c) })
}

// open says whether an image that is on the node is for all, and if not, whether
// it is for some. An imported image is pinned: who imports one gives it to all.
func (a *access) open(image string, found *cri.Image) (all, some bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.pulled[found.GetId()]
	ours := !found.GetPinned() && (r != nil || a.beingPulled(found))
	switch a.policy {
	case NeverVerify:
		return true, false
	case NeverVerifyPreloadedImages:
		if !ours {
			return true, false
		}
	case NeverVerifyAllowlistedImages:
		if a.isListed(repository(image)) {
			return true, false
		}
	}
	if r == nil {
		return false, false
	}
	by := r.By[repository(image)]
	return by.Everyone, len(by.Secrets)+len(by.Accounts) > 0
}

// has says whether a credential is one of those by which an image came. a.mu is
// held.
func (a *access) has(image, id string, by holders, c credential) bool {
	if c.source.UID == "" {
		return c.account.UID != "" && slices.Contains(by.Accounts, c.account)
	}
	for _, known := range by.Secrets {
		same := known.Hash != "" && known.Hash == c.source.Hash
		if !same && known.place() != c.source.place() {
			continue
		}
		// Known by its login or by its place: both are, from now on.
		if known != c.source && len(by.Secrets) < mostHolders {
			_ = a.add(image, id, holders{Secrets: []holder{c.source}}) // it is asked again otherwise
		}
		return true
	}
	return false
}

// beingPulled says whether an image is there, or may be, by a pull of ours whose
// end was not seen. a.mu is held.
func (a *access) beingPulled(i *cri.Image) bool {
	for _, p := range a.pulling {
		if slices.Contains(i.GetRepoTags(), p.name) || slices.Contains(i.GetRepoDigests(), p.name) {
			return true
		}
	}
	return false
}

// prune forgets the images that are not on the node any more. list is what was
// there at a time not before since.
func (a *access) prune(list []*cri.Image, since time.Time) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	there, names := map[string]bool{}, map[string]bool{}
	for _, i := range list {
		there[i.GetId()] = true
		for _, n := range slices.Concat(i.GetRepoTags(), i.GetRepoDigests()) {
			names[n] = true
		}
	}
	var errs []error
	remove := func(sub, key string) {
		if err := os.Remove(fileOf(a.dir, sub, key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("forget a pulled image: %w", err))
		}
	}
	for id, r := range a.pulled {
		if !there[id] && r.Updated.Before(since) {
			delete(a.pulled, id)
			remove("pulled", id)
		}
	}
	for image, p := range a.pulling {
		if p.now == 0 && !names[p.name] {
			delete(a.pulling, image)
			remove("pulling", image)
		}
	}
	return errors.Join(errs...)
}

// isListed says whether a repository is in the allowlist.
func (a *access) isListed(repo string) bool {
	return slices.ContainsFunc(a.listed, func(p string) bool {
		prefix, wild := strings.CutSuffix(p, "*")
		return p == repo || wild && strings.HasPrefix(repo, prefix)
	})
}

// repository is an image's name without tag and digest.
func repository(image string) string {
	image, _, _ = strings.Cut(image, "@")
	if i := strings.LastIndexByte(image, ':'); i > strings.LastIndexByte(image, '/') {
		return image[:i]
	}
	return image
}

// FullName is an image's name as runtimes list it: with registry and tag.
func FullName(image string) string {
	ref, err := name.ParseReference(image, name.WeakValidation)
	if err != nil {
		return image
	}
	if rest, ok := strings.CutPrefix(ref.Name(), name.DefaultRegistry+"/"); ok {
		return "docker.io/" + rest
	}
	return ref.Name()
}
