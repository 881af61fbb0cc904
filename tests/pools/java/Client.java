// A client with the pool of java.net.http.HttpClient: works off a plan (tests/src/pools/plan.rs) and says what came of it.

import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.ThreadLocalRandom;

public final class Client {
    private static final int USUAL = 64 << 10;
    private static final int LONGEST = 512 << 10;
    private static final Duration PATIENCE = Duration.ofSeconds(30);

    private record Kind(String name, List<String> servers, String header, String value) {}

    private Path stop;
    private int workers;
    private int pause;
    private final List<String[]> headers = new ArrayList<>();
    private final List<String> urls = new ArrayList<>();
    private final Map<String, byte[]> streams = new TreeMap<>();
    private final List<Kind> kinds = new ArrayList<>();
    private final Map<List<String>, Integer> served = new java.util.HashMap<>();
    private final HttpClient http =
        HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).connectTimeout(PATIENCE).build();

    private Client(Path plan) throws IOException {
        for (String line : Files.readAllLines(plan)) {
            String[] words = line.split(" ");
            switch (words[0]) {
                case "stop" -> stop = Path.of(words[1]);
                case "workers" -> workers = Integer.parseInt(words[1]);
                case "pause" -> pause = Integer.parseInt(words[1]);
                case "header" -> headers.add(new String[] {words[1], words[2]});
                case "url" -> urls.add(words[1]);
                case "stream" -> streams.put(words[1], Files.readAllBytes(Path.of(words[2])));
                case "kind" -> kinds.add(new Kind(words[1], List.of(words[2].split(",")),
                    words.length > 4 ? words[3] : null, words.length > 4 ? words[4] : null));
                default -> throw new IOException("unknown line: " + line);
            }
        }
    }

    private static int below(int bound) {
        return ThreadLocalRandom.current().nextInt(bound);
    }

    private static <T> T pick(List<T> items) {
        return items.get(below(items.size()));
    }

    private static long now() {
        return ChronoUnit.MICROS.between(Instant.EPOCH, Instant.now());
    }

    private static String quoted(String text) {
        StringBuilder out = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            if (c == '"' || c == '\\' || c < ' ' || c > '~') {
                out.append(String.format("\\u%04x", (int) c));
            } else {
                out.append(c);
            }
        }
        return out.append('"').toString();
    }

    private static synchronized void say(String line) {
        System.out.println(line);
    }

    private void exchange() throws InterruptedException {
        Kind kind = pick(kinds);
        int length = below(below(50) == 0 ? LONGEST : USUAL);
        String method = "GET";
        String target = "/bytes/" + length;
        byte[] sends = new byte[0];
        HttpRequest.BodyPublisher body = BodyPublishers.noBody();
        int roll = below(100);
        if (roll < 15) {
            target = "/chunked/" + length + "/5";
        } else if (roll < 20) {
            method = "HEAD";
        } else if (roll < 60) {
            method = "POST";
            target = "/mirror";
            byte[] stream = pick(List.copyOf(streams.values()));
            int from = below(stream.length - length);
            sends = Arrays.copyOfRange(stream, from, from + length);
            byte[] bytes = sends;
            // Of a stream nobody knows the length: it is chunked.
            body = roll < 30
                ? BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(bytes)) : BodyPublishers.ofByteArray(sends);
        }
        long sent = now();
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(pick(urls) + target)).timeout(PATIENCE)
            .header("x-kind", kind.name()).header("x-sent", Long.toString(sent)).method(method, body);
        headers.forEach(header -> request.header(header[0], header[1]));
        if (kind.header() != null) {
            request.header(kind.header(), kind.value());
        }
        String text = method + " " + target + " of " + length + " bytes";
        HttpResponse<byte[]> response;
        try {
            response = http.send(request.build(), BodyHandlers.ofByteArray());
        } catch (IOException error) {
            bad("failed", kind, text, error.toString(), sent);
            return;
        }
        String server = response.headers().firstValue("x-served-by").orElse("");
        byte[] got = response.body();
        byte[] due = method.equals("GET")
            ? Arrays.copyOf(streams.getOrDefault(server, new byte[0]), length) : sends;
        if (response.statusCode() != 200) {
            bad("wrong", kind, text, "status " + response.statusCode(), sent);
        } else if (!kind.servers().contains(server)) {
            bad("wrong", kind, text, "served by " + server, sent);
        } else if (!Arrays.equals(got, due)) {
            bad("wrong", kind, text, got.length + " bytes of " + server + " are not the " + due.length + " that are due", sent);
        } else {
            synchronized (served) {
                served.merge(List.of(kind.name(), server), 1, Integer::sum);
            }
        }
    }

    private void bad(String outcome, Kind kind, String request, String error, long sent) {
        say("{\"outcome\":\"" + outcome + "\",\"kind\":" + quoted(kind.name()) + ",\"request\":" + quoted(request)
            + ",\"error\":" + quoted(error) + ",\"sent\":" + sent + ",\"ended\":" + now() + "}");
    }

    private void work() {
        try {
            while (!Files.exists(stop)) {
                exchange();
                Thread.sleep(below(pause));
            }
        } catch (InterruptedException stopped) {
            Thread.currentThread().interrupt();
        }
    }

    public static void main(String[] arguments) throws Exception {
        Client client = new Client(Path.of(arguments[0]));
        List<Thread> threads = new ArrayList<>();
        for (int worker = 0; worker < client.workers; worker++) {
            Thread thread = new Thread(client::work);
            thread.start();
            threads.add(thread);
        }
        for (Thread thread : threads) {
            thread.join();
        }
        client.served.forEach((of, count) -> say("{\"outcome\":\"served\",\"kind\":" + quoted(of.get(0)) + ",\"server\":"
            + quoted(of.get(1)) + ",\"count\":" + count + "}"));
        say("{\"outcome\":\"end\"}");
        System.exit(0);
    }
}
