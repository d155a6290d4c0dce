package fairness_test

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/user"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"

	"hansa.dev/hansa/api"
)

// nominal are the seats that each level has by its shares.
func (w world) nominal(t *testing.T) map[string]int {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(w.Filter)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	seats := map[string]int{}
	for _, f := range families {
		if f.GetName() == "apiserver_flowcontrol_nominal_limit_seats" {
			for _, m := range f.GetMetric() {
				seats[m.Label[0].GetValue()] = int(m.GetGauge().GetValue())
			}
		}
	}
	return seats
}

func (w world) levelUID(name string) types.UID {
	return w.View().Get(w.Registry().Must(flowcontrolv1.GroupName, "prioritylevelconfigurations"), api.Key{Name: name}).GetUID()
}

// However few the processors, every level has seats of its own: shares are
// rounded up ("Priority levels", nominal concurrency limit). 60 seats are those
// of two processors, 600 the most there are.
func TestNominalSeats(t *testing.T) {
	for seats, want := range map[int]map[string]int{
		30:  {"node-high": 5, "leader-election": 2, "workload-high": 5, "workload-low": 13, "global-default": 3, "system": 4, "catch-all": 1},
		60:  {"node-high": 10, "leader-election": 3, "workload-high": 10, "workload-low": 25, "global-default": 5, "system": 8, "catch-all": 2},
		600: {"node-high": 98, "leader-election": 25, "workload-high": 98, "workload-low": 245, "global-default": 49, "system": 74, "catch-all": 13},
	} {
		run(t, seats, nil, func(t *testing.T, w world) {
			got := w.nominal(t)
			for level, n := range want {
				if got[level] != n {
					t.Errorf("of %d seats %s has %d, want %d", seats, level, got[level], n)
				}
			}
		})
	}
}

// A flood of service accounts borrows what other levels do not use, and yet each
// of those is served at once when it comes, by what it never lends.
func TestBorrowedSeats(t *testing.T) {
	election := renewLease(someone("system:kube-scheduler"))
	election.meaning.Namespace = "kube-system"
	critical := []*asked{
		renewLease(node),
		election,
		get(someone("system:kube-controller-manager")),
		get(node),
		get(someone("somebody")),
		get(admin),
		{user: &user.DefaultInfo{Name: user.Anonymous, Groups: []string{user.AllUnauthenticated}}, meaning: apirequest.RequestInfo{Path: "/readyz", Verb: "get"}},
	}
	levels := []string{"node-high", "leader-election", "workload-high", "system", "global-default", "exempt", "exempt"}
	for _, seats := range []int{30, 60, 600} {
		run(t, seats, nil, func(t *testing.T, w world) {
			own := w.nominal(t)["workload-low"]
			serving, _, release := w.flood(t, 10*seats, func() *asked { return get(account) })
			defer release()
			if n := serving(); n < 2 {
				t.Errorf("%d of %d seats are taken in the first seconds, want 2", n, seats)
			}
			<-time.After(30 * time.Second) // seats are lent every ten
			borrowed, _, releaseMore := w.flood(t, 10*seats, func() *asked { return get(account) })
			defer releaseMore()
			if n := serving() + borrowed(); n <= own {
				t.Errorf("of %d seats %d are taken, so none is borrowed", seats, n)
			}
			for i, a := range critical {
				began := time.Now()
				if !w.served(t, a) || time.Since(began) > 0 {
					t.Errorf("with %d seats, %s waits for the flood", seats, levels[i])
				}
				if got, want := a.class.LevelUID, w.levelUID(levels[i]); got != want {
					t.Errorf("a request of %s is classified as %v, want %v", levels[i], got, want)
				}
			}
		})
	}
}
