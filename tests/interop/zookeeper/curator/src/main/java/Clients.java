import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.retry.RetryForever;
import org.apache.curator.retry.RetryOneTime;

/** Clients that end with the block, each on a replica of its own, and threads for what blocks. */
final class Clients implements AutoCloseable {
    static final int PATIENCE_SECONDS = 30;
    static final int SESSION_MS = 10_000;
    static final int LONG_SESSION_MS = 30_000;

    private final String[] hosts;
    private final List<CuratorFramework> clients = new ArrayList<>();
    private final ExecutorService threads = Executors.newCachedThreadPool();

    Clients(String[] hosts) {
        this.hosts = hosts;
    }

    /** A client of one replica. */
    CuratorFramework connect(int replica) throws Exception {
        return started(builder(hosts[replica % hosts.length]).retryPolicy(new RetryOneTime(1_000)));
    }

    /** A client of all replicas, which asks again for as long as it takes. */
    CuratorFramework connectToAll() throws Exception {
        return started(
                builder(String.join(",", hosts))
                        .sessionTimeoutMs(LONG_SESSION_MS)
                        .retryPolicy(new RetryForever(100)));
    }

    CuratorFramework started(CuratorFrameworkFactory.Builder builder) throws Exception {
        CuratorFramework client = builder.build();
        clients.add(client);
        client.start();
        check(client.blockUntilConnected(PATIENCE_SECONDS, TimeUnit.SECONDS), "not connected");
        return client;
    }

    CuratorFrameworkFactory.Builder builder(int replica) {
        return builder(hosts[replica % hosts.length]).retryPolicy(new RetryOneTime(1_000));
    }

    private static CuratorFrameworkFactory.Builder builder(String address) {
        return CuratorFrameworkFactory.builder()
                .connectString(address)
                .sessionTimeoutMs(SESSION_MS)
                .connectionTimeoutMs(PATIENCE_SECONDS * 1_000);
    }

    <T> Future<T> inThread(Callable<T> task) {
        return threads.submit(task);
    }

    static <T> T result(Future<T> task) throws Exception {
        return task.get(PATIENCE_SECONDS, TimeUnit.SECONDS);
    }

    static void check(boolean isTrue, String what) {
        if (!isTrue) {
            throw new AssertionError(what);
        }
    }

    static void checkEquals(Object expected, Object found) {
        check(expected.equals(found), "expected " + expected + ", found " + found);
    }

    static void waitUntil(Callable<Boolean> condition, String what) throws Exception {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(PATIENCE_SECONDS);
        while (!condition.call()) {
            check(System.nanoTime() < deadline, "waited in vain for " + what);
            Thread.sleep(20);
        }
    }

    /** The next one that arrives. */
    static <T> T next(BlockingQueue<T> queue) throws Exception {
        T found = queue.poll(PATIENCE_SECONDS, TimeUnit.SECONDS);
        check(found != null, "waited in vain for an event");
        return found;
    }

    @Override
    public void close() {
        threads.shutdownNow();
        for (CuratorFramework each : clients) {
            each.close();
        }
    }
}
