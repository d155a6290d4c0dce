package fairness_test

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	defaults "k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"
	"k8s.io/apiserver/pkg/authentication/user"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/fairness"
	"hansa.dev/hansa/apiserver/request/requesttest"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/direct"
	"hansa.dev/hansa/client/informers"
)

// asked is a request of a test.
type asked struct {
	user    user.Info
	meaning apirequest.RequestInfo
	query   string
	serve   func()
	class   *fairness.Class
}

func (a *asked) User() user.Info                  { return a.user }
func (a *asked) Meaning() *apirequest.RequestInfo { m := a.meaning; return &m }
func (a *asked) URL() *url.URL                    { return &url.URL{RawQuery: a.query} }
func (a *asked) Mutating() bool {
	return a.meaning.Verb != "get" && a.meaning.Verb != "list" && a.meaning.Verb != "watch"
}
func (a *asked) Patience() time.Duration     { return 15 * time.Second }
func (a *asked) Classified(c fairness.Class) { a.class = &c }
func (a *asked) Serve() {
	if a.serve != nil {
		a.serve()
	}
}

func someone(name string, groups ...string) user.Info {
	return &user.DefaultInfo{Name: name, Groups: append(groups, user.AllAuthenticated)}
}

var (
	account = someone("system:serviceaccount:default:a", "system:serviceaccounts", "system:serviceaccounts:default")
	other   = someone("system:serviceaccount:default:b", "system:serviceaccounts", "system:serviceaccounts:default")
	node    = someone("system:node:n", user.NodesGroup)
	admin   = someone("admin", user.SystemPrivilegedGroup)
)

func get(u user.Info) *asked {
	return &asked{user: u, meaning: apirequest.RequestInfo{
		IsResourceRequest: true, Verb: "get", APIPrefix: "api", APIVersion: "v1", Namespace: "default", Resource: "configmaps", Name: "a",
	}}
}

func renewLease(u user.Info) *asked {
	return &asked{user: u, meaning: apirequest.RequestInfo{
		IsResourceRequest: true, Verb: "update", APIPrefix: "apis", APIGroup: "coordination.k8s.io", APIVersion: "v1",
		Namespace: "kube-node-lease", Resource: "leases", Name: "n",
	}}
}

// world is a filter that runs over a cluster's objects.
type world struct {
	*fairness.Filter
	client.Interface
}

