"""Wire table: load-balancing policy extensions.

The notation is explained in `meshlib.xds.schema.pool`.
"""

__all__ = ["BALANCING"]

BALANCING = """
package envoy.extensions.load_balancing_policies.common.v3

message OrcaOobReportingConfig
   1 port_value uint32
   2 authority  string

message LocalityLbConfig
   1 zone_aware_lb_config        .ZoneAwareLbConfig @locality_config_specifier
   2 locality_weighted_lb_config .LocalityWeightedLbConfig @locality_config_specifier

message LocalityLbConfig.ZoneAwareLbConfig
   1 routing_enabled               type.Percent
   2 min_cluster_size              pb.UInt64Value
   3 fail_traffic_on_panic         bool
   4 force_locality_direct_routing bool
   5 force_local_zone              .ForceLocalZone
   6 locality_basis                .LocalityBasis
  enum LocalityBasis HEALTHY_HOSTS_NUM=0 HEALTHY_HOSTS_WEIGHT=1

message LocalityLbConfig.ZoneAwareLbConfig.ForceLocalZone
   1 min_size pb.UInt32Value

message LocalityLbConfig.LocalityWeightedLbConfig

message SlowStartConfig
   1 slow_start_window  pb.Duration
   2 aggression         core.RuntimeDouble
   3 min_weight_percent type.Percent

message ConsistentHashingLbConfig
   1 use_hostname_for_hashing bool
   2 hash_balance_factor      pb.UInt32Value
   3 hash_policy              [route.RouteAction.HashPolicy]

package envoy.extensions.load_balancing_policies.round_robin.v3

message RoundRobin
   1 slow_start_config  lb.SlowStartConfig
   2 locality_lb_config lb.LocalityLbConfig

package envoy.extensions.load_balancing_policies.least_request.v3

message LeastRequest
   1 choice_count        pb.UInt32Value
   2 active_request_bias core.RuntimeDouble
   3 slow_start_config   lb.SlowStartConfig
   4 locality_lb_config  lb.LocalityLbConfig
   5 enable_full_scan    pb.BoolValue
   6 selection_method    .SelectionMethod
  enum SelectionMethod N_CHOICES=0 FULL_SCAN=1

package envoy.extensions.load_balancing_policies.random.v3

message Random
   1 locality_lb_config lb.LocalityLbConfig

package envoy.extensions.load_balancing_policies.wrr_locality.v3

message WrrLocality
   1 endpoint_picking_policy cluster.LoadBalancingPolicy

package envoy.extensions.load_balancing_policies.ring_hash.v3

message RingHash
   1 hash_function                .HashFunction
   2 minimum_ring_size            pb.UInt64Value
   3 maximum_ring_size            pb.UInt64Value
   4 use_hostname_for_hashing     bool
   5 hash_balance_factor          pb.UInt32Value
   6 consistent_hashing_lb_config lb.ConsistentHashingLbConfig
   7 locality_weighted_lb_config  lb.LocalityLbConfig.LocalityWeightedLbConfig
  enum HashFunction DEFAULT_HASH=0 XX_HASH=1 MURMUR_HASH_2=2

package envoy.extensions.load_balancing_policies.maglev.v3

message Maglev
   1 table_size                   pb.UInt64Value
   2 consistent_hashing_lb_config lb.ConsistentHashingLbConfig
   3 locality_weighted_lb_config  lb.LocalityLbConfig.LocalityWeightedLbConfig

package envoy.extensions.load_balancing_policies.override_host.v3

message OverrideHost
   1 override_host_sources [.OverrideHostSource]
   2 selected_host_key     opaque
   3 fallback_policy       cluster.LoadBalancingPolicy

message OverrideHost.OverrideHostSource
   1 header   string
   2 metadata opaque

package envoy.extensions.load_balancing_policies.pick_first.v3

message PickFirst
   1 shuffle_address_list bool

package envoy.extensions.load_balancing_policies.client_side_weighted_round_robin.v3

message ClientSideWeightedRoundRobin
   1 enable_oob_load_report                 pb.BoolValue
   2 oob_reporting_period                   pb.Duration
   3 blackout_period                        pb.Duration
   4 weight_expiration_period               pb.Duration
   5 weight_update_period                   pb.Duration
   6 error_utilization_penalty              pb.FloatValue
   7 metric_names_for_computing_utilization [string]
   8 slow_start_config                      lb.SlowStartConfig
   9 oob_reporting_config                   lb.OrcaOobReportingConfig

package envoy.extensions.load_balancing_policies.subset.v3

message Subset
   1 fallback_policy          .LbSubsetFallbackPolicy
   2 default_subset           pb.Struct
   3 subset_selectors         [.LbSubsetSelector]
   4 locality_weight_aware    bool
   5 scale_locality_weight    bool
   6 panic_mode_any           bool
   7 list_as_any              bool
   8 metadata_fallback_policy .LbSubsetMetadataFallbackPolicy
   9 subset_lb_policy         cluster.LoadBalancingPolicy
  10 allow_redundant_keys     bool
  enum LbSubsetFallbackPolicy NO_FALLBACK=0 ANY_ENDPOINT=1 DEFAULT_SUBSET=2
  enum LbSubsetMetadataFallbackPolicy METADATA_NO_FALLBACK=0 FALLBACK_LIST=1

message Subset.LbSubsetSelector
   1 keys                   [string]
   4 single_host_per_subset bool
   2 fallback_policy        .LbSubsetSelectorFallbackPolicy
   3 fallback_keys_subset   [string]
  enum LbSubsetSelectorFallbackPolicy NOT_DEFINED=0 NO_FALLBACK=1 ANY_ENDPOINT=2 DEFAULT_SUBSET=3 KEYS_SUBSET=4

package envoy.extensions.load_balancing_policies.random_subsetting.v3

message RandomSubsetting
   1 subset_size  pb.UInt32Value
   2 child_policy cluster.LoadBalancingPolicy

package envoy.extensions.load_balancing_policies.cluster_provided.v3

message ClusterProvided
"""
