package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	cplog "github.com/envoyproxy/go-control-plane/pkg/log"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// kinds gives for each list of a snapshot body the type of its plain (not Any) items.
var kinds = map[string]struct {
	typeURL string
	empty   func() proto.Message
}{
	"listeners": {resource.ListenerType, func() proto.Message { return new(listener.Listener) }},
	"routes":    {resource.RouteType, func() proto.Message { return new(route.RouteConfiguration) }},
	"clusters":  {resource.ClusterType, func() proto.Message { return new(cluster.Cluster) }},
	"endpoints": {resource.EndpointType, func() proto.Message { return new(endpoint.ClusterLoadAssignment) }},
	"secrets":   {resource.SecretType, func() proto.Message { return new(tlsv3.Secret) }},
}

// store is a cache of go-control-plane with a JSON face. Caches have locks of their own.
type store struct {
	cache cache.Cache
	set   func(node string, snapshot *cache.Snapshot) error
	clear func(node string) error
}

// newStore gives the snapshot cache: each node has a state of its own.
func newStore(ads bool, log cplog.Logger) *store {
	snapshots := cache.NewSnapshotCache(ads, cache.IDHash{}, log)
	return &store{
		cache: snapshots,
		set: func(node string, snapshot *cache.Snapshot) error {
			return snapshots.SetSnapshot(context.Background(), node, snapshot)
		},
		clear: func(node string) error { snapshots.ClearSnapshot(node); return nil },
	}
}

// resender takes what is acknowledged for what is not known yet.
type resender struct{ cache.Cache }

func (r resender) CreateWatch(request *cache.Request, sub cache.Subscription, value chan cache.Response) (func(), error) {
	again := proto.Clone(request).(*cache.Request)
	again.VersionInfo = ""
	return r.Cache.CreateWatch(again, sub, value)
}

func (s *store) preload(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var bodies []json.RawMessage
	if err := json.Unmarshal(text, &bodies); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for i, body := range bodies {
		if _, err := s.put(body); err != nil {
			return fmt.Errorf("%s: [%d]: %w", path, i, err)
		}
	}
	return nil
}

// put serves one snapshot: {"node", "version", and a list for each of kinds}. An item is
// proto JSON, of the list's type or of any registered one if it has "@type". A list that
// is absent is empty: a snapshot is the whole state of its node.
func (s *store) put(body []byte) (map[string]any, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err != nil {
		return nil, err
	}
	var node, version string
	resources := map[resource.Type][]types.Resource{}
	counts := map[string]int{}
	for name, raw := range fields {
		var err error
		switch name {
		case "node":
			err = json.Unmarshal(raw, &node)
		case "version":
			err = json.Unmarshal(raw, &version)
		default:
			kind, known := kinds[name]
			if !known {
				return nil, fmt.Errorf("%s: not a part of a snapshot", name)
			}
			var list []types.Resource
			list, err = items(raw, kind.empty)
			resources[kind.typeURL], counts[name] = list, len(list)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	if node == "" || version == "" {
		return nil, errors.New("node and version must be given")
	}
	snapshot, err := cache.NewSnapshot(version, resources)
	if err != nil {
		return nil, err
	}
	report := map[string]any{"node": node, "version": version, "counts": counts, "inconsistent": nil}
	// Told, not refused: the check knows nothing of api_listeners, and some tests want holes.
	if err := snapshot.Consistent(); err != nil {
		report["inconsistent"] = err.Error()
	}
	return report, s.set(node, snapshot)
}

func items(raw json.RawMessage, empty func() proto.Message) ([]types.Resource, error) {
	var texts []json.RawMessage
	if err := json.Unmarshal(raw, &texts); err != nil {
		return nil, err
	}
	var list []types.Resource
	for i, text := range texts {
		message, err := item(text, empty)
		if err != nil {
			return nil, fmt.Errorf("[%d]: %w", i, err)
		}
		if cache.GetResourceName(message) == "" {
			return nil, fmt.Errorf("[%d]: a resource without a name", i)
		}
		list = append(list, message)
	}
	return list, nil
}

func item(text json.RawMessage, empty func() proto.Message) (proto.Message, error) {
	var head struct {
		Type string `json:"@type"`
	}
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(&head); err != nil {
		return nil, err
	}
	if head.Type == "" {
		message := empty()
		return message, protojson.Unmarshal(text, message)
	}
	packed := new(anypb.Any)
	if err := protojson.Unmarshal(text, packed); err != nil {
		return nil, err
	}
	return packed.UnmarshalNew()
}
