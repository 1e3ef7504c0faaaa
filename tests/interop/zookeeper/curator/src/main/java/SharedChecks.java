import static java.nio.charset.StandardCharsets.UTF_8;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Future;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.recipes.atomic.DistributedAtomicLong;
import org.apache.curator.framework.recipes.cache.CuratorCache;
import org.apache.curator.framework.recipes.cache.CuratorCacheListener;
import org.apache.curator.framework.recipes.nodes.GroupMember;
import org.apache.curator.framework.recipes.nodes.PersistentNode;
import org.apache.curator.framework.recipes.queue.DistributedQueue;
import org.apache.curator.framework.recipes.queue.QueueBuilder;
import org.apache.curator.framework.recipes.queue.QueueConsumer;
import org.apache.curator.framework.recipes.queue.QueueSerializer;
import org.apache.curator.framework.recipes.shared.SharedCount;
import org.apache.curator.framework.recipes.shared.VersionedValue;
import org.apache.curator.framework.recipes.watch.PersistentWatcher;
import org.apache.curator.framework.state.ConnectionState;
import org.apache.curator.retry.RetryNTimes;
import org.apache.zookeeper.CreateMode;

/** The recipes that share a value, a view or work. */
final class SharedChecks {
    private SharedChecks() {}

    static void sharedCount(Clients clients, String root) throws Exception {
        List<Future<Boolean>> tasks = new ArrayList<>();
        for (int n = 0; n < 3; n++) {
            SharedCount count = new SharedCount(clients.connect(n), root, 0);
            count.start();
            tasks.add(
                    clients.inThread(
                            () -> {
                                for (int added = 0; added < 10; ) {
                                    VersionedValue<Integer> before = count.getVersionedValue();
                                    if (count.trySetCount(before, before.getValue() + 1)) {
                                        added++;
                                    }
                                }
                                Clients.waitUntil(() -> count.getCount() == 30, "all to have counted");
                                count.close();
                                return true;
                            }));
        }
        for (Future<Boolean> each : tasks) {
            Clients.checkEquals(true, Clients.result(each));
        }
    }

    static void atomicLong(Clients clients, String root) throws Exception {
        for (int n = 0; n < 6; n++) {
            DistributedAtomicLong each =
                    new DistributedAtomicLong(clients.connect(n % 3), root, new RetryNTimes(20, 10));
            Clients.check(each.add(7L).succeeded(), "not added");
            Clients.checkEquals(7L * (n + 1), each.get().postValue());
        }
    }

    static void cache(Clients clients, String root) throws Exception {
        CuratorFramework writer = clients.connect(0);
        CuratorFramework reader = clients.connect(1);
        writer.create().creatingParentsIfNeeded().forPath(root + "/a/b", "1".getBytes(UTF_8));
        reader.sync().forPath(root);
        BlockingQueue<String> events = new LinkedBlockingQueue<>();
        try (CuratorCache cache = CuratorCache.build(reader, root)) {
            cache.listenable()
                    .addListener(
                            CuratorCacheListener.builder()
                                    .forInitialized(() -> events.add("initialized"))
                                    .forCreates(each -> events.add("created " + each.getPath()))
                                    .forChanges((old, each) -> events.add("changed " + each.getPath()))
                                    .forDeletes(each -> events.add("deleted " + each.getPath()))
                                    .build());
            cache.start();
            List<String> first = new ArrayList<>();
            for (int n = 0; n < 4; n++) {
                first.add(Clients.next(events));
            }
            Clients.check(first.containsAll(List.of("created " + root + "/a/b", "initialized")), first.toString());
            writer.setData().forPath(root + "/a/b", "2".getBytes(UTF_8));
            Clients.checkEquals("changed " + root + "/a/b", Clients.next(events));
            writer.create().forPath(root + "/a/c");
            Clients.checkEquals("created " + root + "/a/c", Clients.next(events));
            writer.delete().forPath(root + "/a/b");
            Clients.checkEquals("deleted " + root + "/a/b", Clients.next(events));
            Clients.checkEquals(3, cache.size());
            Clients.check(cache.get(root + "/a/b").isEmpty(), "it has what is deleted");
        }
    }

