package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"hansa.dev/hansa/store/etcd"
)

// started is an own cluster that runs, with its administrator.
func started(t *testing.T, name string, flags ...string) (*cluster, *peer) {
	t.Helper()
	c := own(t, name)
	if err := c.up(flags...); err != nil {
		t.Fatal(err)
	}
	return c, c.peer(t)
}

func (c *cluster) peer(t *testing.T) *peer {
	t.Helper()
	config, err := c.config()
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPeer(config)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// journal is what one writer knows to be acknowledged about its object.
type journal struct {
	name    string
	value   int  // of the last write that was answered
	trying  int  // of the last write that was sent
	deleted bool // the deletion was answered
}

// write creates objects, updates each some times and deletes every third, until
// the server does not answer any more. It notes what was answered.
func write(ctx context.Context, p *peer, worker, life int, more func()) []*journal {
	var all []*journal
	for n := 0; ; n++ {
		j := &journal{name: fmt.Sprintf("w%d-%d-%d", life, worker, n), value: -1}
		all = append(all, j)
		for v := range 4 {
			c := call{method: "PUT", path: at("configmaps", "default", j.name)}
			if v == 0 {
				c.method, c.path = "POST", at("configmaps", "default")
			}
			c.body = fmt.Sprintf(`{"metadata":{"name":%q},"data":{"v":"%d"}}`, j.name, v)
			j.trying = v
			if !answered(ctx, p, c) {
				return all
			}
			j.value = v
			more()
		}
		if n%3 == 0 {
			j.trying = -1
			if !answered(ctx, p, call{method: "DELETE", path: at("configmaps", "default", j.name)}) {
				return all
			}
			j.deleted = true
		}
	}
}

func answered(ctx context.Context, p *peer, c call) bool {
	resp, err := p.open(ctx, c)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode/100 == 2
}

// lost holds what is there to the journal.
func (j *journal) lost(have map[string]string) error {
	value, there := have[j.name]
	switch {
	case j.deleted && there:
		return fmt.Errorf("%s is back after its deletion", j.name)
	case j.deleted, j.value < 0, j.trying < 0 && !there:
		return nil // gone, never answered, or its deletion was on its way
	case !there:
		return fmt.Errorf("%s is lost", j.name)
	case value != fmt.Sprint(j.value) && value != fmt.Sprint(j.trying):
		return fmt.Errorf("%s is %s, acknowledged was %d", j.name, value, j.value)
	}
	return nil
}

// kill -9 under load: every acknowledged write is there after the next start,
// and the clients' credentials and versions are still good.
func TestKilledDaemonLosesNothing(t *testing.T) {
	c, p := started(t, "killed")
	account := p.want(t, http.StatusCreated, call{method: "POST", path: at("serviceaccounts", "default", "default", "token"), body: "{spec: {}}"}, nil).object(t)
	node := p.want(t, http.StatusOK, call{path: at("nodes", "", "node-killed")}, nil).object(t)
	var journals []*journal
	from := p.want(t, http.StatusOK, call{path: at("configmaps", "default")}, nil).object(t).GetResourceVersion()
	for life := range 3 {
		const workers, kill = 16, 400
		var mu sync.Mutex
		var group sync.WaitGroup
		writes := 0
		for w := range workers {
			group.Go(func() {
				made := write(t.Context(), p, w, life, func() {
					mu.Lock()
					defer mu.Unlock()
					if writes++; writes == kill {
						_ = c.daemon.cmd.Process.Kill() // its end is waited for below
					}
				})
				mu.Lock()
				defer mu.Unlock()
				journals = append(journals, made...)
			})
		}
		group.Wait()
		<-c.daemon.ended
		if err := c.up(); err != nil {
			t.Fatalf("start after kill -9: %v", err)
		}
		p.http.CloseIdleConnections()
		var list corev1.ConfigMapList
		p.want(t, http.StatusOK, call{path: at("configmaps", "default")}, &list)
		have := map[string]string{}
		for _, cm := range list.Items {
			have[cm.Name] = cm.Data["v"]
		}
		for _, j := range journals {
			if err := j.lost(have); err != nil {
				t.Errorf("life %d: %v", life, err)
			}
		}
	}
	if len(journals) < 100 {
		t.Errorf("only %d objects were written", len(journals))
	}
	robot := rest.AnonymousClientConfig(p.config)
	robot.BearerToken = field(account, "status", "token")
	asRobot, err := newPeer(robot)
	if err != nil {
		t.Fatal(err)
	}
	if a, u := asRobot.whoami(t); u.Username != "system:serviceaccount:default:default" {
		t.Errorf("a token from before: %d %s", a.code, a.body)
	}
	if again := p.want(t, http.StatusOK, call{path: at("nodes", "", "node-killed")}, nil).object(t); again.GetUID() != node.GetUID() {
		t.Error("the node is another object than before")
	}
	// A watch goes on from before the first kill.
	if e := p.watch(t, call{path: at("configmaps", "default") + "?resourceVersion=" + from}).next(t); e.Type != "ADDED" {
		t.Errorf("a watch from before begins with %s %s", e.Type, e.Object)
	}
}

// forget compacts the history of a cluster that does not run.
func (c *cluster) forget(t *testing.T) {
	t.Helper()
	engine, err := etcd.Start(t.Context(), etcd.Options{Dir: filepath.Join(c.dir, "etcd")})
	if err != nil {
		t.Fatal(err)
	}
	revision, err := engine.CurrentRevision(t.Context())
	if err == nil {
		err = engine.Compact(t.Context(), revision)
	}
	if err := errors.Join(err, engine.Close()); err != nil {
		t.Fatal(err)
	}
}

// API concepts, "410 Gone" responses: what is older than the history is told to
// be so, and a list of pages goes on with another token.
func TestExpiredVersions(t *testing.T) {
	c, p := started(t, "expired")
	put := func(name string) string {
		return p.want(t, http.StatusCreated, call{method: "POST", path: at("secrets", "default"), body: "metadata: {name: " + name + "}"}, nil).object(t).GetResourceVersion()
	}
	old := put("a")
	put("b")
	put("c")
	var page metav1.PartialObjectMetadataList
	p.want(t, http.StatusOK, call{path: at("secrets", "default") + "?limit=1"}, &page)
	put("d")
	if err := c.signal(syscall.SIGTERM); err != nil {
		t.Fatalf("SIGTERM: %v: %s", err, c.daemon.errs.String())
	}
	c.forget(t)
	if err := c.up(); err != nil {
		t.Fatal(err)
	}
	p.http.CloseIdleConnections()

	p.do(t, call{path: at("secrets", "default") + "?resourceVersion=" + old + "&resourceVersionMatch=Exact"}).refused(t, 410, metav1.StatusReasonExpired, "too old")
	s := p.do(t, call{path: at("secrets", "default") + "?limit=1&continue=" + page.Continue}).
		refused(t, 410, metav1.StatusReasonExpired, "The provided continue parameter is too old to display a consistent list result.")
	if s.Continue == "" {
		t.Fatal("no token to go on with")
	}
	var names []string
	for next := s.Continue; next != ""; {
		var more metav1.PartialObjectMetadataList
		p.want(t, http.StatusOK, call{path: at("secrets", "default") + "?limit=2&continue=" + next}, &more)
		for _, i := range more.Items {
			names = append(names, i.Name)
		}
		next = more.Continue
	}
	if got := strings.Join(names, " "); got != "b c d" {
		t.Errorf("the rest of the list is %s", got)
	}
	resp, err := p.open(t.Context(), call{path: at("secrets", "default") + "?watch=1&resourceVersion=" + old})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var told struct {
		Type   string
		Object metav1.Status
		metav1.Status
	}
	if err := json.NewDecoder(resp.Body).Decode(&told); err != nil {
		t.Fatal(err)
	}
	status := told.Status
	if told.Type == "ERROR" {
		status = told.Object
	}
	if status.Code != http.StatusGone || status.Reason != metav1.StatusReasonExpired || !strings.Contains(status.Message, "too old resource version: "+old) {
		t.Errorf("watch from the past: %s %+v", told.Type, status)
	}
	// A list that is not asked for an exact version is never too old.
	p.want(t, http.StatusOK, call{path: at("secrets", "default") + "?resourceVersion=" + old}, nil)
}

// breakRoles breaks default roles: one goes, one has other rules, and view with it,
// which gathers from it; one has none and asks to be left alone. mended demands of
// the next start that it put all but the last right ("Default roles and role
// bindings", "Auto-reconciliation").
func breakRoles(t *testing.T, p *peer) (mended func()) {
	t.Helper()
	const gone, gathered, gathers, left = "system:basic-user", "system:aggregate-to-view", "view", "system:public-info-viewer"
	// Each of a rule's verbs on each of its resources: missing ones may come one by one.
	rules := func(name string) (all []string) {
		t.Helper()
		var role rbacv1.ClusterRole
		a := p.do(t, call{path: at("clusterroles", "", name)})
		if a.code == http.StatusOK {
			a.into(t, &role)
		}
		for _, r := range role.Rules {
			for _, verb := range r.Verbs {
				for _, resource := range r.Resources {
					for _, group := range r.APIGroups {
						all = append(all, verb+" "+resource+"."+group)
					}
				}
			}
		}
		return all
	}
	before := map[string][]string{gone: rules(gone), gathered: rules(gathered), gathers: rules(gathers), left: nil}
	lacks := func(name string) []string {
		now := rules(name)
		return slices.DeleteFunc(slices.Clone(before[name]), func(rule string) bool { return slices.Contains(now, rule) })
	}
	change := func(name, body string) {
		p.want(t, http.StatusOK, call{method: "PATCH", path: at("clusterroles", "", name), contentType: mergePatch, body: body}, nil)
	}
	p.want(t, http.StatusOK, call{method: "DELETE", path: at("clusterroles", "", gone)}, nil)
	change(gathered, `{"rules":[{"apiGroups":["test.dev"],"resources":["things"],"verbs":["get"]}]}`)
	change(left, `{"metadata":{"annotations":{"rbac.authorization.kubernetes.io/autoupdate":"false"}},"rules":[]}`)
	eventually(t, "view loses what it gathered", func() bool { return len(lacks(gathers)) >= len(before[gathered]) })
	return func() {
		t.Helper()
		for _, name := range []string{gone, gathered} {
			if l := lacks(name); len(l) > 0 || len(before[name]) == 0 {
				t.Errorf("after a start %s lacks the rules %q of %d", name, l, len(before[name]))
			}
		}
		eventually(t, "view gathers again", func() bool { return len(lacks(gathers)) == 0 })
		if now := rules(left); len(now) > 0 {
			t.Errorf("%s asked to be left alone, and has %q", left, now)
		}
	}
}

// Ctrl-C ends the server: requests under way finish, watches end, the exit
// status is 0; the next start has everything, and says so in one line.
func TestStopAndStart(t *testing.T) {
	config := filepath.Join(t.TempDir(), "config.yaml")
	text := "node-label: [zone=north, disk=fast]\nnode-taint: [only=mine:NoSchedule]\nservice-cidr: 10.77.0.0/16\nnode-name: from-file\nlog-level: error\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c := own(t, "stopped")
	c.flags = []string{"--config", config, "--node-name", "from-flag"}
	if err := c.up(); err != nil {
		t.Fatal(err)
	}
	p := c.peer(t)
	line := c.daemon.out.String()
	if !readyLine.MatchString(line) || !strings.Contains(line, "node from-flag, kubeconfig "+c.dir+"/kubeconfig\n") {
		t.Errorf("the ready line is %q", line)
	}
	if info, err := os.Stat(filepath.Join(c.dir, "kubeconfig")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("kubeconfig: %v, %v", info, err)
	}
	node := p.want(t, http.StatusOK, call{path: at("nodes", "", "from-flag")}, nil).object(t)
	if node.GetLabels()["zone"] != "north" || node.GetLabels()["disk"] != "fast" || !strings.Contains(field(node, "spec", "taints"), `{"effect":"NoSchedule","key":"only","value":"mine"}`) {
		t.Errorf("node has labels %v and taints %s", node.GetLabels(), field(node, "spec", "taints"))
	}
	if ip := field(p.want(t, http.StatusOK, call{path: at("services", "default", "kubernetes")}, nil).object(t), "spec", "clusterIP"); ip != "10.77.0.1" {
		t.Errorf("the API's service is at %s", ip)
	}
	p.want(t, http.StatusCreated, call{method: "POST", path: at("configmaps", "default"), body: "metadata: {name: kept}"}, nil)
	rolesMended, bindingsMended := breakRoles(t, p), breakBindings(t, p)
	w := p.watch(t, call{path: at("configmaps", "default") + "?fieldSelector=metadata.name%3Dkept"})
	w.expect(t, "ADDED kept")
	if err := c.signal(syscall.SIGINT); err != nil {
		t.Errorf("Ctrl-C: %v: %s", err, c.daemon.errs.String())
	}
	if e, more := <-w.events; more {
		t.Errorf("after the end comes %s", e.Type)
	}
	if out, errs := c.daemon.out.String(), c.daemon.errs.String(); out != line || errs != "" {
		t.Errorf("stopping printed %q and %q", strings.TrimPrefix(out, line), errs)
	}
	if r := c.run(t, "status"); r.code != 0 || r.out != "hansa does not run from "+c.dir+"; hansa up starts it\n" {
		t.Errorf("status is %+v", r)
	}
	if err := c.up(); err != nil {
		t.Fatal(err)
	}
	p.http.CloseIdleConnections()
	p.want(t, http.StatusOK, call{path: at("configmaps", "default", "kept")}, nil)
	if again := p.want(t, http.StatusOK, call{path: at("nodes", "", "from-flag")}, nil).object(t); again.GetUID() != node.GetUID() {
		t.Error("the second start made another node")
	}
	rolesMended()
	bindingsMended()
	if r := c.run(t, "down"); r.code != 0 || r.out != "" || r.err != "" {
		t.Errorf("down is %+v", r)
	}
	if <-c.daemon.ended; c.daemon.err != nil {
		t.Errorf("down ended the daemon with %v", c.daemon.err)
	}
	if _, err := os.Stat(filepath.Join(c.dir, "etcd")); err != nil {
		t.Errorf("down took the data: %v", err)
	}
	if r := c.run(t, "down"); r.code != 0 {
		t.Errorf("down again is %+v", r)
	}
}
