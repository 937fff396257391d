"""Wire table: cluster load assignment.

The notation is explained in `meshlib.xds.schema.pool`.
"""

__all__ = ["ENDPOINT"]

ENDPOINT = """
package envoy.config.endpoint.v3

message ClusterLoadAssignment
   1 cluster_name    string
   2 endpoints       [LocalityLbEndpoints]
   5 named_endpoints map:Endpoint
   4 policy          .Policy

message ClusterLoadAssignment.Policy
   2 drop_overloads           [.DropOverload]
   3 overprovisioning_factor  pb.UInt32Value
   4 endpoint_stale_after     pb.Duration
   6 weighted_priority_health bool

message ClusterLoadAssignment.Policy.DropOverload
   1 category        string
   2 drop_percentage type.FractionalPercent

message LocalityLbEndpoints
   1 locality                     core.Locality
   9 metadata                     core.Metadata
   2 lb_endpoints                 [LbEndpoint]
   7 load_balancer_endpoints      .LbEndpointList @lb_config
   8 leds_cluster_locality_config opaque @lb_config
   3 load_balancing_weight        pb.UInt32Value
   5 priority                     uint32
   6 proximity                    pb.UInt32Value

message LocalityLbEndpoints.LbEndpointList
   1 lb_endpoints [LbEndpoint]

message LbEndpoint
   1 endpoint              Endpoint @host_identifier
   5 endpoint_name         string @host_identifier
   2 health_status         core.HealthStatus
   3 metadata              core.Metadata
   4 load_balancing_weight pb.UInt32Value

message Endpoint
   1 address              core.Address
   2 health_check_config  .HealthCheckConfig
   3 hostname             string
   4 additional_addresses [.AdditionalAddress]

message Endpoint.HealthCheckConfig
   1 port_value                  uint32
   2 hostname                    string
   3 address                     core.Address
   4 disable_active_health_check bool

message Endpoint.AdditionalAddress
   1 address core.Address
"""
