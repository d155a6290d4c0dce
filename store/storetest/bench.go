package storetest

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/store"
)

// Bench measures a store over an engine: creates of 512-byte ConfigMaps by 64
// callers and by one, gets, and the fan-out of events to watchers.
func Bench(b *testing.B, newEngine func(b *testing.B) store.Engine) {
	reg := Registry()
	configmaps := reg.Must("", "configmaps")
	payload := strings.Repeat("x", 512)
	open := func(b *testing.B) *store.Store {
		s, err := store.Open(b.Context(), newEngine(b), reg, store.Options{})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			if err := s.Close(); err != nil {
				b.Error(err)
			}
		})
		return s
	}
	create := func(b *testing.B, s *store.Store, i int64) {
		cm := configMap("default", fmt.Sprintf("cm-%09d", i), payload)
		if _, err := s.Create(b.Context(), configmaps, cm, store.WriteOptions{}); err != nil {
			b.Error(err)
		}
	}
	for _, callers := range []int{1, 64, 256} {
		b.Run(fmt.Sprintf("create/callers=%d", callers), func(b *testing.B) {
			s := open(b)
			var n atomic.Int64
			b.ResetTimer()
			parallel(b, callers, func() { create(b, s, n.Add(1)) })
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "creates/s")
		})
	}
	b.Run("batch", func(b *testing.B) {
		s := open(b)
		b.ResetTimer()
		for i := 0; i < b.N; {
			var ws []store.Write
			for ; len(ws) < 1000 && i < b.N; i++ {
				cm := configMap("default", fmt.Sprintf("cm-%09d", i), payload)
				ws = append(ws, store.Write{Ref: api.RefTo(configmaps, cm), Create: cm})
			}
			for _, r := range s.Batch(b.Context(), ws) {
				if r.Err != nil {
					b.Fatal(r.Err)
				}
			}
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "creates/s")
	})
	b.Run("get/callers=64", func(b *testing.B) {
		s := open(b)
		for i := range int64(1000) {
			create(b, s, i)
		}
		var n atomic.Int64
		b.ResetTimer()
		parallel(b, 64, func() {
			ref := api.Ref{Resource: configmaps, Namespace: "default", Name: fmt.Sprintf("cm-%09d", n.Add(1)%1000)}
			if _, err := s.Get(b.Context(), ref, ""); err != nil {
				b.Error(err)
			}
		})
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "gets/s")
	})
	b.Run("fanout/watchers=100", func(b *testing.B) { fanout(b, open(b), configmaps, 100, create) })
}

// fanout counts events delivered to all watchers together.
func fanout(b *testing.B, s *store.Store, r *api.Resource, watchers int, create func(*testing.B, *store.Store, int64)) {
	done := make(chan error, watchers)
	for range watchers {
		w, err := s.Watch(b.Context(), store.Query{Resource: r}, store.WatchOptions{ResourceVersion: s.Revision()})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(w.Stop)
		go func() {
			for seen := 0; seen < b.N; {
				events, err := w.Next(context.Background())
				if err != nil {
					done <- err
					return
				}
				for i := range events {
					_, err = events[i].Encoded("bench", func() ([]byte, error) { return []byte("x"), nil })
				}
				seen += len(events)
			}
			done <- nil
		}()
	}
	var n atomic.Int64
	b.ResetTimer()
	parallel(b, 64, func() { create(b, s, n.Add(1)) })
	for range watchers {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*watchers)/b.Elapsed().Seconds(), "events/s")
}

// parallel runs f b.N times from so many goroutines.
func parallel(b *testing.B, callers int, f func()) {
	var left atomic.Int64
	left.Store(int64(b.N))
	done := make(chan struct{})
	for range callers {
		go func() {
			defer func() { done <- struct{}{} }()
			for left.Add(-1) >= 0 {
				f()
			}
		}()
	}
	for range callers {
		<-done
	}
}
