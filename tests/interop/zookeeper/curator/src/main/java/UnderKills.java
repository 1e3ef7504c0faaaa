import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.recipes.cache.CuratorCache;
import org.apache.curator.framework.recipes.leader.LeaderLatch;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.data.Stat;

/**
 * Recipes that go on while somebody kills replicas. Holders of the mutex draw fencing tokens: the
 * version of a znode, which each of them raises. A later holder has a higher one, or the mutex had
 * two holders at a time.
 */
final class UnderKills {
    private static final int CLIENTS = 3;

    private UnderKills() {}

    static void run(Clients clients, String root, int seconds) throws Exception {
        CuratorFramework first = clients.connectToAll();
        first.create().creatingParentsIfNeeded().forPath(root + "/fence", new byte[0]);
        first.create().forPath(root + "/count", new byte[CLIENTS * Integer.BYTES]);
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(seconds);
        AtomicInteger inside = new AtomicInteger();
        AtomicLong lastToken = new AtomicLong(-1);
        List<Future<Integer>> holders = new ArrayList<>();
        List<Future<Integer>> counters = new ArrayList<>();
        List<LeaderLatch> latches = new ArrayList<>();
        for (int n = 0; n < CLIENTS; n++) {
            CuratorFramework client = clients.connectToAll();
            int own = n;
            holders.add(clients.inThread(() -> hold(client, root, deadline, inside, lastToken)));
            counters.add(clients.inThread(() -> count(client, root + "/count", own, deadline)));
            LeaderLatch latch = new LeaderLatch(client, root + "/latch");
            latch.start();
            latches.add(latch);
        }
        try (CuratorCache cache = CuratorCache.build(first, root + "/count")) {
            cache.start();
            int entered = 0;
            for (Future<Integer> each : holders) {
                entered += each.get(seconds + 60, TimeUnit.SECONDS);
            }
            int counted = 0;
            for (Future<Integer> each : counters) {
                counted += each.get(seconds + 60, TimeUnit.SECONDS);
            }
            check(clients, root, cache, entered, counted);
        }
        Clients.waitUntil(() -> latches.stream().filter(LeaderLatch::hasLeadership).count() == 1, "one leader");
        for (LeaderLatch each : latches) {
            each.close();
        }
    }

    private static void check(Clients clients, String root, CuratorCache cache, int entered, int counted)
            throws Exception {
        CuratorFramework client = clients.connectToAll();
        client.sync().forPath(root);
        byte[] numbers = client.getData().forPath(root + "/count");
        int found = 0;
        for (int n = 0; n < CLIENTS; n++) {
            found += ByteBuffer.wrap(numbers).getInt(n * Integer.BYTES);
        }
        System.out.println("entered " + entered + ", counted " + counted);
        Clients.check(entered > 0 && counted > 0, "nothing was done");
        Clients.checkEquals(counted, found);
        Clients.waitUntil(
                () ->
                        cache.get(root + "/count")
                                .map(each -> Arrays.equals(each.getData(), numbers))
                                .orElse(false),
                "the cache to have the last value");
    }

    /** How often the mutex was entered. */
    private static int hold(
            CuratorFramework client, String root, long deadline, AtomicInteger inside, AtomicLong lastToken)
            throws Exception {
        InterProcessMutex mutex = new InterProcessMutex(client, root + "/mutex");
        int entered = 0;
        while (System.nanoTime() < deadline) {
            if (!mutex.acquire(5, TimeUnit.SECONDS)) {
                continue;
            }
            try {
                Clients.checkEquals(1, inside.incrementAndGet());
                Stat stat = client.setData().forPath(root + "/fence", new byte[0]);
                long before = lastToken.getAndSet(stat.getVersion());
                Clients.check(before < stat.getVersion(), before + " before " + stat.getVersion());
                entered++;
                Clients.checkEquals(0, inside.decrementAndGet());
            } finally {
                mutex.release();
            }
            Thread.sleep(20);
        }
        return entered;
    }

    /**
     * Raises the client's own number, beside those of the others in one znode, by compare and set.
     * So when an answer was lost, the number itself tells whether the addition was done.
     */
    private static int count(CuratorFramework client, String path, int own, long deadline) throws Exception {
        int counted = 0;
        while (System.nanoTime() < deadline) {
            Stat stat = new Stat();
            ByteBuffer numbers = ByteBuffer.wrap(client.getData().storingStatIn(stat).forPath(path));
            if (numbers.getInt(own * Integer.BYTES) > counted) {
                counted++; // The write before: it was done, and its answer was lost.
                continue;
            }
            numbers.putInt(own * Integer.BYTES, counted + 1);
            try {
                client.setData().withVersion(stat.getVersion()).forPath(path, numbers.array());
                counted++;
            } catch (KeeperException.BadVersionException raised) {
                // By another client, or by this write before it was sent again.
            }
            Thread.sleep(20);
        }
        return counted + (isUncounted(client, path, own, counted) ? 1 : 0);
    }

    private static boolean isUncounted(CuratorFramework client, String path, int own, int counted)
            throws Exception {
        client.sync().forPath(path);
        return ByteBuffer.wrap(client.getData().forPath(path)).getInt(own * Integer.BYTES) > counted;
    }
}
