package main

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	api "github.com/envoyproxy/go-control-plane/envoy/api/v2"
	auth "github.com/envoyproxy/go-control-plane/envoy/api/v2/auth"
	cluster "github.com/envoyproxy/go-control-plane/envoy/api/v2/cluster"
	core "github.com/envoyproxy/go-control-plane/envoy/api/v2/core"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/api/v2/endpoint"
	listener "github.com/envoyproxy/go-control-plane/envoy/api/v2/listener"
	route "github.com/envoyproxy/go-control-plane/envoy/api/v2/route"
	hcm "github.com/envoyproxy/go-control-plane/envoy/config/filter/network/http_connection_manager/v2"
	tcp "github.com/envoyproxy/go-control-plane/envoy/config/filter/network/tcp_proxy/v2"
	udp "github.com/envoyproxy/go-control-plane/envoy/config/filter/udp/udp_proxy/v2alpha"
	kind "github.com/envoyproxy/go-control-plane/envoy/type"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/golang/protobuf/proto"
	"github.com/golang/protobuf/ptypes"
	anypb "github.com/golang/protobuf/ptypes/any"
	"github.com/golang/protobuf/ptypes/duration"
	structpb "github.com/golang/protobuf/ptypes/struct"
	"github.com/golang/protobuf/ptypes/wrappers"
)

type converted struct {
	listeners, clusters, endpoints []types.Resource
}

type row struct {
	Dependency
	to Service
}

// place is whose resources they are: names are made of it.
type place struct {
	namespace, plugin, alias string
}

func (p place) name(parts ...any) string {
	texts := []string{p.namespace, p.alias}
	for _, part := range parts {
		texts = append(texts, fmt.Sprint(part))
	}
	return strings.Join(texts, "_")
}

// convert is what the agent makes of a plugin's settings, with everything that is odd about it.
func convert(node string, settings Settings, services map[service]Service) (converted, error) {
	parts := strings.Split(node, "_")
	at := place{parts[0], parts[1], parts[2]}
	var rows []row
	for _, each := range settings.Services {
		if to, ok := services[service{each.Alias, each.Port}]; ok {
			rows = append(rows, row{each, to})
		}
	}
	var made converted
	var failed error
	packed := func(inner proto.Message) *anypb.Any {
		out, err := ptypes.MarshalAny(inner)
		if err != nil {
			failed = err
		}
		return out
	}
	seen := map[string]bool{}
	for _, each := range rows {
		name := at.name(each.Alias, each.Port)
		if seen[name] {
			continue
		}
		seen[name] = true
		made.clusters = append(made.clusters, dependencyCluster(name, each, packed))
		if each.to.Domain == "" {
			made.endpoints = append(made.endpoints, assignment(name, each.to))
		}
	}
	for _, each := range settings.Ports {
		made.clusters = append(made.clusters, ownCluster(at.name(each.Port), each))
	}
	made.listeners = listeners(at, rows, settings.Ports, packed)
	return made, failed
}

type pack func(proto.Message) *anypb.Any

// --- clusters

func dependencyCluster(name string, of row, packed pack) *api.Cluster {
	made := &api.Cluster{Name: name, ClusterDiscoveryType: &api.Cluster_Type{Type: api.Cluster_EDS}}
	policies(made, of.Options)
	if of.Protocol == "http2" || of.Protocol == "grpc" {
		made.Http2ProtocolOptions = &core.Http2ProtocolOptions{}
	}
	if named := of.Options["GrpcHealthServiceName"]; named != "" && of.Protocol == "grpc" {
		made.HealthChecks = []*core.HealthCheck{{
			Timeout:            seconds(number(of.Options, "HealthCheckTimeout", 5)),
			Interval:           seconds(number(of.Options, "HealthCheckInterval", 4)),
			UnhealthyThreshold: whole(2),
			HealthyThreshold:   whole(1),
			HealthChecker: &core.HealthCheck_GrpcHealthCheck_{
				GrpcHealthCheck: &core.HealthCheck_GrpcHealthCheck{ServiceName: named},
			},
		}}
	}
	if of.to.Domain != "" {
		thirdParty(made, of.to, packed)
		return made
	}
	made.EdsClusterConfig = &api.Cluster_EdsClusterConfig{ServiceName: name, EdsConfig: &core.ConfigSource{
		ConfigSourceSpecifier: &core.ConfigSource_ApiConfigSource{ApiConfigSource: &core.ApiConfigSource{
			ApiType: core.ApiConfigSource_GRPC,
			GrpcServices: []*core.GrpcService{{TargetSpecifier: &core.GrpcService_EnvoyGrpc_{
				EnvoyGrpc: &core.GrpcService_EnvoyGrpc{ClusterName: "kato_xds_cluster"},
			}}},
		}},
	}}
	return made
}

