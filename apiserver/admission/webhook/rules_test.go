package webhook

import (
	"testing"

	registrationv1 "k8s.io/api/admissionregistration/v1"

	"hansa.dev/hansa/api/kinds"
)

// A rule that the library would match is never passed over (RuleWithOperations in
// admissionregistration.k8s.io/v1).
func TestRules(t *testing.T) {
	reg := kinds.Registry()
	rule := func(group string, op registrationv1.OperationType, resource string) rules {
		return rules{{Operations: []registrationv1.OperationType{op}, Rule: registrationv1.Rule{APIGroups: []string{group}, APIVersions: []string{"*"}, Resources: []string{resource}}}}
	}
	for _, tt := range []struct {
		rules             rules
		group, plural     string
		sub, op           string
		named, namedAtAll bool
	}{
		{nil, "", "pods", "", "CREATE", false, false},
		{rule("", "CREATE", "pods"), "", "pods", "", "CREATE", true, true},
		{rule("", "CREATE", "pods"), "", "pods", "", "UPDATE", false, true},
		{rule("", "CREATE", "pods"), "", "pods", "status", "CREATE", false, true},
		{rule("", "CREATE", "pods"), "apps", "deployments", "", "CREATE", false, false},
		{rule("apps", "CREATE", "pods"), "", "pods", "", "CREATE", false, false},
		{rule("*", "*", "*"), "", "pods", "", "DELETE", true, true},
		{rule("*", "*", "*"), "", "pods", "binding", "CREATE", false, true},
		{rule("*", "*", "*/*"), "", "pods", "binding", "CREATE", true, true},
		{rule("", "CONNECT", "pods/exec"), "", "pods", "exec", "CONNECT", true, false},
		{rule("", "CREATE", "*/scale"), "apps", "deployments", "scale", "CREATE", false, false},
		{rule("apps", "UPDATE", "*/scale"), "apps", "deployments", "scale", "UPDATE", true, true},
		// Equivalent resources of another group.
		{rule("events.k8s.io", "CREATE", "events"), "", "events", "", "CREATE", true, true},
		{rule("", "CREATE", "events"), "", "events", "", "CREATE", true, true},
		// Never asked about.
		{rule("*", "*", "*"), "admissionregistration.k8s.io", "validatingwebhookconfigurations", "", "CREATE", false, false},
		{rule("*", "*", "*"), "admissionregistration.k8s.io", "mutatingadmissionpolicies", "", "CREATE", false, false},
		{rule("*", "*", "*"), "authentication.k8s.io", "tokenreviews", "", "CREATE", false, false},
		{rule("*", "*", "*"), "authorization.k8s.io", "subjectaccessreviews", "", "CREATE", false, false},
	} {
		r := reg.Must(tt.group, tt.plural)
		if got := tt.rules.name(r, tt.sub, tt.op); got != tt.named {
			t.Errorf("%v: %s %s/%s %s is named: %v", tt.rules, tt.op, r.GroupResource(), tt.sub, tt.op, got)
		}
		if got := tt.rules.nameAny(r); got != tt.namedAtAll {
			t.Errorf("%v: any write to %s is named: %v", tt.rules, r.GroupResource(), got)
		}
	}
}
