package node

import (
	"context"
	"fmt"

	coordinationv1 "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
)

// renew says that the node is alive.
func (k *Keeper) renew(ctx context.Context) error {
	if k.lease != nil {
		out, err := k.Client.Update(ctx, k.leases, k.renewed(k.lease), "")
		if err == nil {
			k.lease = out
			return nil
		}
		k.lease = nil
		if !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			return fmt.Errorf("renew lease: %w", err)
		}
	}
	ref := api.Ref{Resource: k.leases, Namespace: v1.NamespaceNodeLease, Name: k.Name}
	found, err := k.Client.Get(ctx, ref)
	if apierrors.IsNotFound(err) {
		found, err = k.Client.Create(ctx, k.leases, k.newLease(), metav1.CreateOptions{})
	} else if err == nil {
		found, err = k.Client.Update(ctx, k.leases, k.renewed(found), "")
	}
	if err != nil {
		return fmt.Errorf("renew lease: %w", err)
	}
	k.lease = found
	return nil
}

func (k *Keeper) newLease() *coordinationv1.Lease {
	l := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1.NamespaceNodeLease, Name: k.Name},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity:       &k.Name,
			LeaseDurationSeconds: ptr.To(int32(k.Lease.Seconds())),
			RenewTime:            &metav1.MicroTime{Time: k.Clock.Now()},
		},
	}
	if n := k.object(); n != nil {
		l.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: n.Name, UID: n.UID}}
	}
	return l
}

func (k *Keeper) renewed(obj api.Object) api.Object {
	l := obj.DeepCopyObject().(*coordinationv1.Lease)
	fresh := k.newLease()
	l.Spec.HolderIdentity, l.Spec.LeaseDurationSeconds, l.Spec.RenewTime = fresh.Spec.HolderIdentity, fresh.Spec.LeaseDurationSeconds, fresh.Spec.RenewTime
	if len(l.OwnerReferences) == 0 {
		l.OwnerReferences = fresh.OwnerReferences
	}
	return l
}
