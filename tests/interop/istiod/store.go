package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"istio.io/istio/pilot/pkg/config/kube/crd"
	"istio.io/istio/pilot/test/xds"
	"istio.io/istio/pkg/config"
	"istio.io/istio/pkg/kube"
	kerrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kubeyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/fake"
	"sigs.k8s.io/yaml"
)

// split parts a stream of YAML documents into those for Istio's store and those for the
// Kubernetes API.
func split(text string) (istio, kubernetes []string, err error) {
	reader := kubeyaml.NewYAMLReader(bufio.NewReader(strings.NewReader(text)))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return istio, kubernetes, nil
		}
		if err != nil {
			return nil, nil, err
		}
		var head metav1.TypeMeta
		if err := yaml.Unmarshal(document, &head); err != nil {
			return nil, nil, err
		}
		switch group := head.GroupVersionKind().Group; {
		case head.Kind == "" && strings.TrimSpace(string(document)) == "":
		case head.Kind == "":
			return nil, nil, errors.New("a document without a kind")
		case strings.HasSuffix(group, ".istio.io"):
			istio = append(istio, string(document))
		case strings.HasPrefix(group, "gateway.networking."):
			return nil, nil, fmt.Errorf("%s: the Gateway API is not hosted here", head.Kind)
		default:
			kubernetes = append(kubernetes, string(document))
		}
	}
}

// store changes the configuration while the server runs. mu makes each change whole.
type store struct {
	mu     sync.Mutex
	server *xds.FakeDiscoveryServer
}

// apply creates or replaces each document's object. All are parsed before the first is
// stored. When it returns, who asks gets the new state.
func (s *store) apply(text string) ([]string, error) {
	return s.each(text, s.put, s.upload)
}

func (s *store) remove(text string) ([]string, error) {
	return s.each(text,
		func(c config.Config) error {
			return s.server.Store().Delete(c.GroupVersionKind, c.Name, c.Namespace, nil)
		},
		func(o object) error { return s.tracker().Delete(o.resource, o.GetNamespace(), o.GetName()) })
}

// object is one of the Kubernetes API, with where that API keeps it.
type object struct {
	metav1.Object
	value    runtime.Object
	resource schema.GroupVersionResource
}

func (s *store) each(text string, do func(config.Config) error, upload func(object) error) ([]string, error) {
	istio, kubernetes, err := split(text)
	if err != nil {
		return nil, err
	}
	configs, unknown, err := crd.ParseInputs(strings.Join(istio, "\n---\n"))
	if err != nil {
		return nil, err
	}
	if len(unknown) > 0 {
		return nil, fmt.Errorf("%s %s: not a kind that Istio knows", unknown[0].Kind, unknown[0].Name)
	}
	objects, err := parse(kubernetes)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.settle(s.server.Discovery.InboundUpdates.Load())
	changed := []string{}
	for _, o := range objects {
		if err := upload(o); err != nil {
			return nil, fmt.Errorf("%s %s/%s: %w", o.resource.Resource, o.GetNamespace(), o.GetName(), err)
		}
		changed = append(changed, o.resource.Resource+"/"+o.GetNamespace()+"/"+o.GetName())
	}
	for _, c := range configs {
		if c.Namespace == "" {
			c.Namespace = metav1.NamespaceDefault
		}
		if err := do(c); err != nil {
			return nil, fmt.Errorf("%s %s/%s: %w", c.GroupVersionKind.Kind, c.Namespace, c.Name, err)
		}
		changed = append(changed, c.GroupVersionKind.Kind+"/"+c.Namespace+"/"+c.Name)
	}
	return changed, nil
}

// settle waits until what was stored is served. Istio hears of it through queues of its
// own, waits for more (-debounce), and then takes it in: until then it answers as before,
// also to who connects anew. A change that changes nothing is never heard of.
func (s *store) settle(before int64) {
	const step, quiet, most = 5 * time.Millisecond, 300 * time.Millisecond, 10 * time.Second
	start := time.Now()
	last, since := before, start
	for time.Since(start) < most {
		inbound := s.server.Discovery.InboundUpdates.Load()
		if inbound != last {
			last, since = inbound, time.Now()
		}
		taken := inbound > before && s.server.Discovery.CommittedUpdates.Load() >= inbound
		if time.Since(since) > quiet || (taken && time.Since(since) > 10*step) {
			if taken || inbound == before {
				return
			}
		}
		time.Sleep(step)
	}
}

func (s *store) put(c config.Config) error {
	known := s.server.Store().Get(c.GroupVersionKind, c.Name, c.Namespace)
	if known == nil {
		_, err := s.server.Store().Create(c)
		return err
	}
	c.CreationTimestamp = known.CreationTimestamp // Istio settles conflicts by age
	_, err := s.server.Store().Update(c)
	return err
}

type tracker interface {
	Create(gvr schema.GroupVersionResource, obj runtime.Object, ns string, opts ...metav1.CreateOptions) error
	Update(gvr schema.GroupVersionResource, obj runtime.Object, ns string, opts ...metav1.UpdateOptions) error
	Delete(gvr schema.GroupVersionResource, ns, name string, opts ...metav1.DeleteOptions) error
}

func (s *store) tracker() tracker {
	return s.server.KubeClient().Kube().(*fake.Clientset).Tracker()
}

func (s *store) upload(o object) error {
	err := s.tracker().Create(o.resource, o.value, o.GetNamespace())
	if kerrors.IsAlreadyExists(err) {
		err = s.tracker().Update(o.resource, o.value, o.GetNamespace())
	}
	return err
}

func parse(documents []string) ([]object, error) {
	var list []object
	for _, document := range documents {
		value, kind, err := kube.IstioCodec.UniversalDeserializer().Decode([]byte(document), nil, nil)
		if err != nil {
			return nil, err
		}
		accessor, err := meta.Accessor(value)
		if err != nil {
			return nil, err
		}
		if accessor.GetNamespace() == "" && kind.Kind != "Namespace" && kind.Kind != "Node" {
			accessor.SetNamespace(metav1.NamespaceDefault)
		}
		resource, _ := meta.UnsafeGuessKindToResource(*kind)
		list = append(list, object{Object: accessor, value: value, resource: resource})
	}
	return list, nil
}
