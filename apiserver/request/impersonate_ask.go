package request

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/utils/lru"
)

// questions are those of one mode about one identity.
type questions struct {
	h    *Handler
	ctx  context.Context
	mode string
	by   user.Info
}

// ask is nil, or the refusal of what was asked.
func (q *questions) ask(a *authorizer.AttributesRecord) error {
	began := q.h.Clock.Now()
	err := Ask(q.ctx, q.h.Authorizer, a)
	decision := "allowed"
	if err != nil {
		decision = "denied"
	}
	q.h.impersonation.asked(q.mode, decision, q.h.Clock.Since(began).Seconds())
	return err
}

// part is the question about a part of the identity. Names and groups are in
// the core group for the verb of old alone.
func (q *questions) part(group, resource, name string) *authorizer.AttributesRecord {
	verb := "impersonate"
	if q.mode != unconstrained {
		group, verb = authentication, "impersonate:"+q.mode
	}
	return &authorizer.AttributesRecord{
		User: q.by, Verb: verb, APIGroup: group, APIVersion: "v1", Resource: resource, Name: name, ResourceRequest: true,
	}
}

const authentication = "authentication.k8s.io"

func (q *questions) name(as *user.DefaultInfo) error {
	a := q.part("", "users", as.Name)
	if namespace, name, err := serviceaccount.SplitUsername(as.Name); err == nil {
		a.Resource, a.Namespace, a.Name = "serviceaccounts", namespace, name
	} else if node, ok := strings.CutPrefix(as.Name, nodePrefix); ok && q.mode != unconstrained {
		a.Resource, a.Name = "nodes", node
		if q.mode == "associated-node" {
			a.Name = "*"
		}
	}
	return q.ask(a)
}

func (q *questions) uid(as *user.DefaultInfo) error {
	if as.UID == "" {
		return nil
	}
	return q.ask(q.part(authentication, "uids", as.UID))
}

// many is from how many parts on it is asked first whether all of them may be
// taken, whatever they are.
const many = 4

func (q *questions) groups(as *user.DefaultInfo) error {
	if len(as.Groups) == 0 {
		return nil
	}
	a := q.part("", "groups", "")
	if q.mode != unconstrained {
		switch {
		case slices.Contains(as.Groups, ""):
			return refusal(a, "impersonating the empty string group is not allowed")
		case slices.Contains(as.Groups, user.SystemPrivilegedGroup):
			a.Name = user.SystemPrivilegedGroup
			return refusal(a, "impersonating the system:masters group is not allowed")
		}
		if a.Name = "*"; len(as.Groups) >= many && q.ask(a) == nil {
			return nil
		}
	}
	for _, group := range as.Groups {
		a.Name = group
		if err := q.ask(a); err != nil {
			return err
		}
	}
	return nil
}

func (q *questions) extra(as *user.DefaultInfo) error {
	if len(as.Extra) == 0 {
		return nil
	}
	a := q.part(authentication, "userextras", "")
	if q.mode != unconstrained {
		values := 0
		for _, key := range sortedKeys(as.Extra) {
			if err := checkExtra(key, as.Extra[key]); err != nil {
				return refusal(a, err.Error())
			}
			values += len(as.Extra[key])
		}
		if a.Subresource, a.Name = "*", "*"; max(len(as.Extra), values) >= many && q.ask(a) == nil {
			return nil
		}
	}
	for _, key := range sortedKeys(as.Extra) {
		a.Subresource = key
		for _, value := range as.Extra[key] {
			a.Name = value
			if err := q.ask(a); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkExtra is what the modes ask of extra fields that the verb of old did not.
func checkExtra(key string, values []string) error {
	if key == "" {
		return errors.New("impersonating the empty string key in extra is not allowed")
	}
	if err := utilvalidation.IsDomainPrefixedPath(field.NewPath("extra", "key"), key).ToAggregate(); err != nil {
		return fmt.Errorf("impersonating an invalid key in extra is not allowed: %w", err)
	}
	switch {
	case key != strings.ToLower(key):
		return fmt.Errorf("impersonating a non-lowercase key in extra is not allowed: %q", key)
	case len(values) == 0:
		return errors.New("impersonating empty values in extra is not allowed")
	case slices.Contains(values, ""):
		return errors.New("impersonating the empty string value in extra is not allowed")
	}
	return nil
}

func sortedKeys(m map[string][]string) []string { return slices.Sorted(maps.Keys(m)) }

func validNodeName(name string) bool { return len(validation.NameIsDNSSubdomain(name, false)) == 0 }

// impersonation is what is remembered and counted of it, under upstream's names.
type impersonation struct {
	last                 *lru.Cache // user name → index in modes
	attempts, questions  *prometheus.CounterVec
	attemptTime, askTime *prometheus.HistogramVec
}

func newImpersonation(r prometheus.Registerer) *impersonation {
	labels, buckets := []string{"mode", "decision"}, prometheus.ExponentialBuckets(0.001, 2, 15)
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "apiserver_impersonation_" + name, Help: help}, labels)
	}
	histogram := func(name, help string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "apiserver_impersonation_" + name, Help: help, Buckets: buckets}, labels)
	}
	i := &impersonation{
		last:        lru.New(remembered),
		attempts:    counter("attempts_total", "Total number of impersonation attempts split by mode and decision."),
		attemptTime: histogram("attempts_duration_seconds", "Latency of impersonation attempts in seconds split by mode and decision."),
		questions:   counter("authorization_attempts_total", "Total number of authorization checks made by the impersonation handler split by mode and decision."),
		askTime:     histogram("authorization_attempts_duration_seconds", "Latency of authorization checks made by the impersonation handler in seconds split by mode and decision."),
	}
	if r != nil {
		r.MustRegister(i.attempts, i.attemptTime, i.questions, i.askTime)
	}
	return i
}

func (i *impersonation) attempt(mode, decision string, seconds float64) {
	i.attempts.WithLabelValues(mode, decision).Inc()
	i.attemptTime.WithLabelValues(mode, decision).Observe(seconds)
}

func (i *impersonation) asked(mode, decision string, seconds float64) {
	i.questions.WithLabelValues(mode, decision).Inc()
	i.askTime.WithLabelValues(mode, decision).Observe(seconds)
}
