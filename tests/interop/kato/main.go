// The control plane of Kato and Rainbond for tests: go-control-plane 0.9.5, which is what they are made of, with
// their agent's conversion by hand (convert.go), behind a small HTTP page.
//
// It serves xDS v2 in plain gRPC: the services of listeners, clusters, endpoints, routes and secrets, and
// aggregated discovery. What there is comes as JSON over HTTP. When both listeners are open it prints one JSON
// line with their addresses. It ends on SIGTERM, on SIGINT and when its standard input closes, so that it never
// outlives the test that started it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"

	api "github.com/envoyproxy/go-control-plane/envoy/api/v2"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v2"
	"github.com/envoyproxy/go-control-plane/pkg/server/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func main() {
	xds := flag.String("xds", "127.0.0.1:0", "address of the gRPC server")
	control := flag.String("control", "127.0.0.1:0", "address of the HTTP control page")
	preload := flag.String("preload", "", "file with what there is at the start")
	flag.Parse()
	if err := run(*xds, *control, *preload); err != nil {
		log.Fatal(err)
	}
}

func run(xds, control, preload string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	known := newAgent()
	if preload != "" {
		text, err := os.ReadFile(preload)
		if err != nil {
			return err
		}
		if err := known.preload(text); err != nil {
			return err
		}
	}
	xdsListener, err := net.Listen("tcp", xds)
	if err != nil {
		return err
	}
	controlListener, err := net.Listen("tcp", control)
	if err != nil {
		return err
	}
	open := &streams{open: map[chan struct{}]struct{}{}}
	served := grpc.NewServer(grpc.StreamInterceptor(open.intercept))
	handler := server.NewServer(ctx, known.cache, nil)
	// As the agent does; runtimes are not registered there.
	discovery.RegisterAggregatedDiscoveryServiceServer(served, handler)
	discovery.RegisterSecretDiscoveryServiceServer(served, handler)
	api.RegisterEndpointDiscoveryServiceServer(served, handler)
	api.RegisterClusterDiscoveryServiceServer(served, handler)
	api.RegisterRouteDiscoveryServiceServer(served, handler)
	api.RegisterListenerDiscoveryServiceServer(served, handler)

	failed := make(chan error, 2)
	go func() { failed <- served.Serve(xdsListener) }()
	go func() { failed <- http.Serve(controlListener, page(known, open)) }()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	if err := json.NewEncoder(os.Stdout).Encode(map[string]any{
		"xds": xdsListener.Addr().String(), "control": controlListener.Addr().String(),
	}); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		served.Stop()
		return nil
	case err := <-failed:
		return err
	}
}

// page is the control page. Every answer is JSON; an error has one field, "error".
func page(known *agent, open *streams) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /service", func(w http.ResponseWriter, r *http.Request) {
		var service Service
		reply(w, map[string]any{}, read(r, &service, func() error { return known.serve(service) }))
	})
	mux.HandleFunc("PUT /settings", func(w http.ResponseWriter, r *http.Request) {
		var settings Settings
		node := r.URL.Query().Get("node")
		reply(w, map[string]any{}, read(r, &settings, func() error { return known.configure(node, settings) }))
	})
	mux.HandleFunc("DELETE /settings", func(w http.ResponseWriter, r *http.Request) {
		known.forget(r.URL.Query().Get("node"))
		reply(w, map[string]any{}, nil)
	})
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, r *http.Request) {
		version, watches := known.version(r.URL.Query().Get("node"))
		reply(w, map[string]any{"version": version, "watches": watches}, nil)
	})
	mux.HandleFunc("GET /streams", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, map[string]any{"open": open.methods()}, nil)
	})
	mux.HandleFunc("POST /streams/close", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, map[string]any{"closed": open.close()}, nil)
	})
	return mux
}

func read(r *http.Request, into any, then func() error) error {
	decoder := json.NewDecoder(r.Body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return err
	}
	return then()
}

func reply(w http.ResponseWriter, body any, err error) {
	w.Header().Set("content-type", "application/json")
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		body = map[string]string{"error": err.Error()}
	}
	if err := json.NewEncoder(w).Encode(body); err != nil {
		log.Print("control page: ", err)
	}
}

// streams knows what is open. mu guards all of it.
type streams struct {
	mu   sync.Mutex
	open map[chan struct{}]struct{}
	name []string
}

func (s *streams) intercept(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	cut := make(chan struct{}, 1)
	s.mu.Lock()
	s.open[cut] = struct{}{}
	s.name = append(s.name, info.FullMethod)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.open, cut)
		for index, name := range s.name {
			if name == info.FullMethod {
				s.name = append(s.name[:index], s.name[index+1:]...)
				break
			}
		}
	}()
	done := make(chan error, 1)
	go func() { done <- next(srv, ss) }()
	select {
	case err := <-done:
		if err != nil && status.Code(err) == codes.Unknown && errors.Is(err, context.Canceled) {
			return nil
		}
		return err
	case <-cut:
		return status.Error(codes.Unavailable, "dropped by the test")
	}
}

func (s *streams) methods() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string{}, s.name...)
}

func (s *streams) close() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for cut := range s.open {
		select {
		case cut <- struct{}{}:
		default: // told already
		}
	}
	return len(s.open)
}
