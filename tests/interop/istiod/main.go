// Istio's discovery server for tests, without Kubernetes.
//
// It hosts the discovery server and the generators of istio.io/istio over an in-memory
// Kubernetes API, serves them in plain gRPC or over TLS, beside Istio's own CA if it is told to, and takes configuration as YAML, from files
// at the start and over HTTP while it runs: kinds of *.istio.io go to Istio's store, all
// others to the Kubernetes API. When it can be asked it prints one JSON line with its
// addresses. It ends on SIGTERM, on SIGINT and when its standard input closes.
//
// There is no go.mod beside this file on purpose: ../build.py makes one from the
// requirements and sums of the Istio module itself.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	meshconfig "istio.io/api/mesh/v1alpha1"
	"istio.io/istio/pilot/test/xds"
	"istio.io/istio/pkg/config/mesh"
	istiolog "istio.io/istio/pkg/log"
	kuberuntime "k8s.io/apimachinery/pkg/runtime"
)

type options struct {
	xds, control, config, mesh string
	cert, key, clientCA        string
	secure, roots, jwks        string
	debounce                   time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.xds, "xds", "127.0.0.1:0", "address of the gRPC server")
	flag.StringVar(&o.control, "control", "127.0.0.1:0", "address of the HTTP control page")
	flag.StringVar(&o.config, "config", "", "YAML file with the configuration to start with")
	flag.StringVar(&o.mesh, "mesh", "", "YAML file with Istio's mesh configuration")
	flag.StringVar(&o.cert, "cert", "", "file with the certificate chain: TLS")
	flag.StringVar(&o.key, "key", "", "file with its private key")
	flag.StringVar(&o.clientCA, "client-ca", "", "file with the roots of clients' certificates: they must have one")
	flag.StringVar(&o.secure, "secure", "", "address of a server with TLS, Istio's CA and its authentication, as istiod's 15012")
	flag.StringVar(&o.roots, "roots", "", "file that gets that CA's roots")
	flag.StringVar(&o.jwks, "jwks", "", "file with the keys of tokens, as a JSON Web Key Set")
	flag.DurationVar(&o.debounce, "debounce", 100*time.Millisecond, "quiet time before a push, as PILOT_DEBOUNCE_AFTER")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(o options) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()

	logging := istiolog.DefaultOptions()
	logging.OutputPaths = []string{"stderr"} // standard output is for the one line below
	if err := istiolog.Configure(logging); err != nil {
		return err
	}
	control, err := net.Listen("tcp", o.control)
	if err != nil {
		return err
	}
	conns := &connections{open: map[net.Conn]struct{}{}}
	t := &failer{}
	defer t.cleanup()
	server, err := start(t, o, conns)
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	mux := handler(server, conns)
	said := map[string]any{"xds": server.Listener.Addr().String(), "control": control.Addr().String()}
	if o.secure != "" {
		mux.HandleFunc("GET /jwks", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, o.jwks) })
		jwks := "http://" + control.Addr().String() + "/jwks"
		authority, address, err := serveCA(ctx, server, o.secure, o.roots, jwks)
		if err != nil {
			return err
		}
		authority.register(mux)
		said["secure"] = address.String()
	}
	go func() { failed <- http.Serve(control, mux) }()
	if err := json.NewEncoder(os.Stdout).Encode(said); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	}
}

// start gives a server that has all of the files' configuration: Istio answers
// Unavailable until then, as it does in a cluster before its caches have synced.
func start(t *failer, o options, conns *connections) (*xds.FakeDiscoveryServer, error) {
	var text string
	if o.config != "" {
		raw, err := os.ReadFile(o.config)
		if err != nil {
			return nil, err
		}
		text = string(raw)
	}
	istio, kubernetes, err := split(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.config, err)
	}
	parsed, err := parse(kubernetes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.config, err)
	}
	objects := make([]kuberuntime.Object, 0, len(parsed))
	for _, o := range parsed {
		objects = append(objects, o.value)
	}
	secure, err := readTLS(o)
	if err != nil {
		return nil, err
	}
	meshConfig, err := readMesh(o.mesh)
	if err != nil {
		return nil, err
	}
	return xds.NewFakeDiscoveryServer(t, xds.FakeOptions{
		ConfigString:      strings.Join(istio, "\n---\n"),
		KubernetesObjects: objects,
		MeshConfig:        meshConfig,
		DebounceTime:      o.debounce,
		ListenerBuilder: func() (net.Listener, error) {
			listener, err := net.Listen("tcp", o.xds)
			if err != nil {
				return nil, err
			}
			tracked := trackedListener{Listener: listener, connections: conns}
			if secure != nil {
				return tls.NewListener(tracked, secure), nil
			}
			return tracked, nil
		},
	}), nil
}

