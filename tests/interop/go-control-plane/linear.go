package main

import (
	"errors"
	"sync"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	cplog "github.com/envoyproxy/go-control-plane/pkg/log"
	"google.golang.org/protobuf/proto"
)

// newLinear gives a linear cache for each of kinds. They know nothing of nodes, count
// their versions themselves, from 0 at each start, and send what changed: a response
// about routes or endpoints has those that are new, and no others.
func newLinear(log cplog.Logger) *store {
	caches, muxed := map[string]*cache.LinearCache{}, map[string]cache.Cache{}
	for _, kind := range kinds {
		made := cache.NewLinearCache(kind.typeURL, cache.WithLogger(log))
		caches[kind.typeURL], muxed[kind.typeURL] = made, made
	}
	var mu sync.Mutex // makes each change whole
	return &store{
		cache: &cache.MuxCache{
			Classify:      func(r *cache.Request) string { return r.GetTypeUrl() },
			ClassifyDelta: func(r *cache.DeltaRequest) string { return r.GetTypeUrl() },
			Caches:        muxed,
		},
		set: func(_ string, snapshot *cache.Snapshot) error {
			mu.Lock()
			defer mu.Unlock()
			var problems []error
			for typeURL, to := range caches {
				problems = append(problems, update(to, snapshot.GetResources(typeURL)))
			}
			return errors.Join(problems...)
		},
		clear: func(string) error { return errors.New("a linear cache has no nodes") },
	}
}

// update makes the cache hold these; what is the same already is left alone.
func update(to *cache.LinearCache, wanted map[string]types.Resource) error {
	held, changed, gone := to.GetResources(), map[string]types.Resource{}, []string{}
	for name, found := range wanted {
		if known, ok := held[name]; !ok || !proto.Equal(known, found) {
			changed[name] = found
		}
	}
	for name := range held {
		if _, ok := wanted[name]; !ok {
			gone = append(gone, name)
		}
	}
	if len(changed)+len(gone) == 0 {
		return nil
	}
	return to.UpdateResources(changed, gone)
}
