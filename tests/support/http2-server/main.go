// A server of Go's net/http that speaks HTTP/2 in plain text, for tests of the client. It prints its address.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
)

func main() {
	streams := flag.Int("streams", 250, "requests at once on a connection")
	window := flag.Int("window", 1<<20, "bytes of a request before the handler reads")
	flag.Parse()

	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	mux := http.NewServeMux()
	server := &http.Server{
		Handler:   mux,
		Protocols: protocols,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          *streams,
			MaxReceiveBufferPerStream:     *window,
			MaxReceiveBufferPerConnection: max(*window, 1<<16),
		},
	}
	handle(mux, server)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(listener.Addr())
	if err := server.Serve(listener); err != http.ErrServerClosed {
		panic(err)
	}
	select {} // what is in flight ends by itself; the process is ended by who started it
}

func handle(mux *http.ServeMux, server *http.Server) {
	var waiting, given atomic.Int64
	var together sync.WaitGroup

	mux.HandleFunc("/hello", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello %s", r.URL.Query().Get("name"))
	})
	mux.HandleFunc("/bytes", func(w http.ResponseWriter, r *http.Request) {
		count, _ := strconv.Atoi(r.URL.Query().Get("count"))
		part := make([]byte, 1<<16)
		for ; count > 0; count -= len(part) {
			w.Write(part[:min(len(part), count)])
		}
	})
	// Sends back what comes as it comes, and says how much that was.
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Count")
		w.WriteHeader(200)
		http.NewResponseController(w).Flush()
		count, _ := io.Copy(w, r.Body)
		w.Header().Set("X-Count", strconv.FormatInt(count, 10))
	})
	mux.HandleFunc("/count", func(w http.ResponseWriter, r *http.Request) {
		count, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, count)
	})
	mux.HandleFunc("/hints", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>")
		w.WriteHeader(103)
		w.WriteHeader(102)
		fmt.Fprint(w, "hinted")
	})
	mux.HandleFunc("/early", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(413)
		fmt.Fprint(w, "too much")
	})
	mux.HandleFunc("/abort", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "half")
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	mux.HandleFunc("/lie", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		fmt.Fprint(w, "short")
	})
	// Answers once as many are there as the first of them said.
	var once sync.Once
	mux.HandleFunc("/together", func(w http.ResponseWriter, r *http.Request) {
		count, _ := strconv.Atoi(r.URL.Query().Get("count"))
		once.Do(func() { together.Add(count) })
		together.Done()
		together.Wait()
		fmt.Fprint(w, "together")
	})
	// Waits until the client gives up, and says to others how many have and how many wait.
	mux.HandleFunc("/wait", func(w http.ResponseWriter, r *http.Request) {
		waiting.Add(1)
		<-r.Context().Done()
		waiting.Add(-1)
		given.Add(1)
	})
	mux.HandleFunc("/waiting", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%d %d", waiting.Load(), given.Load())
	})
	down := make(chan struct{})
	server.RegisterOnShutdown(func() { close(down) })
	// Lets the server go: it says so, ends what it has begun, and takes no more.
	mux.HandleFunc("/shutdown", func(w http.ResponseWriter, r *http.Request) {
		go server.Shutdown(context.Background())
		<-down
		fmt.Fprint(w, "bye")
	})
}