// readTLS gives nil where the server is to speak plain text. The one of Istio's tests has
// no port with TLS of its own: who connects is not asked who he is by anything but this.
func readTLS(o options) (*tls.Config, error) {
	if o.cert == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(o.cert, o.key)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}}
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
	return config, nil
}

func readMesh(path string) (*meshconfig.MeshConfig, error) {
	if path == "" {
		return nil, nil
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return mesh.ApplyMeshConfigDefaults(string(raw))
}

// handler is the control page. Every answer of its own is JSON; an error has one field,
// "error". Below /debug/ are Istio's own debug pages.
func handler(server *xds.FakeDiscoveryServer, conns *connections) *http.ServeMux {
	store := &store{server: server}
	mux := http.NewServeMux()
	change := func(do func(string) ([]string, error)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				reply(w, nil, err)
				return
			}
			done, err := do(string(body))
			reply(w, map[string]any{"changed": done}, err)
		}
	}
	mux.HandleFunc("POST /apply", change(store.apply))
	mux.HandleFunc("POST /delete", change(store.remove))
	mux.HandleFunc("GET /streams", func(w http.ResponseWriter, _ *http.Request) {
		list := []map[string]any{}
		for _, client := range server.Discovery.AllClients() {
			list = append(list, map[string]any{
				"id": client.ID(), "node": client.Proxy().ID, "generator": client.Proxy().Metadata.Generator,
			})
		}
		reply(w, map[string]any{"streams": list}, nil)
	})
	mux.HandleFunc("POST /streams/close", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, map[string]any{"closed": conns.close()}, nil)
	})
	mux.Handle("/debug/", server.DiscoveryDebug)
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

// connections are the accepted ones, so that a test can cut them. mu guards open.
type connections struct {
	mu   sync.Mutex
	open map[net.Conn]struct{}
}

func (c *connections) close() int {
	c.mu.Lock()
	list := make([]net.Conn, 0, len(c.open))
	for conn := range c.open {
		list = append(list, conn)
	}
	c.mu.Unlock()
	for _, conn := range list {
		_ = conn.Close() // an error here says that it is closed, which is what we want
	}
	return len(list)
}

type trackedListener struct {
	net.Listener
	*connections
}

func (l trackedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	tracked := &trackedConn{Conn: conn, connections: l.connections}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[tracked] = struct{}{}
	return tracked, nil
}

func (l trackedListener) Close() error { return l.Listener.Close() }

type trackedConn struct {
	net.Conn
	connections *connections
}

func (c *trackedConn) Close() error {
	c.connections.mu.Lock()
	delete(c.connections.open, c)
	c.connections.mu.Unlock()
	return c.Conn.Close()
}

// failer stands in for a test: Istio's test server reports to one. What would fail the
// test ends the program. mu guards cleanups.
type failer struct {
	mu       sync.Mutex
	cleanups []func()
}

func (f *failer) Fail()                          { f.Fatal("failed") }
func (f *failer) FailNow()                       { f.Fatal("failed") }
func (f *failer) Fatalf(format string, a ...any) { f.Fatal(fmt.Sprintf(format, a...)) }
func (f *failer) Fatal(a ...any) {
	fmt.Fprintln(os.Stderr, append([]any{"fatal:"}, a...)...)
	os.Exit(1)
}
func (f *failer) Log(a ...any)                 { fmt.Fprintln(os.Stderr, a...) }
func (f *failer) Logf(format string, a ...any) { fmt.Fprintf(os.Stderr, format+"\n", a...) }
func (f *failer) Helper()                      {}
func (f *failer) Skip(a ...any) {
	f.Log(append([]any{"skip:"}, a...)...)
	runtime.Goexit()
}

func (f *failer) TempDir() string {
	dir, err := os.MkdirTemp("", "istiod-test")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (f *failer) Cleanup(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cleanups = append(f.cleanups, do)
}

// cleanup runs what was asked for, last first, for at most a second: a server that does
// not come to rest must not keep the process, which is going away anyhow.
func (f *failer) cleanup() {
	f.mu.Lock()
	list := f.cleanups
	f.cleanups = nil
	f.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := len(list) - 1; i >= 0; i-- {
			list[i]()
		}
	}()
	select {
	case <-done:
	case <-time.After(time.Second):
	}
}