func thirdParty(made *api.Cluster, to Service, packed pack) {
	scheme, host, https := strings.Cut(to.Domain, "://")
	if !https {
		host = to.Domain
	}
	where := host
	if !strings.Contains(host, ":") {
		port := to.Port
		if scheme == "https" && https {
			port = 443
		}
		where = fmt.Sprintf("%s:%d", host, port)
	}
	made.ClusterDiscoveryType = &api.Cluster_Type{Type: api.Cluster_LOGICAL_DNS}
	made.LoadAssignment = &api.ClusterLoadAssignment{ClusterName: made.Name, Endpoints: []*endpoint.LocalityLbEndpoints{
		{LbEndpoints: []*endpoint.LbEndpoint{lbEndpoint(where, false)}},
	}}
	if https && scheme == "https" {
		sni, _, _ := strings.Cut(host, ":")
		made.TransportSocket = &core.TransportSocket{
			Name:       "envoy.transport_sockets.tls",
			ConfigType: &core.TransportSocket_TypedConfig{TypedConfig: packed(&auth.UpstreamTlsContext{Sni: sni})},
		}
	}
}

// ownCluster has the field that v3 took away.
func ownCluster(name string, of Port) *api.Cluster {
	made := &api.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &api.Cluster_Type{Type: api.Cluster_STATIC},
		Hosts:                []*core.Address{address(fmt.Sprintf("127.0.0.1:%d", of.Port))},
	}
	policies(made, of.Options)
	if most := number(of.Options, "MaxRequestsPerConnection", 0); most != 0 {
		made.MaxRequestsPerConnection = whole(most)
	}
	return made
}

// policies: 250 are meant as milliseconds and sent as seconds, 50 % are sent as a hundredth of that, and IntervalMS is not read.
func policies(made *api.Cluster, options map[string]string) {
	made.ConnectTimeout = seconds(number(options, "ConnectionTimeout", 250))
	made.CommonLbConfig = &api.Cluster_CommonLbConfig{
		HealthyPanicThreshold: &kind.Percent{Value: float64(number(options, "HealthyPanicThreshold", 50)) / 100},
	}
	made.CircuitBreakers = &cluster.CircuitBreakers{Thresholds: []*cluster.CircuitBreakers_Thresholds{{
		MaxConnections:     whole(number(options, "MaxConnections", 10240)),
		MaxPendingRequests: whole(number(options, "MaxPendingRequests", 1024)),
		MaxRequests:        whole(number(options, "MaxRequests", 10240)),
		MaxRetries:         whole(number(options, "MaxActiveRetries", 3)),
	}}}
	made.OutlierDetection = &cluster.OutlierDetection{
		Consecutive_5Xx:    whole(number(options, "ConsecutiveErrors", 5)),
		Interval:           seconds(10),
		BaseEjectionTime:   seconds(number(options, "BaseEjectionTimeMS", 30000) / 1000),
		MaxEjectionPercent: whole(min(number(options, "MaxEjectionPercent", 10), 100)),
	}
}

// --- endpoints

// assignment: who is ready has a port for health checks; one address without it says that none is.
func assignment(name string, of Service) *api.ClusterLoadAssignment {
	made := &api.ClusterLoadAssignment{ClusterName: name}
	for _, subset := range of.Subsets {
		if len(subset) == 0 {
			continue
		}
		group := &endpoint.LocalityLbEndpoints{}
		for _, where := range subset {
			group.LbEndpoints = append(group.LbEndpoints, lbEndpoint(where, true))
		}
		made.Endpoints = append(made.Endpoints, group)
	}
	if len(made.Endpoints) == 0 && len(of.Unready) > 0 {
		made.Endpoints = []*endpoint.LocalityLbEndpoints{{LbEndpoints: []*endpoint.LbEndpoint{lbEndpoint(of.Unready[0], false)}}}
	}
	return made
}

