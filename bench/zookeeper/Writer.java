import java.net.InetSocketAddress;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.Watcher;
import org.apache.zookeeper.ZooDefs;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.client.StaticHostProvider;

/** As bench/failover_writer.py, which tells what the arguments and the output are. */
public final class Writer {
    private static volatile boolean stopping;

    /** ZooKeeper's client tells only those that extend it which server it is connected to. */
    private static final class Client extends ZooKeeper {
        Client(String endpoints, int timeoutMs, Watcher watcher, StaticHostProvider hosts)
                throws Exception {
            super(endpoints, timeoutMs, watcher, false, hosts);
        }

        String endpoint() {
            InetSocketAddress address = (InetSocketAddress) testableRemoteSocketAddress();
            return address == null
                    ? "-"
                    : address.getAddress().getHostAddress() + ":" + address.getPort();
        }
    }

    public static void main(String[] arguments) throws Exception {
        String endpoints = arguments[0];
        String path = arguments[1];
        int timeoutMs = Integer.parseInt(arguments[2]);
        long intervalNs = Long.parseLong(arguments[3]) * 1_000_000;
        int dataBytes = Integer.parseInt(arguments[4]);
        Thread input = new Thread(Writer::waitForEnd);
        input.setDaemon(true);
        input.start();
        boolean isNew = true;
        while (!stopping) {
            Client client = connect(endpoints, timeoutMs);
            if (isNew) {
                client.create(path, new byte[0], ZooDefs.Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
                isNew = false;
            }
            write(client, path, intervalNs, dataBytes);
            if (stopping) {
                // A write's answer is never behind, as that of a read may be at a new server.
                int version = client.setData(path, new byte[0], -1).getVersion();
                System.out.println("version " + (version - 1));
            }
            client.close();
        }
    }

    private static void waitForEnd() {
        try {
            while (System.in.read() >= 0) {}
        } catch (java.io.IOException error) {
            throw new java.io.UncheckedIOException(error);
        } finally {
            stopping = true;
        }
    }

    private static Client connect(String endpoints, int timeoutMs) throws Exception {
        CountDownLatch connected = new CountDownLatch(1);
        Watcher watcher =
                event -> {
                    if (event.getState() == Watcher.Event.KeeperState.SyncConnected) {
                        connected.countDown();
                    }
                };
        Client client = new Client(endpoints, timeoutMs, watcher, hosts(endpoints));
        connected.await();
        return client;
    }

    /** ZooKeeper's own list of servers, in one of its random orders that begin with the first. */
    private static StaticHostProvider hosts(String endpoints) {
        List<InetSocketAddress> addresses = new ArrayList<>();
        for (String endpoint : endpoints.split(",")) {
            int colon = endpoint.lastIndexOf(':');
            int port = Integer.parseInt(endpoint.substring(colon + 1));
            addresses.add(InetSocketAddress.createUnresolved(endpoint.substring(0, colon), port));
        }
        for (long seed = System.nanoTime(); ; seed++) {
            StaticHostProvider hosts = new StaticHostProvider(addresses, seed);
            if (hosts.getServerAtIndex(0).equals(addresses.get(0))) {
                return hosts;
            }
        }
    }

    /** Until the end, or the session's. */
    private static void write(Client client, String path, long intervalNs, int dataBytes)
            throws Exception {
        for (int number = 1; !stopping; number++) {
            long sent = System.nanoTime();
            try {
                client.setData(path, String.format("%0" + dataBytes + "d", number).getBytes(), -1);
                print("acked", sent, client.endpoint());
            } catch (KeeperException error) {
                print("failed", sent, error.code().name());
                if (error instanceof KeeperException.SessionExpiredException) {
                    System.out.println("session " + seconds(System.nanoTime()));
                    return;
                }
            }
            long pauseNs = sent + intervalNs - System.nanoTime();
            if (pauseNs > 0) {
                Thread.sleep(pauseNs / 1_000_000, (int) (pauseNs % 1_000_000));
            }
        }
    }

    private static void print(String word, long sent, String rest) {
        String times = seconds(sent) + " " + seconds(System.nanoTime());
        System.out.println(word + " " + times + " " + rest);
    }

    /** As a whole number and a fraction: a double of such a size would do, but its text would not. */
    private static String seconds(long ns) {
        return String.format("%d.%09d", ns / 1_000_000_000, ns % 1_000_000_000);
    }
}
