package agent

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/agent/pod"
	"hansa.dev/hansa/agent/static"
	"hansa.dev/hansa/agent/status"
	"hansa.dev/hansa/agent/work"
	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/internal/dirwatch"
)

// statics are the node's own pods: what files and a URL say, and what is to be
// shown of them in the API, where a mirror pod stands for each.
//
//	files, URL ─► wanted ─► workers ─► mirrors (made, replaced, deleted)
//
// The workers need nothing of the API; the mirrors follow once it is there.
type statics struct {
	reader *static.Reader
	// fetched are the last good answer of the URL.
	fetched []*v1.Pod
	// told are the errors that were said and still hold.
	told map[string]bool
	wake chan struct{} // of the mirrors

	mu sync.Mutex
	// wanted are the pods by UID; not written to. seen is since when.
	wanted map[types.UID]*v1.Pod
	// statuses of those that have a worker.
	statuses map[types.UID]*v1.PodStatus
}

func newStatics(c Config, row *api.Resource) *statics {
	set := c.Settings
	return &statics{
		reader: &static.Reader{
			Node: c.NodeName, Pods: row, Path: set.StaticPodPath, URL: set.StaticPodURL, Header: http.Header(set.StaticPodURLHeader),
			HTTP: &http.Client{Timeout: 10 * time.Second},
		},
		told: map[string]bool{}, wake: make(chan struct{}, 1), wanted: map[types.UID]*v1.Pod{}, statuses: map[types.UID]*v1.PodStatus{},
	}
}

func (s *statics) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// status is the newest of a static pod's worker, or nil.
func (s *statics) status(uid types.UID) *v1.PodStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.statuses[uid]
}

// keepStatic reads files and URL whenever they may have changed.
func (a *Agent) keepStatic(ctx context.Context) {
	s, set := a.statics, a.Settings
	if s.reader.Path == "" && s.reader.URL == "" {
		return
	}
	var changed <-chan struct{}
	watch := func() bool { return s.reader.Path == "" }
	if w, err := dirwatch.New(staticChanges); err == nil {
		defer w.Close()
		changed = w.Changed
		if s.reader.Path != "" {
			watch = func() bool { return w.Add(watched(s.reader.Path)) == nil }
		}
	}
	fetch := a.Clock.NewTicker(set.HTTPCheckFrequency.Duration)
	defer fetch.Stop()
	read := a.Clock.NewTicker(set.FileCheckFrequency.Duration)
	defer read.Stop()
	url := fetch.C()
	if s.reader.URL == "" {
		url = nil
	}
	for {
		// The path may be another directory than it was. The watch is first, and the
		// pods are read at first, too: what changed in between would not be seen.
		path := read.C()
		if watch() {
			path = nil
		}
		a.readStatic()
		a.post(a.syncStatic)
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-path:
		case <-url:
			a.fetchStatic(ctx)
		}
	}
}

// staticChanges are what is told of the directory of static pods: changes in it, and
// that it goes itself.
const staticChanges = dirwatch.Files | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF

// watched is the directory in which changes of a path are seen: that of a path
// which is not there will tell when it is.
func watched(path string) string {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return path
	}
	return filepath.Dir(path)
}

// fetchStatic asks the URL. Pods stay as they are when it does not answer.
func (a *Agent) fetchStatic(ctx context.Context) {
	pods, errs, err := a.statics.reader.Fetch(ctx)
	if err != nil {
		a.tellStatic(append(errs, err), "http")
		return
	}
	a.statics.fetched = pods
	a.tellStatic(errs, "http")
}

// readStatic makes the wanted pods of the files as they are, and what the URL
// said last.
func (a *Agent) readStatic() {
	s := a.statics
	files, errs := s.reader.Files()
	a.tellStatic(errs, "file")
	wanted := map[types.UID]*v1.Pod{}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range slices.Concat(files, s.fetched) {
		if old := s.wanted[p.UID]; old != nil {
			p = old // as it was first seen
		} else if p.Annotations[noteSeen] == "" {
			p.Annotations[noteSeen] = a.Clock.Now().Format(time.RFC3339Nano)
		}
		wanted[p.UID] = p
	}
	s.wanted = wanted
}

// noteSeen is when a static pod was first seen.
const noteSeen = "kubernetes.io/config.seen"

// tellStatic says what is wrong with files or URL: once, until it is right.
func (a *Agent) tellStatic(errs []error, source string) {
	now := map[string]bool{}
	for _, err := range errs {
		text := source + ": " + err.Error()
		now[text] = true
		if !a.statics.told[text] {
			a.Log.Warn("a static pod is not run", "err", err)
			a.nodeEvent(events.Warning, "InvalidStaticPod", err.Error())
		}
	}
	for text := range a.statics.told {
		if len(text) > len(source) && text[:len(source)] == source && !now[text] {
			delete(a.statics.told, text)
		}
	}
	maps.Copy(a.statics.told, now)
}