    static void persistentWatcher(Clients clients, String root) throws Exception {
        CuratorFramework writer = clients.connect(0);
        CuratorFramework reader = clients.connect(1);
        BlockingQueue<String> events = new LinkedBlockingQueue<>();
        BlockingQueue<String> resets = new LinkedBlockingQueue<>();
        try (PersistentWatcher watcher = new PersistentWatcher(reader, root, true)) {
            watcher.getListenable().addListener(event -> events.add(event.getType() + " " + event.getPath()));
            watcher.getResetListenable().addListener(() -> resets.add("set"));
            watcher.start();
            Clients.next(resets);
            writer.create().forPath(root);
            writer.create().forPath(root + "/a");
            writer.setData().forPath(root + "/a", new byte[] {1});
            writer.setData().forPath(root + "/a", new byte[] {2});
            writer.delete().forPath(root + "/a");
            String[] expected = {
                "NodeCreated " + root,
                "NodeCreated " + root + "/a",
                "NodeDataChanged " + root + "/a",
                "NodeDataChanged " + root + "/a",
                "NodeDeleted " + root + "/a",
            };
            for (String each : expected) {
                Clients.checkEquals(each, Clients.next(events));
            }
        }
    }

    static void persistentNode(Clients clients, String root) throws Exception {
        CuratorFramework owner = clients.connect(0);
        CuratorFramework other = clients.connect(1);
        try (PersistentNode node =
                new PersistentNode(owner, CreateMode.EPHEMERAL, false, root, new byte[] {1})) {
            node.start();
            Clients.check(node.waitForInitialCreate(30, TimeUnit.SECONDS), "not created");
            other.sync().forPath(root);
            long first = other.checkExists().forPath(root).getCzxid();
            other.delete().forPath(root);
            Clients.waitUntil(
                    () -> {
                        var stat = other.checkExists().forPath(root);
                        return stat != null && stat.getCzxid() != first;
                    },
                    "it to be created again");
        }
    }

    static void groupMember(Clients clients, String root) throws Exception {
        try (GroupMember one = new GroupMember(clients.connect(0), root, "one", new byte[] {1});
                GroupMember two = new GroupMember(clients.connect(1), root, "two", new byte[] {2})) {
            one.start();
            two.start();
            Clients.waitUntil(
                    () -> one.getCurrentMembers().size() == 2 && two.getCurrentMembers().size() == 2,
                    "both to see both");
            Map<String, byte[]> members = one.getCurrentMembers();
            Clients.checkEquals((byte) 2, members.get("two")[0]);
        }
    }

    static void queue(Clients clients, String root) throws Exception {
        checkQueue(clients, root, false);
    }

    static void queueWithLocks(Clients clients, String root) throws Exception {
        checkQueue(clients, root, true);
    }

    private static void checkQueue(Clients clients, String root, boolean hasLocks) throws Exception {
        BlockingQueue<String> taken = new LinkedBlockingQueue<>();
        List<DistributedQueue<String>> queues = new ArrayList<>();
        for (int n = 0; n < 2; n++) {
            QueueBuilder<String> builder =
                    QueueBuilder.builder(clients.connect(n), consumer(taken), new Text(), root + "/items");
            queues.add((hasLocks ? builder.lockPath(root + "/locks") : builder).buildQueue());
        }
        for (DistributedQueue<String> each : queues) {
            each.start();
        }
        List<String> missing = new ArrayList<>();
        for (int n = 0; n < 20; n++) {
            missing.add("item-" + n);
            queues.get(n % 2).put("item-" + n);
        }
        while (!missing.isEmpty()) {
            String item = Clients.next(taken);
            Clients.check(missing.remove(item), item + " was taken twice");
        }
        for (DistributedQueue<String> each : queues) {
            Clients.check(each.flushPuts(30, TimeUnit.SECONDS), "not put");
            each.close();
        }
        Clients.check(taken.isEmpty(), "more was taken than was put");
    }

    private static QueueConsumer<String> consumer(BlockingQueue<String> taken) {
        return new QueueConsumer<>() {
            @Override
            public void consumeMessage(String item) {
                taken.add(item);
            }

            @Override
            public void stateChanged(CuratorFramework client, ConnectionState state) {}
        };
    }

    private static final class Text implements QueueSerializer<String> {
        @Override
        public byte[] serialize(String item) {
            return item.getBytes(UTF_8);
        }

        @Override
        public String deserialize(byte[] data) {
            return new String(data, UTF_8);
        }
    }
}
