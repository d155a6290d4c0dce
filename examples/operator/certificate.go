package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	certutil "k8s.io/client-go/util/cert"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// The names of what the manifests make.
const (
	serviceName     = "operator"
	webhookName     = "greeters.example.com"
	definitionName  = "greeters.example.com"
	certificateName = "operator-webhooks"
)

// ensureCertificate makes the certificate of the webhooks, once for all copies of
// the operator, writes it to a folder, and tells the API server to believe it.
func ensureCertificate(ctx context.Context, config *rest.Config, namespace, dir string) error {
	c, err := client.New(config, client.Options{Scheme: scheme()})
	if err != nil {
		return err
	}
	s := &corev1.Secret{}
	err = c.Get(ctx, key(namespace, certificateName), s)
	if apierrors.IsNotFound(err) {
		if s, err = newCertificate(namespace); err != nil {
			return err
		}
		if err = c.Create(ctx, s); apierrors.IsAlreadyExists(err) {
			err = c.Get(ctx, key(namespace, certificateName), s) // another copy was faster
		}
	}
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, name := range []string{corev1.TLSCertKey, corev1.TLSPrivateKeyKey} {
		if err := os.WriteFile(filepath.Join(dir, name), s.Data[name], 0o600); err != nil {
			return err
		}
	}
	return believe(ctx, c, s.Data[corev1.TLSCertKey])
}

func newCertificate(namespace string) (*corev1.Secret, error) {
	host := fmt.Sprintf("%s.%s.svc", serviceName, namespace)
	cert, privateKey, err := certutil.GenerateSelfSignedCertKey(host, nil, nil)
	if err != nil {
		return nil, err
	}
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: certificateName}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{corev1.TLSCertKey: cert, corev1.TLSPrivateKeyKey: privateKey},
	}, nil
}

// believe writes the authority into all that asks the webhooks.
func believe(ctx context.Context, c client.Client, ca []byte) error {
	mutating, validating := &admissionv1.MutatingWebhookConfiguration{}, &admissionv1.ValidatingWebhookConfiguration{}
	definition := &apiextensionsv1.CustomResourceDefinition{}
	for _, o := range []struct {
		client.Object
		name string
		set  func()
	}{
		{mutating, webhookName, func() {
			for i := range mutating.Webhooks {
				mutating.Webhooks[i].ClientConfig.CABundle = ca
			}
		}},
		{validating, webhookName, func() {
			for i := range validating.Webhooks {
				validating.Webhooks[i].ClientConfig.CABundle = ca
			}
		}},
		{definition, definitionName, func() { definition.Spec.Conversion.Webhook.ClientConfig.CABundle = ca }},
	} {
		if err := c.Get(ctx, key("", o.name), o.Object); err != nil {
			return err
		}
		before := o.Object.DeepCopyObject().(client.Object)
		o.set()
		if err := c.Patch(ctx, o.Object, client.MergeFrom(before)); err != nil {
			return fmt.Errorf("%s: %w", o.name, err)
		}
	}
	return nil
}
