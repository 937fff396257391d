import com.google.gson.Gson;
import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.protobuf.Message;
import com.google.protobuf.util.JsonFormat;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import io.envoyproxy.controlplane.cache.NodeGroup;
import io.envoyproxy.controlplane.cache.v3.SimpleCache;
import io.envoyproxy.controlplane.cache.v3.Snapshot;
import io.envoyproxy.controlplane.server.V3DiscoveryServer;
import io.envoyproxy.envoy.config.cluster.v3.Cluster;
import io.envoyproxy.envoy.config.core.v3.Node;
import io.envoyproxy.envoy.config.endpoint.v3.ClusterLoadAssignment;
import io.envoyproxy.envoy.config.listener.v3.Listener;
import io.envoyproxy.envoy.config.route.v3.RouteConfiguration;
import io.envoyproxy.envoy.extensions.filters.http.router.v3.Router;
import io.envoyproxy.envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager;
import io.envoyproxy.envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy;
import io.grpc.Server;
import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Supplier;

/**
 * A control plane for tests: Envoy's java-control-plane behind a small HTTP page.
 *
 * <p>It serves discovery (state of the world and delta), aggregated and by type, in plain gRPC from
 * the library's cache, and takes the snapshots as JSON over HTTP, as ../go-control-plane does. When both listeners
 * are open it prints one JSON line with their addresses. It ends on SIGTERM and when its standard
 * input closes, so that it never outlives the test that started it.
 */
public final class Main {
  private static final JsonFormat.Parser PARSER =
      JsonFormat.parser()
          .usingTypeRegistry(
              JsonFormat.TypeRegistry.newBuilder()
                  .add(HttpConnectionManager.getDescriptor())
                  .add(Router.getDescriptor())
                  .add(TcpProxy.getDescriptor())
                  .build());

  private final SimpleCache<String> cache =
      new SimpleCache<>(
          new NodeGroup<String>() {
            @Override
            public String hash(Node node) {
              return node.getId();
            }
          });
  private final Streams streams = new Streams();

  public static void main(String[] arguments) throws IOException {
    Map<String, String> options = new HashMap<>();
    for (int i = 0; i + 1 < arguments.length; i += 2) {
      options.put(arguments[i].substring(1), arguments[i + 1]);
    }
    new Main().run(options);
  }

  private void run(Map<String, String> options) throws IOException {
    if (options.containsKey("preload")) {
      String text = Files.readString(Path.of(options.get("preload")));
      for (JsonElement body : JsonParser.parseString(text).getAsJsonArray()) {
        put(body.getAsJsonObject());
      }
    }
    V3DiscoveryServer discovery = new V3DiscoveryServer(streams, cache);
    Server xds =
        NettyServerBuilder.forAddress(address(options.get("xds")))
            .addService(discovery.getAggregatedDiscoveryServiceImpl())
            .addService(discovery.getListenerDiscoveryServiceImpl())
            .addService(discovery.getRouteDiscoveryServiceImpl())
            .addService(discovery.getClusterDiscoveryServiceImpl())
            .addService(discovery.getEndpointDiscoveryServiceImpl())
            .build()
            .start();
    HttpServer control = HttpServer.create(address(options.get("control")), 0);
    control.createContext("/", this::answer);
    control.start();
    System.out.println(
        new Gson()
            .toJson(
                Map.of(
                    "xds", "127.0.0.1:" + xds.getPort(),
                    "control", "127.0.0.1:" + control.getAddress().getPort())));
    while (System.in.read() >= 0) {
      // Only its end says something.
    }
    System.exit(0);
  }

  private static InetSocketAddress address(String text) {
    int colon = text.lastIndexOf(':');
    return new InetSocketAddress(
        text.substring(0, colon), Integer.parseInt(text.substring(colon + 1)));
  }

  /** The control page. Every answer is JSON; an error has one field, "error". */
  private void answer(HttpExchange exchange) throws IOException {
    String asked = exchange.getRequestMethod() + " " + exchange.getRequestURI().getPath();
    String body = new String(exchange.getRequestBody().readAllBytes(), StandardCharsets.UTF_8);
    int status = 200;
    Object said;
    try {
      switch (asked) {
        case "PUT /snapshot" -> said = put(JsonParser.parseString(body).getAsJsonObject());
        case "GET /streams" -> said = streams.report();
        default -> throw new IllegalArgumentException(asked + ": there is no such page");
      }
    } catch (IOException | RuntimeException problem) {
      status = 400;
      said = Map.of("error", String.valueOf(problem.getMessage()));
    }
    byte[] text = new Gson().toJson(said).getBytes(StandardCharsets.UTF_8);
    exchange.getResponseHeaders().set("content-type", "application/json");
    exchange.sendResponseHeaders(status, text.length);
    exchange.getResponseBody().write(text);
    exchange.close();
  }

  /** Serves one snapshot, the whole state of its node. */
  private Map<String, String> put(JsonObject body) throws IOException {
    String node = body.get("node").getAsString();
    String version = body.get("version").getAsString();
    Snapshot snapshot =
        Snapshot.create(
            items(body, "clusters", Cluster::newBuilder, Cluster.class),
            items(body, "endpoints", ClusterLoadAssignment::newBuilder, ClusterLoadAssignment.class),
            items(body, "listeners", Listener::newBuilder, Listener.class),
            items(body, "routes", RouteConfiguration::newBuilder, RouteConfiguration.class),
            List.of(),
            version);
    cache.setSnapshot(node, snapshot);
    return Map.of("node", node, "version", version);
  }

  private static <T extends Message> List<T> items(
      JsonObject body, String name, Supplier<Message.Builder> builder, Class<T> type)
      throws IOException {
    List<T> list = new ArrayList<>();
    JsonArray given = body.has(name) ? body.getAsJsonArray(name) : new JsonArray();
    for (JsonElement text : given) {
      Message.Builder item = builder.get();
      PARSER.merge(text.toString(), item);
      list.add(type.cast(item.build()));
    }
    return list;
  }
}
