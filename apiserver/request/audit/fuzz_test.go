package audit_test

import (
	"strings"
	"testing"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"hansa.dev/hansa/apiserver/request/audit"
)

// FuzzParsePolicy reads policies. What is accepted decides about any request.
// https://kubernetes.io/docs/tasks/debug/debug-cluster/audit/#audit-policy
func FuzzParsePolicy(f *testing.F) {
	const head = "apiVersion: audit.k8s.io/v1\nkind: Policy\n"
	for _, text := range []string{
		"", "[", "null", head, head + "rules: null", head + "rules: [null]", head + "rules: [{level: Metadata}]", head + "rules: [{level: Loud}]",
		head + "omitStages: [RequestReceived]\nrules: [{level: Request, omitStages: [Panic], users: [u], userGroups: [g], verbs: [get], namespaces: [\"\"]}]",
		head + "rules: [{level: None, nonResourceURLs: [/a*, '*']}]", head + "rules: [{level: None, nonResourceURLs: [/a*b]}]",
		head + "rules: [{level: RequestResponse, resources: [{group: apps, resources: ['*', deployments/status, '*/scale'], resourceNames: [a]}]}]",
		head + "rules: [{level: None, resources: [{resources: [null]}]}]", head + "rules: [{level: None, lvl: x}]", head + "omitManagedFields: true\nrules: [{level: Metadata, omitManagedFields: false}]",
		"apiVersion: audit.k8s.io/v1beta1\nkind: Policy\nrules: [{level: None}]", "apiVersion: audit.k8s.io/v1\nkind: Event\nrules: [{level: None}]", "rules: [{level: None}]",
	} {
		f.Add(text)
	}
	u := &user.DefaultInfo{Name: "u", Groups: []string{"g"}}
	requests := []authorizer.AttributesRecord{
		{User: u, Verb: "get", Path: "/a"},
		{User: u, Verb: "get", ResourceRequest: true, APIGroup: "apps", APIVersion: "v1", Resource: "deployments", Subresource: "status", Namespace: "n", Name: "a"},
		{User: u, Verb: "list", ResourceRequest: true, APIVersion: "v1", Resource: "pods"},
		{},
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, _, err := audit.ParsePolicy([]byte(text))
		if err != nil {
			if strings.TrimSpace(err.Error()) == "" {
				t.Errorf("%q is refused without a word", text)
			}
			return
		}
		for _, r := range requests {
			if got := p.EvaluatePolicyRule(r).Level; got == "" {
				t.Errorf("%q gives %+v no level", text, r)
			}
		}
	})
}
