import io.envoyproxy.controlplane.server.DiscoveryServerCallbacks;
import io.envoyproxy.envoy.service.discovery.v3.DeltaDiscoveryRequest;
import io.envoyproxy.envoy.service.discovery.v3.DeltaDiscoveryResponse;
import io.envoyproxy.envoy.service.discovery.v3.DiscoveryRequest;
import io.envoyproxy.envoy.service.discovery.v3.DiscoveryResponse;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;

/** Every open stream, and what it last said about each type. The monitor guards all. */
final class Streams implements DiscoveryServerCallbacks {
  /** Its public part is what the control page tells. */
  private static final class Watch {
    Set<String> names = new TreeSet<>();
    String sent = ""; // version of the last response
    String acked = ""; // version that was accepted last
    int requests;
    int nacks;
    String error = ""; // of the last request; empty after an ACK
    transient Map<String, String> versions = new HashMap<>(); // of delta responses, by nonce

    void asked(String version, boolean nack, String problem) {
      requests++;
      acked = version;
      error = problem;
      nacks += nack ? 1 : 0;
    }
  }

  private static final class Stream {
    long id;
    String node = "";
    boolean delta;
    Map<String, Watch> types = new TreeMap<>();
  }

  private final Map<Long, Stream> open = new TreeMap<>();
  private int opened;

  synchronized Map<String, Object> report() {
    List<Map<String, Object>> list = new ArrayList<>();
    for (Stream stream : open.values()) {
      Map<String, Object> types = new TreeMap<>();
      stream.types.forEach((url, watch) -> types.put(url, copy(watch)));
      list.add(
          Map.of("id", stream.id, "node", stream.node, "delta", stream.delta, "types", types));
    }
    return Map.of("streams", list, "opened", opened);
  }

  private static Map<String, Object> copy(Watch watch) {
    return Map.of(
        "names", List.copyOf(watch.names),
        "sent", watch.sent,
        "acked", watch.acked,
        "requests", watch.requests,
        "nacks", watch.nacks,
        "error", watch.error);
  }

  @Override
  public synchronized void onStreamOpen(long id, String typeUrl) {
    Stream stream = new Stream();
    stream.id = id;
    open.put(id, stream);
    opened++;
  }

  @Override
  public synchronized void onStreamClose(long id, String typeUrl) {
    open.remove(id);
  }

  @Override
  public synchronized void onStreamCloseWithError(long id, String typeUrl, Throwable error) {
    open.remove(id);
  }

  @Override
  public synchronized void onV3StreamRequest(long id, DiscoveryRequest request) {
    Watch watch = watch(id, request.getTypeUrl(), request.getNode().getId(), false);
    watch.names = new TreeSet<>(request.getResourceNamesList());
    watch.asked(
        request.getVersionInfo(), request.hasErrorDetail(), request.getErrorDetail().getMessage());
  }

  @Override
  public synchronized void onV3StreamDeltaRequest(long id, DeltaDiscoveryRequest request) {
    Watch watch = watch(id, request.getTypeUrl(), request.getNode().getId(), true);
    watch.names.addAll(request.getResourceNamesSubscribeList());
    watch.names.removeAll(request.getResourceNamesUnsubscribeList());
    String version = watch.versions.remove(request.getResponseNonce());
    boolean kept = version == null || request.hasErrorDetail();
    watch.asked(
        kept ? watch.acked : version,
        request.hasErrorDetail(),
        request.getErrorDetail().getMessage());
  }

  @Override
  public synchronized void onV3StreamResponse(
      long id, DiscoveryRequest request, DiscoveryResponse response) {
    watch(id, response.getTypeUrl(), "", false).sent = response.getVersionInfo();
  }

  @Override
  public synchronized void onV3StreamDeltaResponse(
      long id, DeltaDiscoveryRequest request, DeltaDiscoveryResponse response) {
    Watch watch = watch(id, response.getTypeUrl(), "", true);
    watch.sent = response.getSystemVersionInfo();
    watch.versions.put(response.getNonce(), watch.sent);
  }

  private Watch watch(long id, String typeUrl, String node, boolean delta) {
    Stream stream = open.computeIfAbsent(id, unused -> new Stream());
    stream.node = node.isEmpty() ? stream.node : node;
    stream.delta = delta;
    return stream.types.computeIfAbsent(typeUrl, unused -> new Watch());
  }
}