func lbEndpoint(where string, ready bool) *endpoint.LbEndpoint {
	held := &endpoint.Endpoint{Address: address(where)}
	if ready {
		held.HealthCheckConfig = &endpoint.Endpoint_HealthCheckConfig{PortValue: held.Address.GetSocketAddress().GetPortValue()}
	}
	return &endpoint.LbEndpoint{HostIdentifier: &endpoint.LbEndpoint_Endpoint{Endpoint: held}}
}

// --- listeners

func listeners(at place, rows []row, ports []Port, packed pack) []types.Resource {
	var made []types.Resource
	taken := map[uint32]bool{}
	var byName []row
	for _, each := range rows {
		if each.Protocol == "http" || each.Protocol == "https" {
			byName = append(byName, each)
		}
		port := each.to.Inner
		if port == 0 {
			port = each.to.Port
		}
		if taken[port] {
			continue // who comes later on the same port has no listener
		}
		taken[port] = true
		name, to, where := at.name(port), at.name(each.Alias, each.Port), fmt.Sprintf("127.0.0.1:%d", port)
		if each.Protocol == "udp" {
			made = append(made, udpListener(name, where, to, packed))
		} else {
			made = append(made, oneFilter(name, where, "envoy.tcp_proxy", packed(tcpProxy(to, each.Options))))
		}
	}
	if len(byName) > 0 && !strings.Contains(at.plugin, "def-mesh") {
		name := at.name("http", 80)
		made = append(made, httpListener(name, "127.0.0.1:80", virtualHosts(at, byName), "", packed))
	}
	for _, each := range ports {
		made = append(made, inbound(at, each, packed))
	}
	return made
}

func inbound(at place, of Port, packed pack) *api.Listener {
	name, where := at.name(of.Port), fmt.Sprintf("0.0.0.0:%d", of.Listen)
	if of.Protocol != "http" && of.Protocol != "https" {
		return oneFilter(name, where, "envoy.tcp_proxy", packed(tcpProxy(name, of.Options)))
	}
	host := &route.VirtualHost{Name: name, Domains: []string{"*"}, Routes: []*route.Route{matched("/", "", &route.RouteAction{
		ClusterSpecifier: &route.RouteAction_Cluster{Cluster: name},
	})}}
	limit := ""
	if open := strings.ToLower(of.Options["OPEN_LIMIT"]); open == "yes" || open == "true" {
		limit = "limit.common"
		if named := of.Options["LIMIT_DOMAIN"]; named != "" {
			limit = named
		}
	}
	return httpListener(name, where, []*route.VirtualHost{host}, limit, packed)
}

func oneFilter(name, where, filter string, settings *anypb.Any) *api.Listener {
	return &api.Listener{Name: name, Address: address(where), FilterChains: []*listener.FilterChain{{
		Filters: []*listener.Filter{{Name: filter, ConfigType: &listener.Filter_TypedConfig{TypedConfig: settings}}},
	}}}
}

func tcpProxy(to string, options map[string]string) *tcp.TcpProxy {
	return &tcp.TcpProxy{
		StatPrefix:       to,
		ClusterSpecifier: &tcp.TcpProxy_Cluster{Cluster: to},
		IdleTimeout:      seconds(number(options, "TCPIdleTimeout", 7200)),
	}
}

func udpListener(name, where, to string, packed pack) *api.Listener {
	made := &api.Listener{Name: name, Address: address(where)}
	made.Address.GetSocketAddress().Protocol = core.SocketAddress_UDP
	settings := &udp.UdpProxyConfig{StatPrefix: name, RouteSpecifier: &udp.UdpProxyConfig_Cluster{Cluster: to}}
	made.ListenerFilters = []*listener.ListenerFilter{{
		Name:       "envoy.filters.udp_listener.udp_proxy",
		ConfigType: &listener.ListenerFilter_TypedConfig{TypedConfig: packed(settings)},
	}}
	return made
}

// httpListener has old filter names, a router without settings, and a limit of rates with a Struct.
func httpListener(name, where string, hosts []*route.VirtualHost, limit string, packed pack) *api.Listener {
	manager := &hcm.HttpConnectionManager{StatPrefix: name, RouteSpecifier: &hcm.HttpConnectionManager_RouteConfig{
		RouteConfig: &api.RouteConfiguration{Name: name, VirtualHosts: hosts},
	}}
	if limit != "" {
		manager.HttpFilters = append(manager.HttpFilters, &hcm.HttpFilter{
			Name: "envoy.rate_limit",
			ConfigType: &hcm.HttpFilter_Config{Config: object("domain", text(limit), "rate_limit_service",
				inside(object("grpc_service", inside(object("envoy_grpc",
					inside(object("cluster_name", text("rate_limit_service_cluster")))))))),
			},
		})
	}
	manager.HttpFilters = append(manager.HttpFilters, &hcm.HttpFilter{Name: "envoy.router"})
	return oneFilter(name, where, "envoy.http_connection_manager", packed(manager))
}

