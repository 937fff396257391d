package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"istio.io/api/security/v1beta1"
	"istio.io/istio/pilot/test/xds"
	"istio.io/istio/pkg/security"
	"istio.io/istio/security/pkg/pki/ca"
	"istio.io/istio/security/pkg/pki/util"
	caserver "istio.io/istio/security/pkg/server/ca"
	"istio.io/istio/security/pkg/server/ca/authenticate"
)

const (
	issuer   = "https://kubernetes.default.svc"
	audience = "istio-ca"
	caTTL    = 24 * time.Hour
	bits     = 2048
)

// authority is Istio's own self-signed CA, on a port that is put together as istiod's 15012:
// TLS, the discovery service and the CA's, and who has neither a certificate of the mesh nor a
// token of a service account gets nothing from either.
type authority struct {
	ca     *ca.IstioCA
	roots  string // the file that stands for the config map istio-ca-root-cert
	served atomic.Pointer[tls.Certificate]
	pool   atomic.Pointer[x509.CertPool]
	issued atomic.Int64
}

// serveCA serves at that address until the context ends. Tokens are checked by the keys at jwks, a URL.
func serveCA(ctx context.Context, server *xds.FakeDiscoveryServer, address, roots, jwks string) (*authority, net.Addr, error) {
	made, err := ca.NewSelfSignedDebugIstioCAOptions("", caTTL, caTTL, caTTL, "cluster.local", bits)
	if err != nil {
		return nil, nil, err
	}
	signing, err := ca.NewIstioCA(made)
	if err != nil {
		return nil, nil, err
	}
	a := &authority{ca: signing, roots: roots}
	if err := a.renewed(); err != nil {
		return nil, nil, err
	}
	rule := &v1beta1.JWTRule{Issuer: issuer, JwksUri: jwks, Audiences: []string{audience}}
	tokens, err := authenticate.NewJwtAuthenticator(rule, server.Env().Watcher)
	if err != nil {
		return nil, nil, err
	}
	authenticators := []security.Authenticator{&authenticate.ClientCertAuthenticator{}, tokens}
	server.Discovery.Authenticators = authenticators
	service, err := caserver.New(signing, caTTL, authenticators, nil)
	if err != nil {
		return nil, nil, err
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, nil, err
	}
	secure := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return a.config(), nil },
	})), grpc.UnaryInterceptor(a.count))
	server.Discovery.Register(secure)
	service.Register(secure)
	go func() { _ = secure.Serve(listener) }() // it ends with the listener
	go func() { <-ctx.Done(); secure.Stop() }()
	return a, listener.Addr(), nil
}

func (a *authority) config() *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{*a.served.Load()},
		ClientAuth:   tls.VerifyClientCertIfGiven,
		ClientCAs:    a.pool.Load(),
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{"h2"},
	}
}

func (a *authority) count(
	ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
) (any, error) {
	answer, err := handler(ctx, request)
	if err == nil {
		a.issued.Add(1)
	}
	return answer, err
}

// renewed takes what the CA signs with now for the server itself, and tells the roots.
func (a *authority) renewed() error {
	chain, key, err := a.ca.GenKeyCert([]string{"istiod.istio-system.svc", "127.0.0.1"}, caTTL, false)
	if err != nil {
		return err
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return err
	}
	roots := a.ca.GetCAKeyCertBundle().GetRootCertPem()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(roots) {
		return fmt.Errorf("the CA has no root")
	}
	a.pool.Store(pool)
	a.served.Store(&pair)
	unfinished := a.roots + ".new"
	if err := os.WriteFile(unfinished, roots, 0o600); err != nil {
		return err
	}
	return os.Rename(unfinished, a.roots)
}

// rotate has another key sign from now on; who has a certificate of an older root is still trusted.
func (a *authority) rotate() error {
	cert, key, err := util.GenCertKeyFromOptions(util.CertOptions{
		TTL: caTTL, Org: "cluster.local", IsCA: true, IsSelfSigned: true, RSAKeySize: bits, IsDualUse: true,
	})
	if err != nil {
		return err
	}
	bundle := a.ca.GetCAKeyCertBundle()
	roots := append(append([]byte{}, cert...), bundle.GetRootCertPem()...)
	if err := bundle.VerifyAndSetAll(cert, key, nil, roots, nil); err != nil {
		return err
	}
	return a.renewed()
}

// sign gives a pair that a server of the mesh has, for one of Envoy's.
func (a *authority) sign(account string) (map[string]any, error) {
	chain, key, err := a.ca.GenKeyCert([]string{account}, caTTL, false)
	if err != nil {
		return nil, err
	}
	return map[string]any{"cert": string(chain), "key": string(key)}, nil
}

func (a *authority) register(mux *http.ServeMux) {
	mux.HandleFunc("POST /ca/rotate", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, map[string]any{}, a.rotate())
	})
	mux.HandleFunc("POST /ca/sign", func(w http.ResponseWriter, r *http.Request) {
		made, err := a.sign(r.URL.Query().Get("account"))
		reply(w, made, err)
	})
	mux.HandleFunc("GET /ca/issued", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, map[string]any{"issued": a.issued.Load()}, nil)
	})
}
