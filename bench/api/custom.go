package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"hansa.dev/hansa/bench/internal/rig"
)

var customToo = flag.Bool("custom", false, "measure custom resources of Hansa as well: figures that begin with custom_")

// customSubject is Hansa, asked for what the peer is asked for.
var customSubject = subject{"custom_", true, startCustom}

func startCustom(ctx context.Context, r *rig.Rig) (*server, error) {
	s, err := startHansa(ctx, r)
	if err != nil {
		return nil, err
	}
	s.kind = records
	if err := define(ctx, s.target); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

// manyDefinitions is how many are made at once.
const manyDefinitions = 1000

// numbered is definition number i, with a schema of a hundred fields.
func numbered(i int64) json.RawMessage {
	fields := map[string]any{}
	for n := range 100 {
		fields[fmt.Sprintf("field%d", n)] = map[string]any{"type": "string", "description": fmt.Sprintf("Field %d of kind %d.", n, i)}
	}
	schema := map[string]any{"type": "object", "properties": map[string]any{"spec": map[string]any{"type": "object", "properties": fields}}}
	text, err := json.Marshal(map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": map[string]any{"name": fmt.Sprintf("kind%ds.many.hansa.dev", i)},
		"spec": map[string]any{
			"group": "many.hansa.dev", "scope": "Namespaced",
			"names":    map[string]any{"kind": fmt.Sprintf("Kind%d", i), "plural": fmt.Sprintf("kind%ds", i)},
			"versions": []any{map[string]any{"name": "v1", "served": true, "storage": true, "schema": map[string]any{"openAPIV3Schema": schema}}},
		},
	})
	if err != nil {
		panic(err) // plain data
	}
	return text
}

// definitions makes many kinds at once, and asks for objects of each.
func definitions(ctx context.Context, l *load) error {
	before, err := l.memory(ctx)
	if err != nil {
		return err
	}
	start := time.Now()
	err = l.each(manyDefinitions, func(c *rig.Client, i int64) error {
		return c.Call(ctx, http.MethodPost, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", numbered(i), nil)
	})
	if err != nil {
		return err
	}
	err = l.each(manyDefinitions, func(c *rig.Client, i int64) error {
		path := fmt.Sprintf("/apis/many.hansa.dev/v1/namespaces/load/kind%ds", i)
		return eventually(ctx, func() error {
			_, err := c.Discard(ctx, http.MethodGet, path, "", nil)
			return err
		})
	})
	if err != nil {
		return err
	}
	l.Figure("definitions1000", time.Since(start).Seconds(), "s")
	after, err := l.memory(ctx)
	if err != nil {
		return err
	}
	l.Figure("definitions1000_memory", mib(after.Private-before.Private-(after.Database-before.Database)), "MiB")
	return l.Profile(ctx, l.cluster, "definitions1000", "heap", 0)
}

// Of many custom resources: how many, and the bytes of data in each.
const (
	manyRecords = 50_000
	recordSize  = 2 << 10
)

// record is custom resource number i, which shares nothing with another.
func record(i int64) []byte {
	random := rand.New(rand.NewPCG(uint64(i), 0))
	payload := make([]byte, recordSize)
	for n := range payload {
		payload[n] = byte('a' + random.IntN(26))
	}
	return fmt.Appendf(nil, `{"apiVersion":"%s","kind":"%s","metadata":{"name":"%s","labels":{"group":"g%d"}},"data":{"payload":"%s"}}`,
		records.version, records.name, nameOf(i), i%groups, payload)
}

// customResources measures memory with many custom resources.
func customResources(ctx context.Context, l *load) error {
	path := records.collection("load")
	if err := l.each(manyRecords, func(c *rig.Client, i int64) error {
		_, err := c.Discard(ctx, http.MethodPost, path, "", record(i))
		return err
	}); err != nil {
		return err
	}
	m, err := l.memory(ctx)
	if err != nil {
		return err
	}
	l.Figure("custom50k", mib(m.Private-m.Database), "MiB")
	l.Figure("custom50k_database", mib(m.Database), "MiB")
	return l.Profile(ctx, l.cluster, "custom50k", "heap", 0)
}