// run makes a world in a bubble of its own, with the mandatory and suggested
// objects and those of the test.
func run(t *testing.T, seats int, objects []api.Object, f func(*testing.T, world)) {
	synctest.Test(t, func(t *testing.T) {
		c := direct.New(requesttest.Handler(t, nil), requesttest.Admin, "test")
		for _, pl := range append(defaults.MandatoryPriorityLevelConfigurations, defaults.SuggestedPriorityLevelConfigurations...) {
			objects = append(objects, pl.DeepCopy())
		}
		for _, fs := range append(defaults.MandatoryFlowSchemas, defaults.SuggestedFlowSchemas...) {
			objects = append(objects, fs.DeepCopy())
		}
		for _, obj := range objects {
			create(t, c, obj)
		}
		factory := informers.New(c.Registry(), c.View())
		filter, err := fairness.New(fairness.Config{
			Registry: c.Registry(), Informers: factory, Writer: c, Seats: seats,
			Size: func(*api.Resource) (int, int64) { return 1000, 2_000_000 },
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		factory.StartWithContext(ctx)
		factory.WaitForCacheSyncWithContext(ctx)
		var ended sync.WaitGroup
		ended.Go(func() { _ = filter.Run(ctx) })
		synctest.Wait()
		f(t, world{filter, c})
		cancel()
		ended.Wait()
		factory.Shutdown()
		// The library's delayed queue looks for its end every ten seconds.
		synctest.Wait()
	})
}

func create(t *testing.T, c client.Interface, obj api.Object) {
	t.Helper()
	if _, err := c.Create(t.Context(), c.Registry().Of(obj), obj, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// level is one with a number of shares that lends and borrows nothing, and the
// schema that sends the service account "a" there.
func level(name string, shares int32, response flowcontrolv1.LimitResponse) []api.Object {
	return []api.Object{
		&flowcontrolv1.PriorityLevelConfiguration{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: flowcontrolv1.PriorityLevelConfigurationSpec{
				Type: flowcontrolv1.PriorityLevelEnablementLimited,
				Limited: &flowcontrolv1.LimitedPriorityLevelConfiguration{
					NominalConcurrencyShares: &shares, LendablePercent: ptr.To[int32](0), BorrowingLimitPercent: ptr.To[int32](0), LimitResponse: response,
				},
			},
		},
		&flowcontrolv1.FlowSchema{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: flowcontrolv1.FlowSchemaSpec{
				PriorityLevelConfiguration: flowcontrolv1.PriorityLevelConfigurationReference{Name: name},
				MatchingPrecedence:         50,
				DistinguisherMethod:        &flowcontrolv1.FlowDistinguisherMethod{Type: flowcontrolv1.FlowDistinguisherMethodByUserType},
				Rules: []flowcontrolv1.PolicyRulesWithSubjects{{
					Subjects: []flowcontrolv1.Subject{{
						Kind: flowcontrolv1.SubjectKindServiceAccount, ServiceAccount: &flowcontrolv1.ServiceAccountSubject{Namespace: "default", Name: "a"},
					}},
					ResourceRules: []flowcontrolv1.ResourcePolicyRule{{
						Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}, Namespaces: []string{"*"}, ClusterScope: true,
					}},
				}},
			},
		},
	}
}

var reject = flowcontrolv1.LimitResponse{Type: flowcontrolv1.LimitResponseTypeReject}

func queue(length int32) flowcontrolv1.LimitResponse {
	return flowcontrolv1.LimitResponse{
		Type:    flowcontrolv1.LimitResponseTypeQueue,
		Queuing: &flowcontrolv1.QueuingConfiguration{Queues: 1, HandSize: 1, QueueLengthLimit: length},
	}
}

// flood begins n requests that are served until released, and says how many are
// being served and how many were refused.
func (w world) flood(t *testing.T, n int, r func() *asked) (serving, refused func() int, release func()) {
	var mu sync.Mutex
	var in, out int
	over := make(chan struct{})
	for range n {
		a := r()
		a.serve = func() {
			mu.Lock()
			in++
			mu.Unlock()
			<-over
			mu.Lock()
			in--
			mu.Unlock()
		}
		go func() {
			if v := w.Serve(t.Context(), a); v.Refused {
				mu.Lock()
				out++
				mu.Unlock()
			}
		}()
	}
	read := func(n *int) func() int {
		return func() int {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			return *n
		}
	}
	return read(&in), read(&out), sync.OnceFunc(func() { close(over); synctest.Wait() })
}

func (w world) served(t *testing.T, a *asked) bool {
	t.Helper()
	served := false
	a.serve = func() { served = true }
	if v := w.Serve(t.Context(), a); v.Refused == served {
		t.Errorf("refused: %v, served: %v", v.Refused, served)
	}
	return served
}

// A level has its seats and its queue, and the rest of the server its own.
func TestFlood(t *testing.T) {
	// 5 of 250 shares are 3 of 110 seats, rounded up.
	run(t, 110, level("small", 5, queue(4)), func(t *testing.T, w world) {
		serving, refused, release := w.flood(t, 20, func() *asked { return get(account) })
		if n := serving(); n != 3 {
			t.Errorf("%d requests are served at once, want 3", n)
		}
		if n := refused(); n != 13 {
			t.Errorf("%d requests were refused, want 20-3-4", n)
		}
		for what, a := range map[string]*asked{"a lease": renewLease(node), "the administrator": get(admin), "another account": get(other)} {
			if !w.served(t, a) {
				t.Errorf("%s has to wait for the flood", what)
			}
		}
		if w.served(t, get(account)) {
			t.Error("the queue took one more")
		}
		release()
		if n := serving(); n != 0 {
			t.Errorf("%d requests are still being served", n)
		}
		if !w.served(t, get(account)) {
			t.Error("refused after the flood")
		}
	})
}

// A request waits for no longer than it has patience.
func TestPatience(t *testing.T) {
	run(t, 110, level("small", 5, queue(100)), func(t *testing.T, w world) {
		serving, refused, release := w.flood(t, 10, func() *asked { return get(account) })
		if n, m := serving(), refused(); n != 3 || m != 0 {
			t.Fatalf("%d served and %d refused, want 3 and 0", n, m)
		}
		<-time.After(14 * time.Second)
		if n := refused(); n != 0 {
			t.Errorf("%d refused after 14 s", n)
		}
		<-time.After(2 * time.Second)
		if n := refused(); n != 7 {
			t.Errorf("%d refused after 16 s, want the 7 that waited", n)
		}
		release()
	})
}

// A watch gives its seat back when it has told of what there was.
func TestWatch(t *testing.T) {
	run(t, 110, level("small", 5, reject), func(t *testing.T, w world) {
		watch := func() *asked {
			a := get(account)
			a.meaning.Verb, a.meaning.Name, a.query = "watch", "", "watch=true&resourceVersion=7"
			return a
		}
		var starts, ends []func()
		for range 3 {
			started, ended, v := w.Begin(t.Context(), watch())
			if v.Refused {
				t.Fatal("a watch was refused")
			}
			starts, ends = append(starts, started), append(ends, ended)
		}
		if started, ended, v := w.Begin(t.Context(), watch()); !v.Refused || started != nil || ended != nil || v.RetryAfter < 1 {
			t.Errorf("a fourth watch begins: %+v", v)
		}
		starts[0]()
		starts[0]()
		synctest.Wait()
		started, ended, v := w.Begin(t.Context(), watch())
		if v.Refused {
			t.Fatal("the seat was not given back")
		}
		for _, f := range append(append(starts, started), append(ends, ended)...) {
			f()
		}
		synctest.Wait()
		if !w.served(t, get(account)) {
			t.Error("the seats were not given back")
		}
	})
}

// A list takes as many seats as it is wide: 1000 objects of 2 kB are more than
// the ten that may be had.
func TestWideList(t *testing.T) {
	run(t, 110, level("small", 50, reject), func(t *testing.T, w world) {
		list := func() *asked {
			a := get(account)
			a.meaning.Verb, a.meaning.Name = "list", ""
			return a
		}
		serving, refused, release := w.flood(t, 3, list)
		// 50 of 295 shares are 19 seats.
		if n, m := serving(), refused(); n != 1 || m != 2 {
			t.Errorf("%d lists served and %d refused, want 1 and 2", n, m)
		}
		release()
	})
}

// The condition Dangling is written once for each change, and nothing at rest.
func TestDangling(t *testing.T) {
	objects := level("small", 5, reject)
	run(t, 110, objects[1:], func(t *testing.T, w world) {
		schemas := w.Registry().Must(flowcontrolv1.GroupName, "flowschemas")
		dangling := func() string {
			synctest.Wait()
			fs := w.View().Get(schemas, api.Key{Name: "small"}).(*flowcontrolv1.FlowSchema)
			var s []string
			for _, c := range fs.Status.Conditions {
				s = append(s, fmt.Sprintf("%s=%s %s", c.Type, c.Status, c.Reason))
			}
			return strings.Join(s, ",")
		}
		if got := dangling(); got != "Dangling=True NotFound" {
			t.Errorf("without its level the schema is %q", got)
		}
		a := get(account)
		w.served(t, a)
		theirs := a.class.SchemaUID
		create(t, w, objects[0])
		if got := dangling(); got != "Dangling=False Found" {
			t.Errorf("with its level the schema is %q", got)
		}
		fs := w.View().Get(schemas, api.Key{Name: "small"})
		w.served(t, a)
		if a.class.SchemaUID != fs.GetUID() || theirs == fs.GetUID() {
			t.Errorf("classified as %s, before as %s; the schema is %s", a.class.SchemaUID, theirs, fs.GetUID())
		}
		writes := 0
		defer w.View().Subscribe(schemas, func(old, _ api.Object) {
			if old != nil {
				writes++
			}
		})()
		<-time.After(10 * time.Minute)
		if writes > 0 {
			t.Errorf("%d writes at rest", writes)
		}
	})
}

// What passes beside the library is classified and counted as there.
func TestExempt(t *testing.T) {
	run(t, 110, nil, func(t *testing.T, w world) {
		reg := prometheus.NewPedanticRegistry()
		reg.MustRegister(w.Filter)
		metric := func(name string) (value float64) {
			t.Helper()
			families, err := reg.Gather()
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range families {
				for _, m := range f.GetMetric() {
					if f.GetName() == "apiserver_flowcontrol_"+name && m.Label[0].GetValue() == "exempt" && m.Label[1].GetValue() == "exempt" {
						value = m.GetCounter().GetValue() + m.GetGauge().GetValue()
					}
				}
			}
			return value
		}
		before := metric("dispatched_requests_total")
		serving, refused, release := w.flood(t, 500, func() *asked { return get(admin) })
		if n, m := serving(), refused(); n != 500 || m != 0 {
			t.Errorf("%d served and %d refused, want 500 and 0", n, m)
		}
		if n := metric("current_executing_requests"); n != 500 {
			t.Errorf("%v executing, want 500", n)
		}
		release()
		if n := metric("dispatched_requests_total") - before; n != 500 {
			t.Errorf("%v dispatched, want 500", n)
		}
		a := get(admin)
		w.served(t, a)
		for plural, uid := range map[string]any{"flowschemas": a.class.SchemaUID, "prioritylevelconfigurations": a.class.LevelUID} {
			r := w.Registry().Must(flowcontrolv1.GroupName, plural)
			if got := w.View().Get(r, api.Key{Name: "exempt"}).GetUID(); got != uid {
				t.Errorf("%s: classified as %v, want %v", plural, uid, got)
			}
		}
	})
}

func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := fairness.NewLimits(2, 0)
		held := make(chan struct{})
		for range 2 {
			a := get(account)
			a.serve = func() { <-held }
			go l.Serve(t.Context(), a)
		}
		synctest.Wait()
		for _, tt := range []struct {
			what string
			r    *asked
			want fairness.Verdict
		}{
			{"one too many", get(account), fairness.Verdict{Refused: true, RetryAfter: 1}},
			{"the administrator", get(admin), fairness.Verdict{}},
			{"a write", renewLease(node), fairness.Verdict{}},
		} {
			if got := l.Serve(t.Context(), tt.r); got != tt.want {
				t.Errorf("%s: %+v, want %+v", tt.what, got, tt.want)
			}
		}
		close(held)
		synctest.Wait()
		if got := l.Serve(t.Context(), get(account)); got.Refused {
			t.Error("refused after the others were served")
		}
	})
}
