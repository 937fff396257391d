"""Wire table: the discovery service itself: requests, responses, wrapped resources, status.

The notation is explained in `meshlib.xds.schema.pool`.
"""

__all__ = ["DISCOVERY"]

DISCOVERY = """
package google.rpc

message Status
   1 code    int32
   2 message string
   3 details [pb.Any]

package envoy.service.discovery.v3

message ResourceLocator
   1 name               string
   2 dynamic_parameters map:string

message ResourceName
   1 name                          string
   2 dynamic_parameter_constraints opaque

message ResourceError
   1 resource_name ResourceName
   2 error_detail  rpc.Status

message DiscoveryRequest
   1 version_info      string
   2 node              core.Node
   3 resource_names    [string]
   7 resource_locators [ResourceLocator]
   4 type_url          string
   5 response_nonce    string
   6 error_detail      rpc.Status

message DiscoveryResponse
   1 version_info    string
   2 resources       [pb.Any]
   3 canary          bool
   4 type_url        string
   5 nonce           string
   6 control_plane   core.ControlPlane
   7 resource_errors [ResourceError]

message DeltaDiscoveryRequest
   1 node                          core.Node
   2 type_url                      string
   3 resource_names_subscribe      [string]
   4 resource_names_unsubscribe    [string]
   8 resource_locators_subscribe   [ResourceLocator]
   9 resource_locators_unsubscribe [ResourceLocator]
   5 initial_resource_versions     map:string
   6 response_nonce                string
   7 error_detail                  rpc.Status

message DeltaDiscoveryResponse
   1 system_version_info    string
   2 resources              [Resource]
   4 type_url               string
   6 removed_resources      [string]
   8 removed_resource_names [ResourceName]
   5 nonce                  string
   7 control_plane          core.ControlPlane
   9 resource_errors        [ResourceError]

message Resource
   3 name          string
   8 resource_name ResourceName
   4 aliases       [string]
   1 version       string
   2 resource      pb.Any
   6 ttl           pb.Duration
   7 cache_control .CacheControl
   9 metadata      core.Metadata

message Resource.CacheControl
   1 do_not_cache bool
"""
