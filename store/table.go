package store

import (
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"unique"

	"k8s.io/utils/third_party/forked/golang/btree"

	"hansa.dev/hansa/api"
)

// root is where Kubernetes keeps its objects.
const root = "/registry/"

// entry is one object of the copy. Immutable.
type entry struct {
	key  string // NAMESPACE/NAME or NAME: the etcd key without what is common
	obj  api.Object
	mod  int64  // etcd revision of its last write
	rv   int64  // resource version
	size int    // bytes stored
	sum  uint64 // fingerprint, when mutations are detected

	stale bool // see KV.Stale

	used *common // what obj shares with others: known for as long as there are entries with it
}

// indexed is an entry under one value of an index.
type indexed struct {
	value string
	*entry
}

type (
	objects = btree.BTree[*entry]
	index   = btree.BTree[indexed]
)

// Degrees of the trees: wide enough to be compact, and narrow enough that the
// copying of nodes below a snapshot stays cheap. What an index holds is three
// times as large.
const (
	degree      = 32
	indexDegree = 12
)

// table is one resource: the trees that the applier writes to, and the recent
// events. Published snapshots share nodes with the trees, which copy on write.
type table struct {
	row     *api.Resource
	place   int // in layout.tables and snapshot.tables; -1 for none
	prefix  string
	codec   *codec
	indexes []api.Index

	// Only the applier touches these.
	items  *objects
	byIdx  []*index
	newest int64 // revision of the last change
	bytes  int64 // of all entries, as stored
	dirty  bool  // changed since the last snapshot

	subscribers map[*subscriber]bool // guarded by Store.applying

	mu     sync.Mutex // guards what follows
	recent ring
}

func newTable(reg *api.Registry, row *api.Resource, place int, pool *pool) (*table, error) {
	if row.View != nil {
		// The row may be replaced; the objects and their table stay.
		row = &api.Resource{
			Group: row.Group, Plural: row.Plural, Kind: row.Kind, Namespaced: row.Namespaced,
			Storage: row.Storage, Prefix: row.Prefix, New: row.New,
		}
	}
	c, err := newCodec(reg, row, pool)
	if err != nil {
		return nil, err
	}
	t := &table{
		row:    row,
		place:  place,
		prefix: root + row.Prefix + "/",
		codec:  c,
		items:  btree.New(degree, byKey),
		dirty:  true,
	}
	t.indexes = slices.Clone(row.Indexes)
	for _, common := range []api.Index{
		{Name: api.IndexOwner, Values: owners},
		{Name: api.IndexLabel, Values: labels, Has: hasLabel},
	} {
		if t.indexNamed(common.Name) < 0 {
			t.indexes = append(t.indexes, common)
		}
	}
	for range t.indexes {
		t.byIdx = append(t.byIdx, btree.New(indexDegree, byValue))
	}
	t.recent.init()
	return t, nil
}

func byKey(a, b *entry) bool { return a.key < b.key }

func byValue(a, b indexed) bool {
	if a.value != b.value {
		return a.value < b.value
	}
	return a.key < b.key
}

func owners(obj api.Object) []string {
	refs := obj.GetOwnerReferences()
	if len(refs) == 0 {
		return nil
	}
	uids := make([]string, len(refs))
	for i := range refs {
		uids[i] = string(refs[i].UID)
	}
	return uids
}

// labels are the values of IndexLabel. All objects with a label share one string
// for it, which is forgotten with the last of them.
func labels(obj api.Object) []string {
	m := obj.GetLabels()
	if len(m) == 0 {
		return nil
	}
	values := make([]string, 0, len(m))
	for k, v := range m {
		values = append(values, unique.Make(k+"="+v).Value())
	}
	return values
}

func hasLabel(obj api.Object, value string) bool {
	k, v, _ := strings.Cut(value, "=")
	got, ok := obj.GetLabels()[k]
	return ok && got == v
}

// has says whether an object is found under a value of an index.
func (t *table) has(index int, obj api.Object, value string) bool {
	if has := t.indexes[index].Has; has != nil {
		return has(obj, value)
	}
	return slices.Contains(t.indexes[index].Values(obj), value)
}

// keyOf is the name of an object within its table.
func keyOf(namespace, name string) string {
	if namespace == "" {
		return name
	}
	return namespace + "/" + name
}

func (t *table) key(ref api.Ref) string {
	if !t.row.Namespaced {
		return ref.Name
	}
	return keyOf(ref.Namespace, ref.Name)
}

