package alloc

import (
	"bytes"
	"context"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/internal/envelope"
	"hansa.dev/hansa/store"
)

// addressRange is a range of cluster addresses. Its lower part, the static
// band, is left to those who choose their address themselves until the rest is
// used up.
type addressRange struct {
	prefix netip.Prefix
	first  netip.Addr
	size   uint64 // usable addresses, from first
	offset uint64 // where the dynamic band begins
}

// maxAddresses bounds the size of a range that is looked at: nobody has more
// services.
const maxAddresses = 1 << 40

// newAddressRange gives false for a range from which nothing can be given: an
// IPv4 one without usable addresses, an IPv6 one that is larger than Kubernetes
// allows.
func newAddressRange(p netip.Prefix) (*addressRange, bool) {
	p = p.Masked()
	bits := p.Addr().BitLen() - p.Bits()
	if bits < 2 || p.Addr().Is6() && bits > 64 {
		return nil, false
	}
	size := uint64(maxAddresses)
	if bits < 40 {
		size = uint64(1) << bits
	}
	// The first address is the network's, IPv4's last one the broadcast's.
	usable := size - 1
	if p.Addr().Is4() {
		usable--
	}
	return &addressRange{prefix: p, first: p.Addr().Next(), size: usable, offset: band(size, 16, 16, 256)}, true
}

// ranges are those of one family that addresses are given from now: of every
// ServiceCIDR that is ready, the default one first.
func (a *Services) ranges(family corev1.IPFamily) []*addressRange {
	var ranges []*addressRange
	for o := range a.store.View().List(a.cidrs, "") {
		c := o.(*networkingv1.ServiceCIDR)
		if !gives(c) {
			continue
		}
		for _, text := range c.Spec.CIDRs {
			p, err := netip.ParsePrefix(text)
			if err != nil || kinds.IPFamilyOf(p.Addr()) != family {
				continue
			}
			r, ok := newAddressRange(p)
			switch {
			case ok && c.Name == kinds.DefaultServiceCIDR:
				ranges = slices.Insert(ranges, 0, r)
			case ok:
				ranges = append(ranges, r)
			}
		}
	}
	return ranges
}

// gives says whether a ServiceCIDR may be given from: it stays, and nobody has
// said that it is not ready.
func gives(c *networkingv1.ServiceCIDR) bool {
	ready := meta.FindStatusCondition(c.Status.Conditions, networkingv1.ServiceCIDRConditionReady)
	return c.DeletionTimestamp == nil && (ready == nil || ready.Status == metav1.ConditionTrue)
}

// band is the size of the static band: a part of the range, within limits, and
// nothing for a range that is too small to be split.
func band(size, part, least, most uint64) uint64 {
	if size <= least {
		return 0
	}
	return min(max(least, size/part), most)
}

// at is the address with a place in the range.
func (r *addressRange) at(i uint64) netip.Addr {
	n := new(big.Int).SetBytes(r.first.AsSlice())
	n.Add(n, new(big.Int).SetUint64(i))
	b := make([]byte, len(r.first.AsSlice()))
	n.FillBytes(b)
	addr, _ := netip.AddrFromSlice(b)
	return addr
}

// allocateAddresses gives the service the addresses it still needs, and says
// how to claim what is new and free what is gone.
func (a *Services) allocateAddresses(ctx context.Context, w write) ([]store.Side, error) {
	s, had := w.s, addressesOf(w.was)
	used := sync.OnceValues(func() (map[netip.Addr]bool, error) { return a.usedAddresses(ctx, w) })
	var sides []store.Side
	due := kinds.ServiceClusterIPsDue(s, w.was)
	for _, i := range due {
		if i >= len(s.Spec.ClusterIPs) || s.Spec.ClusterIPs[i] == "" {
			continue
		}
		side, err := a.claimAddress(ctx, s.Spec.ClusterIPs[i], w, used)
		if apierrors.ReasonForError(err) != metav1.StatusReasonUnknown {
			return nil, err
		} else if err != nil {
			errs := field.ErrorList{field.Invalid(field.NewPath("spec", "clusterIPs"), s.Spec.ClusterIPs, fmt.Sprintf("failed to allocate IP %v: %v", s.Spec.ClusterIPs[i], err))}
			return nil, invalid(s, errs)
		}
		sides = append(sides, side)
	}
	for _, i := range due {
		if i < len(s.Spec.ClusterIPs) && s.Spec.ClusterIPs[i] != "" {
			continue
		}
		ip, side, err := a.findAddress(ctx, a.ranges(s.Spec.IPFamilies[i]), w, used)
		if err != nil {
			return nil, apierrors.NewInternalError(fmt.Errorf("failed to allocate a serviceIP for Service %q: %w", s.Name, err))
		}
		for len(s.Spec.ClusterIPs) <= i {
			s.Spec.ClusterIPs = append(s.Spec.ClusterIPs, "")
		}
		s.Spec.ClusterIPs[i] = ip
		sides = append(sides, side)
	}
	if len(s.Spec.ClusterIPs) > 0 {
		s.Spec.ClusterIP = s.Spec.ClusterIPs[0]
	}
	now := addressesOf(s)
	for _, ip := range had {
		if slices.Contains(now, ip) {
			continue
		}
		side, ok, err := a.freeAddress(ctx, ip, w.was)
		if err != nil {
			return nil, err
		}
		if ok {
			sides = append(sides, side)
		}
	}
	return sides, nil
}