// --- routes

// virtualHosts: one for each distinct prefix, headers and domains; rows that are equal in all three share it by weight.
func virtualHosts(at place, rows []row) []*route.VirtualHost {
	type key struct{ prefix, headers, domains string }
	groups := map[key][]row{}
	var order []key
	for _, each := range rows {
		k := key{each.Options["Prefix"], each.Options["Headers"], each.Options["Domains"]}
		if k.prefix == "" {
			k.prefix = "/"
		}
		if k.domains == "" {
			k.domains = "*"
		}
		if groups[k] == nil {
			order = append(order, k)
		}
		groups[k] = append(groups[k], each)
	}
	var made []*route.VirtualHost
	for _, k := range order {
		those := groups[k]
		first := those[0]
		action := &route.RouteAction{}
		if first.to.Rewrite && len(those) == 1 {
			host := first.to.Domain
			if _, after, found := strings.Cut(host, "://"); found {
				host = after
			}
			action.ClusterSpecifier = &route.RouteAction_Cluster{Cluster: at.name(first.Alias, first.Port)}
			action.HostRewriteSpecifier = &route.RouteAction_HostRewrite{HostRewrite: host}
		} else {
			shares := &route.WeightedCluster{}
			for _, each := range those {
				shares.Clusters = append(shares.Clusters, &route.WeightedCluster_ClusterWeight{
					Name: at.name(each.Alias, each.Port), Weight: whole(number(each.Options, "Weight", 100)),
				})
			}
			action.ClusterSpecifier = &route.RouteAction_WeightedClusters{WeightedClusters: shares}
		}
		var domains []string
		for _, each := range strings.Split(k.domains, ",") {
			domains = append(domains, strings.TrimSpace(each))
		}
		made = append(made, &route.VirtualHost{
			Name: at.name(first.Alias, first.Port), Domains: domains, Routes: []*route.Route{matched(k.prefix, k.headers, action)},
		})
	}
	return made
}

// matched: of the headers the last one holds, as a prefix.
func matched(prefix, headers string, action *route.RouteAction) *route.Route {
	match := &route.RouteMatch{PathSpecifier: &route.RouteMatch_Prefix{Prefix: prefix}}
	for _, each := range strings.Split(headers, ";") {
		if name, value, found := strings.Cut(each, ":"); found && each != "has_header:no" {
			match.Headers = []*route.HeaderMatcher{{
				Name:                 strings.TrimSpace(name),
				HeaderMatchSpecifier: &route.HeaderMatcher_PrefixMatch{PrefixMatch: strings.TrimSpace(value)},
			}}
		}
	}
	return &route.Route{Match: match, Action: &route.Route_Route{Route: action}}
}

// --- small things

// number: zero is the default.
func number(options map[string]string, key string, otherwise int) int {
	if found, err := strconv.Atoi(options[key]); err == nil && found != 0 {
		return found
	}
	return otherwise
}

func whole(value int) *wrappers.UInt32Value { return &wrappers.UInt32Value{Value: uint32(value)} }

func seconds(value int) *duration.Duration { return &duration.Duration{Seconds: int64(value)} }

func address(where string) *core.Address {
	host, port, _ := net.SplitHostPort(where)
	value, _ := strconv.Atoi(port)
	return &core.Address{Address: &core.Address_SocketAddress{SocketAddress: &core.SocketAddress{
		Address: host, PortSpecifier: &core.SocketAddress_PortValue{PortValue: uint32(value)},
	}}}
}

func object(pairs ...any) *structpb.Struct {
	made := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for index := 0; index < len(pairs); index += 2 {
		made.Fields[pairs[index].(string)] = pairs[index+1].(*structpb.Value)
	}
	return made
}

func text(value string) *structpb.Value {
	return &structpb.Value{Kind: &structpb.Value_StringValue{StringValue: value}}
}

func inside(value *structpb.Struct) *structpb.Value {
	return &structpb.Value{Kind: &structpb.Value_StructValue{StructValue: value}}
}
