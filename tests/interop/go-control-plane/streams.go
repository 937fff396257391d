package main

import (
	"context"
	"fmt"
	"net"
	"sort"
	"sync"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// watch is what one stream last said about one type.
type watch struct {
	Names    []string `json:"names"`
	Sent     string   `json:"sent"`     // version of the last response
	Acked    string   `json:"acked"`    // version that the last request reported
	Requests int      `json:"requests"` // of this type on this stream
	Nacks    int      `json:"nacks"`
	Stale    int      `json:"stale"` // requests with another nonce than the last response's: such a server drops them
	Error    string   `json:"error"` // error_detail of the last request; empty after an ACK

	nonce    string            // of the last response
	versions map[string]string // of delta responses, by nonce, until they are acknowledged
}

type stream struct {
	ID    int64             `json:"id"`
	Node  string            `json:"node"`
	Delta bool              `json:"delta"`
	Types map[string]*watch `json:"types"`
}

// streams knows every open stream and connection. mu guards all fields, and the
// streams and watches they lead to.
type streams struct {
	mu      sync.Mutex
	open    map[int64]*stream
	total   int
	cutters map[chan codes.Code]struct{}
	conns   map[net.Conn]struct{}
}

func newStreams() *streams {
	return &streams{
		open:    map[int64]*stream{},
		cutters: map[chan codes.Code]struct{}{},
		conns:   map[net.Conn]struct{}{},
	}
}

// intercept lets close end a stream that its handler would keep open: when the
// interceptor returns, the stream ends with its status, and the handler's Recv fails.
func (s *streams) intercept(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	cut := make(chan codes.Code, 1)
	s.mu.Lock()
	s.cutters[cut] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.cutters, cut)
		s.mu.Unlock()
	}()
	done := make(chan error, 1)
	go func() { done <- next(srv, ss) }()
	select {
	case err := <-done:
		return err
	case code := <-cut:
		if code == codes.OK {
			return nil
		}
		return status.Error(code, "closed by the test")
	}
}

// close ends every stream: mode "status" (the default) with a status code, "connection"
// by closing the connections below, with no word of HTTP/2.
func (s *streams) close(mode, code string) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch mode {
	case "", "status":
		parsed := codes.Unavailable
		if code != "" {
			if err := parsed.UnmarshalJSON([]byte(`"` + code + `"`)); err != nil {
				return 0, err
			}
		}
		for cut := range s.cutters {
			select {
			case cut <- parsed:
			default: // told already
			}
		}
		return len(s.cutters), nil
	case "connection":
		for conn := range s.conns {
			_ = conn.Close() // an error here says that it is closed, which is what we want
		}
		return len(s.conns), nil
	}
	return 0, fmt.Errorf("mode: %q is neither status nor connection", mode)
}

func (s *streams) callbacks() server.CallbackFuncs {
	return server.CallbackFuncs{
		StreamOpenFunc: func(_ context.Context, id int64, _ string) error {
			s.opened(id, false)
			return nil
		},
		DeltaStreamOpenFunc: func(_ context.Context, id int64, _ string) error {
			s.opened(-id, true)
			return nil
		},
		StreamClosedFunc:      func(id int64, _ *core.Node) { s.closed(id) },
		DeltaStreamClosedFunc: func(id int64, _ *core.Node) { s.closed(-id) },
		StreamRequestFunc: func(id int64, r *discovery.DiscoveryRequest) error {
			s.update(id, r.GetTypeUrl(), func(to *stream, w *watch) {
				to.name(r.GetNode())
				w.Names = append([]string{}, r.GetResourceNames()...)
				if r.GetResponseNonce() != w.nonce {
					w.Stale++
				}
				w.asked(r.GetVersionInfo(), r.GetErrorDetail().GetMessage(), r.GetErrorDetail() != nil)
			})
			return nil
		},
		StreamDeltaRequestFunc: func(id int64, r *discovery.DeltaDiscoveryRequest) error {
			s.update(-id, r.GetTypeUrl(), func(to *stream, w *watch) {
				to.name(r.GetNode())
				w.Names = changed(w.Names, r.GetResourceNamesSubscribe(), r.GetResourceNamesUnsubscribe())
				w.asked(w.accepts(r), r.GetErrorDetail().GetMessage(), r.GetErrorDetail() != nil)
			})
			return nil
		},
		StreamResponseFunc: func(_ context.Context, id int64, _ *discovery.DiscoveryRequest, r *discovery.DiscoveryResponse) {
			s.update(id, r.GetTypeUrl(), func(_ *stream, w *watch) { w.Sent, w.nonce = r.GetVersionInfo(), r.GetNonce() })
		},
		StreamDeltaResponseFunc: func(id int64, _ *discovery.DeltaDiscoveryRequest, r *discovery.DeltaDiscoveryResponse) {
			s.update(-id, r.GetTypeUrl(), func(_ *stream, w *watch) {
				w.Sent = r.GetSystemVersionInfo()
				w.versions[r.GetNonce()] = w.Sent
			})
		},
	}
}

