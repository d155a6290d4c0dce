package controller_test

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/controller/clusterrole"
)

func clusterRoles(c client.Interface, _ events.Recorder) controller.Loop { return clusterrole.New(c) }

// everyLoop are all the loops that a server runs.
var everyLoop = []func(client.Interface, events.Recorder) controller.Loop{
	deployments, replicaSets, collector, jobs, ttls, endpointSlices, endpointsOf, mirrors,
	namespaces, accounts, rootCAs, nodeLifecycle, evictions, podCollector, clusterRoles,
	certificateSigner, podCertificates, trustBundles, serviceRanges, defaultRange, claimRepair, replication, claimKeeper,
	tokenCleaner, bootstrapSigner, disruptions, statefulSets, cronJobs, daemonSets, rollbacks, statefulRollbacks, daemonRollbacks,
}

// The loops do not disturb one another: whatever the order in which they get
// their turns, a cluster with some of everything comes to rest, and stays so.
func TestAllLoopsRest(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		w := newWorldIn(t, r)
		w.pick = func(n int) int { return rapid.IntRange(0, n-1).Draw(r, "loop") }
		for _, build := range everyLoop {
			w.run(build)
		}
		w.runAs("system:kube-controller-manager", tokenFiller)
		w.joins("n")
		create(w, aToken("t", "default", ""))
		create(w, onFailure(aDeployment("web", 3)))
		create(w, aBudget("web", "web", atMost("1")))
		create(w, addressed("web", ""))
		create(w, indexed(aJob("work", 2, 3)))
		create(w, onFailure(aStatefulSet("db", 2)))
		create(w, onFailure(aDaemonSet("logs")))
		create(w, aCronJob("tidy", "@hourly", ""))
		create(w, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
		create(w, &rbacv1.ClusterRole{
			ObjectMeta: metav1.ObjectMeta{Name: "extra", Labels: map[string]string{"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
			Rules:      []rbacv1.PolicyRule{{APIGroups: []string{"example.com"}, Resources: []string{"things"}, Verbs: []string{"get"}}},
		})
		w.live()
		w.rests()
		if view := get[*rbacv1.ClusterRole](w, "", "view"); !slices.ContainsFunc(view.Rules, func(rule rbacv1.PolicyRule) bool { return slices.Contains(rule.Resources, "things") }) {
			r.Error("the role view was not extended")
		}
		w.setImage("web", "two")
		for _, p := range w.running() {
			if indexOf(p) != "" {
				w.exits(p, 0)
			}
		}
		w.live()
		w.rolledOut("web", 3)
		remove(w, w.namespace("shop"), metav1.DeleteOptions{})
		w.deleteJob("work", metav1.DeletePropagationBackground)
		w.live()
		if w.namespace("shop") != nil || w.job("work") != nil || len(w.pods()) != 6 {
			r.Errorf("namespace %v, job %v, %d pods", w.namespace("shop"), w.job("work"), len(w.pods()))
		}
		w.time(5*time.Minute, "n")
		w.rests()
	})
}
