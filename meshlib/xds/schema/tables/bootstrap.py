"""Wire table: the top of an Envoy's own configuration file.

The notation is explained in `meshlib.xds.schema.pool`.
"""

__all__ = ["BOOTSTRAP"]

BOOTSTRAP = """
package envoy.config.bootstrap.v3

message Bootstrap
   1 node                             opaque
  26 node_context_params              [string]
   2 static_resources                 .StaticResources
   3 dynamic_resources                opaque
   4 cluster_manager                  opaque
  14 hds_config                       opaque
   5 flags_path                       string
   6 stats_sinks                      [opaque]
  39 deferred_stat_options            opaque
  13 stats_config                     opaque
   7 stats_flush_interval             pb.Duration
  29 stats_flush_on_admin             bool @stats_flush
  42 stats_eviction_interval          pb.Duration @stats_eviction
   8 watchdog                         opaque
  27 watchdogs                        opaque
   9 tracing                          opaque
  17 layered_runtime                  opaque
  12 admin                            opaque
  15 overload_manager                 opaque
  16 enable_dispatcher_stats          bool
  18 header_prefix                    string
  19 stats_server_version_override    pb.UInt64Value
  20 use_tcp_for_dns_lookups          bool
  30 dns_resolution_config            opaque
  31 typed_dns_resolver_config        opaque
  21 bootstrap_extensions             [opaque]
  28 fatal_actions                    [opaque]
  22 config_sources                   [opaque]
  23 default_config_source            opaque
  24 default_socket_interface         string
  25 certificate_provider_instances   map:opaque
  32 inline_headers                   [opaque]
  33 perf_tracing_file_path           string
  34 default_regex_engine             opaque
  35 xds_delegate_extension           opaque
  36 xds_config_tracker_extension     opaque
  37 listener_manager                 opaque
  38 application_log_config           opaque
  40 grpc_async_client_manager_config opaque
  41 memory_allocator_manager         opaque
  43 enable_worker_cpu_affinity       bool

message Bootstrap.StaticResources
   1 listeners [listener.Listener]
   2 clusters  [cluster.Cluster]
   3 secrets   [opaque]
"""