// addressKey is where Kubernetes keeps an IPAddress, below the root.
func addressKey(ip netip.Addr) string { return "ipaddresses/" + ip.String() }

// usedFunc gives the addresses of all other services, read at the first call.
type usedFunc func() (map[netip.Addr]bool, error)

// usedAddresses are those of all other services.
func (a *Services) usedAddresses(ctx context.Context, w write) (map[netip.Addr]bool, error) {
	services, err := a.others(ctx, w)
	if err != nil {
		return nil, err
	}
	used := make(map[netip.Addr]bool, len(services))
	for _, other := range services {
		if w.stands(other) {
			continue
		}
		for _, text := range addressesOf(other) {
			if ip, err := netip.ParseAddr(text); err == nil {
				used[ip.Unmap()] = true
			}
		}
	}
	return used, nil
}

// claimAddress claims an address that the user chose.
func (a *Services) claimAddress(ctx context.Context, text string, w write, used usedFunc) (store.Side, error) {
	ip, err := netip.ParseAddr(text)
	if err != nil {
		// Validation says what is wrong with it.
		return store.Side{}, fmt.Errorf("failed to parse service IP %q", text)
	}
	ip = ip.Unmap()
	if !slices.ContainsFunc(a.ranges(kinds.IPFamilyOf(ip)), func(r *addressRange) bool { return kinds.RangeContains(r.prefix, ip) }) {
		return store.Side{}, errNoRange
	}
	taken, err := used()
	if err != nil {
		return store.Side{}, err
	}
	if taken[ip] {
		return store.Side{}, errAddressInUse
	}
	side, free, err := a.tryAddress(ctx, ip, w)
	if err == nil && !free {
		err = errAddressInUse
	}
	return side, err
}

// findAddress chooses a free address of the first range that has one: from a
// random place through its dynamic band, and only when that is full through the
// static one.
func (a *Services) findAddress(ctx context.Context, ranges []*addressRange, w write, used usedFunc) (string, store.Side, error) {
	taken, err := used()
	if err != nil {
		return "", store.Side{}, err
	}
	for _, r := range ranges {
		for _, part := range [][2]uint64{{r.offset, r.size}, {0, r.offset}} {
			ip, side, err := a.findIn(ctx, r, part, w, taken)
			if err != nil || ip != "" {
				return ip, side, err
			}
		}
	}
	return "", store.Side{}, errFull
}

// findIn looks for a free address in a part of a range; there is none if the
// answer is empty.
func (a *Services) findIn(ctx context.Context, r *addressRange, part [2]uint64, w write, taken map[netip.Addr]bool) (string, store.Side, error) {
	from, n := part[0], part[1]-part[0]
	if n == 0 {
		return "", store.Side{}, nil
	}
	start := a.random(n)
	for i := range min(n, uint64(len(taken))+lookahead) {
		ip := r.at(from + (start+i)%n)
		if taken[ip] {
			continue
		}
		side, free, err := a.tryAddress(ctx, ip, w)
		if err != nil {
			return "", store.Side{}, err
		}
		if free {
			return ip.String(), side, nil
		}
	}
	return "", store.Side{}, nil
}

// lookahead is how many addresses beyond those known to be used are tried.
const lookahead = 1024

