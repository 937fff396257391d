"""Wire table: load reports (LRS), and what an endpoint says of its own load (ORCA).

The notation is explained in `meshlib.xds.schema.pool`.
"""

__all__ = ["LOAD_STATS"]

LOAD_STATS = """
package envoy.service.load_stats.v3

message LoadStatsRequest
   1 node          core.Node
   2 cluster_stats [endpoint.ClusterStats]

message LoadStatsResponse
   1 clusters                    [string]
   4 send_all_clusters           bool
   2 load_reporting_interval     pb.Duration
   3 report_endpoint_granularity bool

package envoy.config.endpoint.v3

message ClusterStats
   1 cluster_name            string
   6 cluster_service_name    string
   2 upstream_locality_stats [UpstreamLocalityStats]
   3 total_dropped_requests  uint64
   5 dropped_requests        [.DroppedRequests]
   4 load_report_interval    pb.Duration

message ClusterStats.DroppedRequests
   1 category      string
   2 dropped_count uint64

message UpstreamLocalityStats
   1 locality                   core.Locality
   2 total_successful_requests  uint64
   3 total_requests_in_progress uint64
   4 total_error_requests       uint64
   8 total_issued_requests      uint64
  12 cpu_utilization            UnnamedEndpointLoadMetricStats
  13 mem_utilization            UnnamedEndpointLoadMetricStats
  14 application_utilization    UnnamedEndpointLoadMetricStats
   5 load_metric_stats          [EndpointLoadMetricStats]
   6 priority                   uint32

message EndpointLoadMetricStats
   1 metric_name                       string
   2 num_requests_finished_with_metric uint64
   3 total_metric_value                double

message UnnamedEndpointLoadMetricStats
   1 num_requests_finished_with_metric uint64
   2 total_metric_value                double

package xds.data.orca.v3

message OrcaLoadReport
   1 cpu_utilization         double
   2 mem_utilization         double
   3 rps                     uint64
   4 request_cost            map:double
   5 utilization             map:double
   6 rps_fractional          double
   7 eps                     double
   8 named_metrics           map:double
   9 application_utilization double

package xds.service.orca.v3

message OrcaLoadReportRequest
   1 report_interval    pb.Duration
   2 request_cost_names [string]
"""
