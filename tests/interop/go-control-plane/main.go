// A control plane for tests: Envoy's go-control-plane behind a small HTTP page.
//
// It serves aggregated discovery and each type's own (state of the world and delta) from a snapshot cache or
// from linear caches, in plain gRPC or over TLS, and takes the snapshots as JSON over HTTP. When both listeners are
// open it prints one JSON line with their addresses. It ends on SIGTERM, on SIGINT and
// when its standard input closes, so that it never outlives the test that started it.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	clustergrpc "github.com/envoyproxy/go-control-plane/envoy/service/cluster/v3"
	discoverygrpc "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	endpointgrpc "github.com/envoyproxy/go-control-plane/envoy/service/endpoint/v3"
	listenergrpc "github.com/envoyproxy/go-control-plane/envoy/service/listener/v3"
	routegrpc "github.com/envoyproxy/go-control-plane/envoy/service/route/v3"
	secretgrpc "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	cplog "github.com/envoyproxy/go-control-plane/pkg/log"
	"github.com/envoyproxy/go-control-plane/pkg/server/config"
	"github.com/envoyproxy/go-control-plane/pkg/server/sotw/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
)

type options struct {
	xds, control, preload       string
	cert, key, clientCA         string
	maxAge                      time.Duration
	ads, linear, ordered, debug bool
	resend                      bool
}

func main() {
	var o options
	flag.StringVar(&o.xds, "xds", "127.0.0.1:0", "address of the gRPC server")
	flag.StringVar(&o.control, "control", "127.0.0.1:0", "address of the HTTP control page")
	flag.StringVar(&o.preload, "preload", "", "file with a JSON list of snapshots to serve from the start")
	flag.BoolVar(&o.ads, "ads", false, "snapshot cache with ads=true: a request that names only some resources of a type is not answered")
	flag.BoolVar(&o.linear, "linear", false, "a linear cache for each type, the same for every node")
	flag.BoolVar(&o.resend, "resend", false, "answer each request of state of the world with all there is, acknowledgements too")
	flag.StringVar(&o.cert, "cert", "", "file with the certificate chain: TLS")
	flag.StringVar(&o.key, "key", "", "file with its private key")
	flag.StringVar(&o.clientCA, "client-ca", "", "file with the roots of clients' certificates: they must have one")
	flag.DurationVar(&o.maxAge, "max-age", 0, "age at which a connection is closed, and its streams with it (default: never)")
	flag.BoolVar(&o.ordered, "ordered", false, "order the types of one stream (sotw.WithOrderedADS)")
	flag.BoolVar(&o.debug, "debug", false, "log what the cache does on standard error")
	flag.Parse()
	if err := run(o); err != nil {
		log.Fatal(err)
	}
}

func run(o options) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	snapshots := newStore(o.ads, logger(o.debug))
	if o.linear {
		snapshots = newLinear(logger(o.debug))
	}
	if o.resend {
		snapshots.cache = resender{snapshots.cache}
	}
	if o.preload != "" {
		if err := snapshots.preload(o.preload); err != nil {
			return err
		}
	}
	xdsListener, err := net.Listen("tcp", o.xds)
	if err != nil {
		return err
	}
	control, err := net.Listen("tcp", o.control)
	if err != nil {
		return err
	}

	streams := newStreams()
	var xdsOptions []config.XDSOption
	if o.ordered {
		xdsOptions = append(xdsOptions, sotw.WithOrderedADS())
	}
	transport, err := transportOptions(o)
	if err != nil {
		return err
	}
	grpcServer := grpc.NewServer(append(transport, grpc.StreamInterceptor(streams.intercept))...)
	discovery := server.NewServer(ctx, snapshots.cache, streams.callbacks(), xdsOptions...)
	discoverygrpc.RegisterAggregatedDiscoveryServiceServer(grpcServer, discovery)
	listenergrpc.RegisterListenerDiscoveryServiceServer(grpcServer, discovery)
	routegrpc.RegisterRouteDiscoveryServiceServer(grpcServer, discovery)
	clustergrpc.RegisterClusterDiscoveryServiceServer(grpcServer, discovery)
	endpointgrpc.RegisterEndpointDiscoveryServiceServer(grpcServer, discovery)
	secretgrpc.RegisterSecretDiscoveryServiceServer(grpcServer, discovery)

	failed := make(chan error, 2)
	go func() { failed <- grpcServer.Serve(streams.track(xdsListener)) }()
	go func() { failed <- http.Serve(control, handler(snapshots, streams)) }()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	if err := json.NewEncoder(os.Stdout).Encode(map[string]any{
		"xds": xdsListener.Addr().String(), "control": control.Addr().String(), "ads": o.ads, "ordered": o.ordered,
	}); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		grpcServer.Stop()
		return nil
	case err := <-failed:
		return err
	}
}

// transportOptions are those of TLS and of how long a connection may live.
func transportOptions(o options) ([]grpc.ServerOption, error) {
	chosen := []grpc.ServerOption{grpc.KeepaliveParams(keepalive.ServerParameters{
		MaxConnectionAge: o.maxAge, MaxConnectionAgeGrace: o.maxAge,
	})}
	if o.cert == "" {
		return chosen, nil
	}
	pair, err := tls.LoadX509KeyPair(o.cert, o.key)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if o.clientCA != "" {
		roots, err := os.ReadFile(o.clientCA)
		if err != nil {
			return nil, err
		}
		config.ClientCAs, config.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
		if !config.ClientCAs.AppendCertsFromPEM(roots) {
			return nil, fmt.Errorf("%s: no certificate in it", o.clientCA)
		}
	}
	return append(chosen, grpc.Creds(credentials.NewTLS(config))), nil
}

// handler is the control page. Every answer is JSON; an error has one field, "error".
func handler(snapshots *store, streams *streams) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /snapshot", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			reply(w, nil, err)
			return
		}
		report, err := snapshots.put(body)
		reply(w, report, err)
	})
	mux.HandleFunc("DELETE /snapshot", func(w http.ResponseWriter, r *http.Request) {
		node := r.URL.Query().Get("node")
		if node == "" {
			reply(w, nil, errors.New("node: missing from the query"))
			return
		}
		reply(w, map[string]any{"node": node}, snapshots.clear(node))
	})
	mux.HandleFunc("GET /streams", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, streams.report(), nil)
	})
	mux.HandleFunc("POST /streams/close", func(w http.ResponseWriter, r *http.Request) {
		closed, err := streams.close(r.URL.Query().Get("mode"), r.URL.Query().Get("code"))
		reply(w, map[string]any{"closed": closed}, err)
	})
	return mux
}

func reply(w http.ResponseWriter, body any, err error) {
	w.Header().Set("content-type", "application/json")
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		body = map[string]string{"error": err.Error()}
	}
	if err := json.NewEncoder(w).Encode(body); err != nil {
		fmt.Fprintln(os.Stderr, "control page:", err)
	}
}

func logger(debug bool) cplog.Logger {
	show := func(level string) func(string, ...any) {
		return func(format string, args ...any) { log.Printf(level+" "+format, args...) }
	}
	funcs := cplog.LoggerFuncs{WarnFunc: show("warn"), ErrorFunc: show("error")}
	if debug {
		funcs.DebugFunc, funcs.InfoFunc = show("debug"), show("info")
	}
	return funcs
}