// tryAddress says how to claim an address that no service was seen to have: one
// that came since then has claimed it.
func (a *Services) tryAddress(ctx context.Context, ip netip.Addr, w write) (store.Side, bool, error) {
	key := addressKey(ip)
	value, revision, err := a.store.Raw(ctx, key)
	if err != nil {
		return store.Side{}, false, err
	}
	if revision != 0 {
		held, err := a.held(ctx, value, ip.String(), w)
		if err != nil || held {
			return store.Side{}, false, err
		}
	}
	value, err = encodeAddress(ip, w.s, a.clock.Now())
	return store.Side{Key: key, Revision: revision, Value: value}, true, err
}

// held says whether the service that an IPAddress names has the address. An
// address that somebody else manages is held as well.
func (a *Services) held(ctx context.Context, value []byte, ip string, w write) (bool, error) {
	obj, err := decodeAddress(value)
	if err != nil {
		return true, nil //nolint:nilerr // whatever it is, it is not ours
	}
	if obj.Labels[networkingv1.LabelManagedBy] != kinds.ServiceAddressManager {
		return true, nil // people's own
	}
	parent := obj.Spec.ParentRef
	if parent == nil || parent.Group != "" || parent.Resource != "services" {
		return true, nil
	}
	found, err := a.store.Get(ctx, api.Ref{Resource: a.row, Namespace: parent.Namespace, Name: parent.Name}, "")
	if apierrors.IsNotFound(err) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	s := found.(*corev1.Service)
	return s.UID != w.self() && !w.stands(s) && slices.Contains(addressesOf(s), ip), nil
}

// freeAddress says how to free an address, if it is the service's.
func (a *Services) freeAddress(ctx context.Context, text string, was *corev1.Service) (store.Side, bool, error) {
	ip, err := netip.ParseAddr(text)
	if err != nil {
		return store.Side{}, false, nil
	}
	key := addressKey(ip.Unmap())
	value, revision, err := a.store.Raw(ctx, key)
	if err != nil || revision == 0 {
		return store.Side{}, false, err
	}
	if obj, err := decodeAddress(value); err == nil {
		if p := obj.Spec.ParentRef; p != nil && (p.Namespace != was.Namespace || p.Name != was.Name) {
			return store.Side{}, false, nil
		}
	}
	return store.Side{Key: key, Revision: revision}, true, nil
}

// encodeAddress makes the IPAddress by which a service holds an address.
func encodeAddress(ip netip.Addr, s *corev1.Service, now time.Time) ([]byte, error) {
	obj := kinds.ServiceAddress(ip, s)
	obj.UID, obj.CreationTimestamp = uuid.NewUUID(), metav1.NewTime(now)
	obj.ManagedFields = []metav1.ManagedFieldsEntry{{
		Manager: "kube-apiserver", Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: networkingv1.SchemeGroupVersion.String(),
		Time: &obj.CreationTimestamp, FieldsType: "FieldsV1", FieldsV1: &metav1.FieldsV1{Raw: []byte(addressFields)},
	}}
	return encode(networkingv1.SchemeGroupVersion.String(), "IPAddress", obj)
}

// addressFields are the fields that kinds.ServiceAddress sets.
const addressFields = `{"f:metadata":{"f:labels":{".":{},"f:ipaddress.kubernetes.io/ip-family":{},"f:ipaddress.kubernetes.io/managed-by":{}}},` +
	`"f:spec":{"f:parentRef":{".":{},"f:name":{},"f:namespace":{},"f:resource":{}}}}`

func encode(apiVersion, kind string, obj interface{ Marshal() ([]byte, error) }) ([]byte, error) {
	raw, err := obj.Marshal()
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", kind, err)
	}
	return envelope.Of(apiVersion, kind).Append(nil, raw), nil
}

func decode(value []byte, into interface{ Unmarshal([]byte) error }) error {
	data, ok := bytes.CutPrefix(value, []byte(envelope.Prefix))
	if !ok {
		return fmt.Errorf("not an object in protobuf")
	}
	var unknown runtime.Unknown
	if err := unknown.Unmarshal(data); err != nil {
		return err
	}
	return into.Unmarshal(unknown.Raw)
}

func decodeAddress(value []byte) (*networkingv1.IPAddress, error) {
	obj := &networkingv1.IPAddress{}
	if err := decode(value, obj); err != nil {
		return nil, fmt.Errorf("decode IPAddress: %w", err)
	}
	return obj, nil
}
