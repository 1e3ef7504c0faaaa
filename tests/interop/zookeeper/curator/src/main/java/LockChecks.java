import java.util.ArrayList;
import java.util.Collection;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Future;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.recipes.barriers.DistributedDoubleBarrier;
import org.apache.curator.framework.recipes.leader.LeaderLatch;
import org.apache.curator.framework.recipes.leader.LeaderSelector;
import org.apache.curator.framework.recipes.leader.LeaderSelectorListenerAdapter;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.framework.recipes.locks.InterProcessReadWriteLock;
import org.apache.curator.framework.recipes.locks.InterProcessSemaphoreV2;
import org.apache.curator.framework.recipes.locks.Lease;

/** The recipes that let one or some in, or all at once. */
final class LockChecks {
    private static final int CLIENTS = 3;

    private LockChecks() {}

    static void mutex(Clients clients, String root) throws Exception {
        AtomicInteger inside = new AtomicInteger();
        List<Future<Integer>> tasks = new ArrayList<>();
        for (int n = 0; n < CLIENTS; n++) {
            CuratorFramework client = clients.connect(n);
            tasks.add(
                    clients.inThread(
                            () -> {
                                InterProcessMutex mutex = new InterProcessMutex(client, root);
                                int entered = 0;
                                for (int round = 0; round < 5; round++) {
                                    mutex.acquire();
                                    mutex.acquire(); // It may be entered again by its holder.
                                    Clients.checkEquals(1, inside.incrementAndGet());
                                    client.checkExists().forPath(root);
                                    Clients.checkEquals(0, inside.decrementAndGet());
                                    mutex.release();
                                    mutex.release();
                                    entered++;
                                }
                                return entered;
                            }));
        }
        for (Future<Integer> each : tasks) {
            Clients.checkEquals(5, Clients.result(each));
        }
    }

    static void readWriteLock(Clients clients, String root) throws Exception {
        InterProcessReadWriteLock one = new InterProcessReadWriteLock(clients.connect(0), root);
        InterProcessReadWriteLock two = new InterProcessReadWriteLock(clients.connect(1), root);
        one.readLock().acquire();
        Clients.check(two.readLock().acquire(10, TimeUnit.SECONDS), "no second reader");
        Clients.check(!two.writeLock().acquire(200, TimeUnit.MILLISECONDS), "a writer among readers");
        two.readLock().release();
        one.readLock().release();
        Clients.check(two.writeLock().acquire(10, TimeUnit.SECONDS), "no writer");
        Clients.check(!one.readLock().acquire(200, TimeUnit.MILLISECONDS), "a reader beside the writer");
        two.writeLock().release();
    }

    static void semaphore(Clients clients, String root) throws Exception {
        InterProcessSemaphoreV2 one = new InterProcessSemaphoreV2(clients.connect(0), root, 2);
        InterProcessSemaphoreV2 two = new InterProcessSemaphoreV2(clients.connect(1), root, 2);
        Lease first = one.acquire();
        two.acquire();
        Clients.check(two.acquire(200, TimeUnit.MILLISECONDS) == null, "a third lease of two");
        Future<Lease> third = clients.inThread(() -> two.acquire());
        one.returnLease(first);
        Clients.check(Clients.result(third) != null, "no lease");
    }

    static void leaderLatch(Clients clients, String root) throws Exception {
        Set<LeaderLatch> latches = new HashSet<>();
        for (int n = 0; n < CLIENTS; n++) {
            LeaderLatch latch = new LeaderLatch(clients.connect(n), root, "client-" + n);
            latch.start();
            latches.add(latch);
        }
        while (!latches.isEmpty()) {
            Clients.waitUntil(
                    () -> latches.stream().anyMatch(LeaderLatch::hasLeadership), "one to lead");
            List<LeaderLatch> leading = latches.stream().filter(LeaderLatch::hasLeadership).toList();
            Clients.checkEquals(1, leading.size());
            for (LeaderLatch each : latches) {
                Clients.waitUntil(
                        () -> each.getLeader().getId().equals(leading.get(0).getId()), "one view");
            }
            leading.get(0).close();
            latches.remove(leading.get(0));
        }
    }

    static void leaderSelector(Clients clients, String root) throws Exception {
        AtomicInteger leading = new AtomicInteger();
        BlockingQueue<Integer> led = new LinkedBlockingQueue<>();
        for (int n = 0; n < CLIENTS; n++) {
            int number = n;
            LeaderSelector selector =
                    new LeaderSelector(
                            clients.connect(n),
                            root,
                            new LeaderSelectorListenerAdapter() {
                                @Override
                                public void takeLeadership(CuratorFramework client) throws Exception {
                                    Clients.checkEquals(1, leading.incrementAndGet());
                                    client.checkExists().forPath(root);
                                    leading.decrementAndGet();
                                    led.add(number);
                                }
                            });
            selector.start();
        }
        Set<Integer> found = new HashSet<>();
        for (int n = 0; n < CLIENTS; n++) {
            found.add(Clients.next(led));
        }
        Clients.checkEquals(Set.of(0, 1, 2), found);
    }

    static void doubleBarrier(Clients clients, String root) throws Exception {
        AtomicInteger entering = new AtomicInteger();
        AtomicInteger leaving = new AtomicInteger();
        CountDownLatch allInside = new CountDownLatch(CLIENTS);
        Collection<Future<Boolean>> tasks = new ArrayList<>();
        for (int n = 0; n < CLIENTS; n++) {
            DistributedDoubleBarrier barrier =
                    new DistributedDoubleBarrier(clients.connect(n), root, CLIENTS);
            tasks.add(
                    clients.inThread(
                            () -> {
                                entering.incrementAndGet();
                                Clients.check(barrier.enter(30, TimeUnit.SECONDS), "not entered");
                                Clients.checkEquals(CLIENTS, entering.get());
                                allInside.countDown();
                                leaving.incrementAndGet();
                                Clients.check(barrier.leave(30, TimeUnit.SECONDS), "not left");
                                Clients.checkEquals(CLIENTS, leaving.get());
                                return true;
                            }));
        }
        for (Future<Boolean> each : tasks) {
            Clients.checkEquals(true, Clients.result(each));
        }
        Clients.checkEquals(0L, allInside.getCount());
    }
}