// ref is the inverse of key.
func (t *table) ref(key string) api.Ref {
	namespace, name, namespaced := strings.Cut(key, "/")
	if !namespaced {
		namespace, name = "", key
	}
	return api.Ref{Resource: t.row, Namespace: namespace, Name: name}
}

// owns says that a key within the table has the shape that its objects have.
func (t *table) owns(key string) bool {
	want := 0
	if t.row.Namespaced {
		want = 1
	}
	return key != "" && strings.Count(key, "/") == want
}

// entry decodes a stored value.
func (t *table) entry(key string, kv KV) (*entry, error) {
	obj, slot, used, err := t.codec.decode(kv.Value)
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", kv.Key, err)
	}
	e := &entry{key: key, obj: obj, mod: kv.ModRevision, rv: versionOf(kv.ModRevision, slot), size: len(kv.Value), used: used, stale: kv.Stale}
	obj.SetResourceVersion(formatVersion(e.rv))
	return e, nil
}

// put and remove change the trees and answer with what was there before.
func (t *table) put(e *entry) (old *entry) {
	old, _ = t.items.ReplaceOrInsert(e)
	t.bytes += int64(e.size)
	if old != nil {
		t.bytes -= int64(old.size)
	}
	t.reindex(old, e)
	t.newest, t.dirty = max(t.newest, e.mod), true
	return old
}

func (t *table) remove(key string, revision int64) (old *entry) {
	old, ok := t.items.Delete(&entry{key: key})
	if !ok {
		return nil
	}
	t.bytes -= int64(old.size)
	t.reindex(old, nil)
	t.newest, t.dirty = max(t.newest, revision), true
	return old
}

func (t *table) reindex(old, cur *entry) {
	for i, idx := range t.indexes {
		var had, has []string
		if old != nil {
			had = idx.Values(old.obj)
		}
		if cur != nil {
			has = idx.Values(cur.obj)
		}
		for _, v := range had {
			if !slices.Contains(has, v) {
				t.byIdx[i].Delete(indexed{v, old})
			}
		}
		for _, v := range has {
			t.byIdx[i].ReplaceOrInsert(indexed{v, cur})
		}
	}
}

// indexNamed is the place of an index in byIdx, or -1.
func (t *table) indexNamed(name string) int {
	return slices.IndexFunc(t.indexes, func(i api.Index) bool { return i.Name == name })
}

// snapshot is the whole copy at one revision. Immutable; readers need no lock.
type snapshot struct {
	revision int64
	tables   []*tableView // by place
}

// nothing is the view of a table that a snapshot does not have.
var nothing = (&table{items: btree.New(degree, byKey)}).view()

// of is a table within the snapshot. Its place may have become another's.
func (s *snapshot) of(t *table) *tableView {
	if t.place >= 0 && t.place < len(s.tables) {
		if v := s.tables[t.place]; v != nil && v.table == t {
			return v
		}
	}
	none := *nothing
	for range t.indexes {
		none.byIdx = append(none.byIdx, btree.New(indexDegree, byValue))
	}
	return &none
}

// tableView is one resource within a snapshot.
type tableView struct {
	table  *table
	items  *objects
	byIdx  []*index
	newest int64 // revision of the last change, up to which history is the same
	bytes  int64 // of all entries, as stored
}

func (t *table) view() *tableView {
	v := &tableView{table: t, items: t.items.Clone(), newest: t.newest, bytes: t.bytes}
	for _, idx := range t.byIdx {
		v.byIdx = append(v.byIdx, idx.Clone())
	}
	t.dirty = false
	return v
}

func (v *tableView) get(key string) *entry {
	e, _ := v.items.Get(&entry{key: key})
	return e
}

// scan goes through the entries from a key on (that one included) that begin
// with prefix, in the order of etcd's keys.
func (v *tableView) scan(prefix, from string) iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		v.items.AscendGreaterOrEqual(&entry{key: max(prefix, from)}, func(e *entry) bool {
			return strings.HasPrefix(e.key, prefix) && yield(e)
		})
	}
}

// scanIndex is scan among the entries under one value of an index.
func (v *tableView) scanIndex(place int, value, prefix, from string) iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		v.byIdx[place].AscendGreaterOrEqual(indexed{value, &entry{key: max(prefix, from)}}, func(i indexed) bool {
			return i.value == value && strings.HasPrefix(i.key, prefix) && yield(i.entry)
		})
	}
}
