package encryption_test

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/store"
	"hansa.dev/hansa/store/encryption"
)

// A key is rotated without a restart: what was read before is stale all the same
// and so written anew.
func TestReload(t *testing.T) {
	f := newFixture(t)
	e := encryption.Wrap(lasting{f.raw}, f.reg, parse(t, head+entry("configmaps", "aescbc/one=1")))
	s, err := store.Open(t.Context(), e, f.reg, store.Options{DetectMutations: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	version := f.create(s).GetResourceVersion()
	for _, c := range []struct{ config, prefix string }{
		{entry("configmaps", "aesgcm/two=2", "aescbc/one=1"), "k8s:enc:aesgcm:v1:two:"},
		{entry("configmaps", "aesgcm/two=2"), "k8s:enc:aesgcm:v1:two:"},
		{entry("configmaps", "identity", "aesgcm/two=2"), "k8s\x00"},
		{entry("secrets", "aesgcm/two=2"), "k8s\x00"},
		{entry("configmaps", "secretbox/three=3", "identity"), "k8s:enc:secretbox:v1:three:"},
	} {
		if err := e.Reload(t.Context(), parse(t, head+c.config)); err != nil {
			t.Fatalf("%s\n%v", c.config, err)
		}
		written := f.touch(s).GetResourceVersion()
		if !bytes.HasPrefix(f.value(key), []byte(c.prefix)) {
			t.Errorf("%s\nthe value is %.40q", c.config, f.value(key))
		}
		if again := f.touch(s).GetResourceVersion(); again != written {
			t.Errorf("%s\nit was written a second time", c.config)
		}
		if written == version && c.prefix != "k8s\x00" {
			t.Errorf("%s\nit was not written", c.config)
		}
		version = written
	}
}

// A configuration that lacks a key which is in use is refused, and the one before
// goes on.
func TestReloadWithoutAKey(t *testing.T) {
	f := newFixture(t)
	e := encryption.Wrap(lasting{f.raw}, f.reg, parse(t, head+entry("configmaps", "aesgcm/one=1")))
	s, err := store.Open(t.Context(), e, f.reg, store.Options{DetectMutations: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	f.create(s)
	for _, config := range []string{entry("configmaps", "aesgcm/two=2"), entry("configmaps", "identity"), entry("secrets", "aesgcm/one=1")} {
		if err := e.Reload(t.Context(), parse(t, head+config)); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s\n%v, want %s named", config, err, key)
		}
	}
	f.touch(s)
	if !bytes.HasPrefix(f.value(key), []byte("k8s:enc:aesgcm:v1:one:")) {
		t.Errorf("the value is %.40q", f.value(key))
	}
}

// Keys come and go while objects are written: nothing is unreadable, neither for
// the copy nor afterwards.
func TestReloadUnderLoad(t *testing.T) {
	f := newFixture(t)
	e := encryption.Wrap(lasting{f.raw}, f.reg, parse(t, head+entry("configmaps", "aesgcm/k0=0")))
	s, err := store.Open(t.Context(), e, f.reg, store.Options{DetectMutations: true})
	if err != nil {
		t.Fatal(err)
	}
	rows := f.reg.Must("", "configmaps")
	over := make(chan struct{})
	var writers sync.WaitGroup
	for w := range 4 {
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprint("w", w)}}
		if _, err := s.Create(t.Context(), rows, cm, store.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		writers.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-over:
					return
				default:
				}
				ref := api.Ref{Resource: rows, Namespace: "default", Name: cm.Name}
				if _, err := s.Update(t.Context(), ref, store.WriteOptions{}, func(cur api.Object) (store.Outcome, error) {
					next := cur.DeepCopyObject().(*corev1.ConfigMap)
					next.Data = map[string]string{"n": fmt.Sprint(n)}
					return store.Outcome{Object: next}, nil
				}); err != nil {
					t.Errorf("write: %v", err)
					return
				}
			}
		})
	}
	rewrite := func() {
		for w := range 4 {
			ref := api.Ref{Resource: rows, Namespace: "default", Name: fmt.Sprint("w", w)}
			if _, err := s.Update(t.Context(), ref, store.WriteOptions{}, func(api.Object) (store.Outcome, error) {
				return store.Outcome{Unchanged: true}, nil
			}); err != nil {
				t.Errorf("rewrite: %v", err)
			}
		}
	}
	for k := 1; k < 30 && !t.Failed(); k++ {
		now, was := fmt.Sprintf("aesgcm/k%d=%c", k, '0'+k), fmt.Sprintf("aesgcm/k%d=%c", k-1, '0'+k-1)
		for _, config := range []string{entry("configmaps", now, was), entry("configmaps", now)} {
			if err := e.Reload(t.Context(), parse(t, head+config)); err != nil {
				t.Errorf("reload: %v", err)
			}
			rewrite()
		}
	}
	close(over)
	writers.Wait()
	if err := s.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	f.with(entry("configmaps", "aesgcm/k29=M"), func(*store.Store) {})
}
