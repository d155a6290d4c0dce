package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"hansa.dev/hansa/bench/internal/rig"
)

// ruled are records that are held to rules: three of their definition, with a
// default, and a validating policy.
var ruled = kind{"/apis/ruled.hansa.dev/v1", "ruled.hansa.dev/v1", "Record", "records"}

const ruledDefinition = `{
	"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
	"metadata": {"name": "records.ruled.hansa.dev"},
	"spec": {
		"group": "ruled.hansa.dev", "scope": "Namespaced",
		"names": {"kind": "Record", "listKind": "RecordList", "plural": "records", "singular": "record"},
		"versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object",
			"properties": {
				"mode": {"type": "string", "default": "plain", "maxLength": 16},
				"data": {"type": "object", "maxProperties": 16, "additionalProperties": {"type": "string", "maxLength": 1024}}
			},
			"x-kubernetes-validations": [
				{"rule": "self.mode in ['plain', 'fancy']", "message": "no such mode"},
				{"rule": "has(self.data) && size(self.data) > 0", "message": "no data"},
				{"rule": "self.data.all(k, size(self.data[k]) <= 600)", "message": "too much data"}
			]
		}}}]
	}
}`

const ruledPolicy = `{
	"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "records"},
	"spec": {
		"matchConstraints": {"resourceRules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": ["ruled.hansa.dev"], "apiVersions": ["v1"], "resources": ["records"]}]},
		"variables": [{"name": "group", "expression": "object.metadata.labels['group']"}],
		"validations": [{"expression": "variables.group.startsWith('g') && size(object.data.payload) <= 600", "messageExpression": "'not of group ' + variables.group"}]
	}
}`

const ruledBinding = `{
	"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": "records"},
	"spec": {"policyName": "records", "validationActions": ["Deny"]}
}`

// policies creates records that are held to rules.
func policies(ctx context.Context, l *load) error {
	l.kind = ruled
	c := l.clients[0]
	const group = "/apis/admissionregistration.k8s.io/v1/"
	for _, made := range []struct{ path, body string }{
		{"/apis/apiextensions.k8s.io/v1/customresourcedefinitions", ruledDefinition},
		{group + "validatingadmissionpolicies", ruledPolicy}, {group + "validatingadmissionpolicybindings", ruledBinding},
	} {
		if err := c.Call(ctx, http.MethodPost, made.path, json.RawMessage(made.body), nil); err != nil {
			return fmt.Errorf("make the rules: %w", err)
		}
	}
	path := ruled.collection("load")
	if err := eventually(ctx, func() error {
		_, err := c.Discard(ctx, http.MethodGet, path, "", nil)
		return err
	}); err != nil {
		return fmt.Errorf("ruled records are not served: %w", err)
	}
	return l.phase(ctx, "policy_create", func(ctx context.Context, c *rig.Client) (bool, error) {
		_, err := c.Discard(ctx, http.MethodPost, path, rig.JSON, l.kind.body(l.made.Add(1)-1))
		return true, err
	})
}
