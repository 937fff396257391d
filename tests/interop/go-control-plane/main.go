// A control plane for tests: Envoy's go-control-plane behind a small HTTP page.
//
// It serves aggregated discovery (state of the world and delta) in plain gRPC from a
// snapshot cache, and takes the snapshots as JSON over HTTP. When both listeners are
// open it prints one JSON line with their addresses. It ends on SIGTERM, on SIGINT and
// when its standard input closes, so that it never outlives the test that started it.
package main

import (
	"context"
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

	discoverygrpc "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	cplog "github.com/envoyproxy/go-control-plane/pkg/log"
	"github.com/envoyproxy/go-control-plane/pkg/server/config"
	"github.com/envoyproxy/go-control-plane/pkg/server/sotw/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
)

type options struct {
	xds, control, preload string
	ads, ordered, debug   bool
}

func main() {
	var o options
	flag.StringVar(&o.xds, "xds", "127.0.0.1:0", "address of the gRPC server")
	flag.StringVar(&o.control, "control", "127.0.0.1:0", "address of the HTTP control page")
	flag.StringVar(&o.preload, "preload", "", "file with a JSON list of snapshots to serve from the start")
	flag.BoolVar(&o.ads, "ads", false, "snapshot cache with ads=true: a request that names only some resources of a type is not answered")
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
	grpcServer := grpc.NewServer(grpc.StreamInterceptor(streams.intercept))
	discoverygrpc.RegisterAggregatedDiscoveryServiceServer(
		grpcServer, server.NewServer(ctx, snapshots.cache, streams.callbacks(), xdsOptions...))

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
		snapshots.cache.ClearSnapshot(node)
		reply(w, map[string]any{"node": node}, nil)
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
