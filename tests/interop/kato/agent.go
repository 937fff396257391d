package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"

	core "github.com/envoyproxy/go-control-plane/envoy/api/v2/core"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v2"
)

// Service is a Kubernetes Service of a component with its Endpoints.
type Service struct {
	Alias   string     `json:"alias"`
	Port    uint32     `json:"port"`
	Subsets [][]string `json:"subsets"`
	Unready []string   `json:"unready"`
	Inner   uint32     `json:"inner"`
	Domain  string     `json:"domain"`
	Rewrite bool       `json:"rewrite"`
}

// Settings are the JSON of a governance plugin's config map. Every option is text.
type Settings struct {
	Services []Dependency `json:"base_services"`
	Ports    []Port       `json:"base_ports"`
}

// Dependency is a component that is called.
type Dependency struct {
	Alias    string            `json:"depend_service_alias"`
	Port     uint32            `json:"port"`
	Protocol string            `json:"protocol"`
	Options  map[string]string `json:"options"`
}

// Port is one of the component's own.
type Port struct {
	Port     uint32            `json:"port"`
	Listen   uint32            `json:"listen_port"`
	Protocol string            `json:"protocol"`
	Options  map[string]string `json:"options"`
}

type service struct {
	alias string
	port  uint32
}

// agent keeps everything in memory: versions begin anew with it, and with a node's settings. mu guards all of it.
type agent struct {
	mu       sync.Mutex
	cache    cache.SnapshotCache
	services map[service]Service
	settings map[string]Settings
	versions map[string]int
	current  map[string]string
}

// byCluster knows a node by its cluster alone.
type byCluster struct{}

func (byCluster) ID(node *core.Node) string { return node.GetCluster() }

func newAgent() *agent {
	return &agent{
		cache:    cache.NewSnapshotCache(false, byCluster{}, nil),
		services: map[service]Service{},
		settings: map[string]Settings{},
		versions: map[string]int{},
		current:  map[string]string{},
	}
}

func (a *agent) preload(text []byte) error {
	var there struct {
		Services []Service           `json:"services"`
		Settings map[string]Settings `json:"settings"`
	}
	if err := json.Unmarshal(text, &there); err != nil {
		return err
	}
	for _, each := range there.Services {
		if err := a.serve(each); err != nil {
			return err
		}
	}
	for node, settings := range there.Settings {
		if err := a.configure(node, settings); err != nil {
			return err
		}
	}
	return nil
}

func (a *agent) serve(made Service) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.services[service{made.Alias, made.Port}] = made
	for node := range a.settings {
		if err := a.recalculate(node); err != nil {
			return err
		}
	}
	return nil
}

func (a *agent) configure(node string, settings Settings) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if parts := strings.Split(node, "_"); len(parts) != 3 {
		return fmt.Errorf("node: %q is not namespace_plugin_alias", node)
	}
	a.settings[node] = settings
	return a.recalculate(node)
}

// forget is what a deleted config map comes to: the node's watches go with its state, and their streams never hear again.
func (a *agent) forget(node string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cache.ClearSnapshot(node)
	delete(a.settings, node)
	delete(a.versions, node)
	delete(a.current, node)
}

// version is that of the node's snapshot; watches are the streams that wait for the next.
func (a *agent) version(node string) (version string, watches int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if info := a.cache.GetStatusInfo(node); info != nil {
		watches = info.GetNumWatches()
	}
	return a.current[node], watches
}

// recalculate publishes a node's snapshot under its next version, unless it has no cluster or no listener.
func (a *agent) recalculate(node string) error {
	a.versions[node]++
	made, err := convert(node, a.settings[node], a.services)
	if err != nil {
		return err
	}
	if len(made.clusters) == 0 || len(made.listeners) == 0 {
		return nil
	}
	a.current[node] = fmt.Sprintf("version_%d", a.versions[node])
	return a.cache.SetSnapshot(node,
		cache.NewSnapshot(a.current[node], made.endpoints, made.clusters, nil, made.listeners, nil))
}