// beginStatic starts the pods of files and URL before anything is known of the
// API; what the runtime has of them is adopted.
func (a *Agent) beginStatic(ctx context.Context) error {
	s := a.statics
	if s.reader.Path == "" && s.reader.URL == "" {
		return nil
	}
	if s.reader.URL != "" {
		a.fetchStatic(ctx)
	}
	a.readStatic()
	known, err := a.look(ctx, nil)
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	s.mu.Lock()
	wanted := slices.Collect(maps.Values(s.wanted))
	s.mu.Unlock()
	for _, p := range wanted {
		a.begin(ctx, p, known[p.UID])
	}
	return nil
}

// syncStatic starts what is wanted and ends what is not. A pod of a name waits
// until the one that had it before is gone, and one of which there are remains
// until those are.
func (a *Agent) syncStatic(ctx context.Context) {
	s := a.statics
	s.mu.Lock()
	wanted := s.wanted
	s.mu.Unlock()
	taken := map[api.Key]bool{}
	for uid, w := range a.workers {
		if w.static == nil {
			continue
		}
		taken[w.key] = true
		if wanted[uid] == nil {
			w.Gone()
		}
	}
	for uid, p := range wanted {
		if key := keyOf(p); a.workers[uid] == nil && !a.orphans[uid] && !taken[key] {
			taken[key] = true
			a.begin(ctx, p, work.Known{})
		}
	}
	s.poke()
}

func keyOf(p *v1.Pod) api.Key { return api.Key{Namespace: p.Namespace, Name: p.Name} }

// keepMirrors shows static pods in the API, from when that is there.
func (a *Agent) keepMirrors(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-a.knows:
	}
	for {
		var again <-chan time.Time
		if !a.mirrorAll(ctx) {
			again = a.Clock.After(lookPause)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.statics.wake:
		case <-again:
		}
	}
}

// mirrorAll makes the mirrors that lack, and deletes those of pods that are no
// more or that somebody is deleting. It says whether all is as it should be.
func (a *Agent) mirrorAll(ctx context.Context) bool {
	node, _ := a.Client.View().Get(a.rows.nodes, api.Key{Name: a.NodeName}).(*v1.Node)
	a.workersMu.RLock()
	own := map[api.Key]*v1.Pod{}
	for _, w := range a.workers {
		if w.static != nil {
			own[w.key] = w.static
		}
	}
	a.workersMu.RUnlock()
	fine := true
	for obj := range a.Client.View().ByIndex(a.rows.pods, api.IndexNode, a.NodeName) {
		mirror, ok := obj.(*v1.Pod)
		if !ok || !pod.IsMirror(mirror) {
			continue
		}
		p := own[keyOf(mirror)]
		if p != nil && mirror.Annotations[pod.NoteMirror] == string(p.UID) && mirror.DeletionTimestamp == nil {
			delete(own, keyOf(mirror))
			if st := a.statics.status(p.UID); st != nil {
				a.pusher.Set(mirror, st.DeepCopy())
			}
			continue
		}
		err := a.Client.Delete(ctx, api.RefTo(a.rows.pods, mirror), metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0), Preconditions: &metav1.Preconditions{UID: &mirror.UID}})
		fine = a.mirrored(mirror, "deleted", err) && fine
	}
	for _, p := range own {
		if node == nil {
			return false // it owns them
		}
		_, err := a.Client.Create(ctx, a.rows.pods, mirrorOf(p, node), metav1.CreateOptions{})
		fine = a.mirrored(p, "made", err) && fine
		if err == nil {
			a.statics.poke() // for its status
		}
	}
	return fine
}

func (a *Agent) mirrored(p *v1.Pod, what string, err error) bool {
	if err == nil || apierrors.IsNotFound(err) {
		return true
	}
	a.Log.Warn("mirror of a static pod not "+what, "pod", p.Namespace+"/"+p.Name, "err", err)
	return false
}

// mirrorOf is what the API is to show of a static pod.
func mirrorOf(p *v1.Pod, node *v1.Node) *v1.Pod {
	out := p.DeepCopy()
	out.UID = ""
	out.Annotations[pod.NoteMirror] = string(p.UID)
	out.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID, Controller: ptr.To(true)}}
	return out
}

// statuses takes those of static pods to their mirrors.
type statuses struct {
	*status.Pusher
	statics *statics
}

func (s statuses) Set(p *v1.Pod, st *v1.PodStatus) {
	if !pod.IsStatic(p) {
		s.Pusher.Set(p, st)
		return
	}
	s.statics.mu.Lock()
	s.statics.statuses[p.UID] = st
	s.statics.mu.Unlock()
	s.statics.poke()
}

// forget drops what was known of a static pod that is gone. It says whether the same
// is wanted again.
func (s *statics) forget(uid types.UID) (again bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.statuses, uid)
	s.poke()
	return s.wanted[uid] != nil
}