// name keeps the node of the first request: later ones may leave it out.
func (s *stream) name(node *core.Node) {
	if node.GetId() != "" {
		s.Node = node.GetId()
	}
}

// accepts is the system version that the client of a delta stream is at: that of the response that this request
// acknowledges, or of the last one that was.
func (w *watch) accepts(r *discovery.DeltaDiscoveryRequest) string {
	version, ok := w.versions[r.GetResponseNonce()]
	delete(w.versions, r.GetResponseNonce())
	if !ok || r.GetErrorDetail() != nil {
		return w.Acked
	}
	return version
}

// asked counts one request.
func (w *watch) asked(version, problem string, nack bool) {
	w.Requests++
	w.Acked, w.Error = version, problem
	if nack {
		w.Nacks++
	}
}

func changed(names, added, removed []string) []string {
	set := map[string]struct{}{}
	for _, name := range append(append([]string{}, names...), added...) {
		set[name] = struct{}{}
	}
	for _, name := range removed {
		delete(set, name)
	}
	out := make([]string, 0, len(set))
	for name := range set {
		out = append(out, name)
	}
	sort.Strings(out)
	return out
}

func (s *streams) opened(id int64, delta bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total++
	s.open[id] = &stream{ID: id, Delta: delta, Types: map[string]*watch{}}
}

func (s *streams) closed(id int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, id)
}

func (s *streams) update(id int64, typeURL string, change func(*stream, *watch)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	to, ok := s.open[id]
	if !ok {
		return
	}
	if to.Types[typeURL] == nil {
		to.Types[typeURL] = &watch{versions: map[string]string{}}
	}
	change(to, to.Types[typeURL])
}

// report is a copy, as JSON may be written while streams go on.
func (s *streams) report() map[string]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []stream{}
	for _, from := range s.open {
		to := *from
		to.Types = map[string]*watch{}
		for name, w := range from.Types {
			copied := *w
			to.Types[name] = &copied
		}
		list = append(list, to)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].ID < list[j].ID })
	return map[string]any{"streams": list, "opened": s.total, "connections": len(s.conns)}
}

// track keeps the accepted connections, for close("connection").
func (s *streams) track(inner net.Listener) net.Listener {
	return trackedListener{Listener: inner, streams: s}
}

type trackedListener struct {
	net.Listener
	streams *streams
}

func (l trackedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	tracked := &trackedConn{Conn: conn, streams: l.streams}
	l.streams.mu.Lock()
	defer l.streams.mu.Unlock()
	l.streams.conns[tracked] = struct{}{}
	return tracked, nil
}

type trackedConn struct {
	net.Conn
	streams *streams
	once    sync.Once
}

// Close forgets the connection in a goroutine, because streams.close calls it under mu.
func (c *trackedConn) Close() error {
	c.once.Do(func() {
		go func() {
			c.streams.mu.Lock()
			defer c.streams.mu.Unlock()
			delete(c.streams.conns, c)
		}()
	})
	return c.Conn.Close()
}
