"""Wire table: the client status service (CSDS): what a client has, told to whoever asks it.

The notation is explained in `meshlib.xds.schema.pool`.
"""

__all__ = ["STATUS"]

STATUS = """
package envoy.admin.v3

enum ClientResourceStatus UNKNOWN=0 REQUESTED=1 DOES_NOT_EXIST=2 ACKED=3 NACKED=4 RECEIVED_ERROR=5 TIMEOUT=6

message UpdateFailureState
   1 failed_configuration pb.Any
   2 last_update_attempt  pb.Timestamp
   3 details              string
   4 version_info         string

package envoy.service.status.v3

enum ConfigStatus UNKNOWN=0 SYNCED=1 NOT_SENT=2 STALE=3 ERROR=4

message ClientStatusRequest
   1 node_matchers             [opaque]
   2 node                      core.Node
   3 exclude_resource_contents bool

message ClientStatusResponse
   1 config [ClientConfig]

message ClientConfig
   1 node                core.Node
   2 xds_config          [opaque]
   3 generic_xds_configs [.GenericXdsConfig]
   4 client_scope        string

message ClientConfig.GenericXdsConfig
   1 type_url           string
   2 name               string
   3 version_info       string
   4 xds_config         pb.Any
   5 last_updated       pb.Timestamp
   6 config_status      ConfigStatus
   7 client_status      envoy.admin.v3.ClientResourceStatus
   8 error_state        envoy.admin.v3.UpdateFailureState
   9 is_static_resource bool
"""
