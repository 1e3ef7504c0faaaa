import static java.nio.charset.StandardCharsets.UTF_8;

import java.util.Arrays;
import java.util.List;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.api.transaction.CuratorTransactionResult;
import org.apache.curator.framework.api.transaction.OperationType;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.ZooDefs;
import org.apache.zookeeper.data.ACL;
import org.apache.zookeeper.data.Id;
import org.apache.zookeeper.data.Stat;

/** What the framework below the recipes does. */
final class ZnodeChecks {
    private ZnodeChecks() {}

    static void session(Clients clients, String root) throws Exception {
        CuratorFramework one = clients.connect(0);
        int agreedMs = one.getZookeeperClient().getZooKeeper().getSessionTimeout();
        Clients.checkEquals(Clients.SESSION_MS, agreedMs);
        CuratorFramework patient = clients.started(clients.builder(1).sessionTimeoutMs(3_600_000));
        int mostMs = patient.getZookeeperClient().getZooKeeper().getSessionTimeout();
        Clients.check(mostMs < 3_600_000, "a session of " + mostMs + " ms");
    }

    static void znodes(Clients clients, String root) throws Exception {
        CuratorFramework one = clients.connect(0);
        CuratorFramework two = clients.connect(1);
        Stat made = new Stat();
        one.create().storingStatIn(made).forPath(root, "data".getBytes(UTF_8));
        two.sync().forPath(root);
        Stat read = new Stat();
        byte[] data = two.getData().storingStatIn(read).forPath(root);
        Clients.checkEquals("data", new String(data, UTF_8));
        Clients.checkEquals(made, read);
        two.setData().withVersion(0).forPath(root, "more".getBytes(UTF_8));
        try {
            one.setData().withVersion(0).forPath(root, new byte[0]);
            throw new AssertionError("a set of an old version");
        } catch (KeeperException.BadVersionException expected) {
            Clients.checkEquals(root, expected.getPath());
        }
        String name =
                one.create().withProtection().withMode(CreateMode.EPHEMERAL_SEQUENTIAL).forPath(root + "/n-");
        Clients.check(name.endsWith("n-0000000000"), name);
        one.create().orSetData().forPath(root, "or set".getBytes(UTF_8));
        Clients.checkEquals("or set", new String(one.getData().forPath(root), UTF_8));
        one.delete().guaranteed().deletingChildrenIfNeeded().forPath(root);
        Clients.check(one.checkExists().forPath(root) == null, "it is still there");
        one.delete().quietly().forPath(root);
    }

    static void parents(Clients clients, String root) throws Exception {
        CuratorFramework one = clients.connect(0);
        one.create().creatingParentsIfNeeded().forPath(root + "/a/b/c", new byte[] {1});
        Clients.checkEquals(List.of("b"), one.getChildren().forPath(root + "/a"));
        CuratorFramework below = one.usingNamespace(root.substring(1));
        Clients.checkEquals(List.of("c"), below.getChildren().forPath("/a/b"));
        CuratorFramework chrooted = clients.started(clients.builder(1).namespace(root.substring(1) + "/a"));
        chrooted.sync().forPath("/b");
        Clients.check(Arrays.equals(new byte[] {1}, chrooted.getData().forPath("/b/c")), "other data");
    }

    static void transactions(Clients clients, String root) throws Exception {
        CuratorFramework one = clients.connect(0);
        one.create().forPath(root);
        List<CuratorTransactionResult> results =
                one.transaction()
                        .forOperations(
                                one.transactionOp().check().withVersion(0).forPath(root),
                                one.transactionOp().create().forPath(root + "/a", new byte[] {1}),
                                one.transactionOp().setData().withVersion(0).forPath(root + "/a"),
                                one.transactionOp()
                                        .create()
                                        .withMode(CreateMode.PERSISTENT_SEQUENTIAL)
                                        .forPath(root + "/n-"),
                                one.transactionOp().delete().withVersion(1).forPath(root + "/a"));
        Clients.checkEquals(5, results.size());
        Clients.checkEquals(OperationType.CHECK, results.get(0).getType());
        Clients.checkEquals(root + "/a", results.get(1).getResultPath());
        Clients.checkEquals(1, results.get(2).getResultStat().getVersion());
        Clients.checkEquals(root + "/n-0000000001", results.get(3).getResultPath());
        try {
            one.transaction()
                    .forOperations(
                            one.transactionOp().create().forPath(root + "/b"),
                            one.transactionOp().delete().forPath(root + "/none"));
            throw new AssertionError("half a transaction");
        } catch (KeeperException.NoNodeException expected) {
            Clients.checkEquals(2, expected.getResults().size());
        }
        Clients.checkEquals(List.of("n-0000000001"), one.getChildren().forPath(root));
    }

    static void acls(Clients clients, String root) throws Exception {
        CuratorFramework owner =
                clients.started(clients.builder(0).authorization("digest", "jan:secret".getBytes(UTF_8)));
        CuratorFramework guest = clients.connect(1);
        owner.create().withACL(ZooDefs.Ids.CREATOR_ALL_ACL).forPath(root, new byte[] {1});
        List<ACL> found = owner.getACL().forPath(root);
        Id id = new Id("digest", "jan:LI7LZagmoOkW+JFK2M4iBax74UQ=");
        Clients.checkEquals(List.of(new ACL(ZooDefs.Perms.ALL, id)), found);
        guest.sync().forPath("/");
        try {
            guest.getData().forPath(root);
            throw new AssertionError("read without the right to");
        } catch (KeeperException.NoAuthException expected) {
            Clients.checkEquals(root, expected.getPath());
        }
        Stat stat = owner.setACL().withVersion(0).withACL(ZooDefs.Ids.OPEN_ACL_UNSAFE).forPath(root);
        Clients.checkEquals(1, stat.getAversion());
        guest.sync().forPath(root);
        guest.delete().forPath(root);
    }

    /** Stats do not tell a TTL; how soon such a znode is gone is the server's affair. */
    static void ttl(Clients clients, String root) throws Exception {
        CuratorFramework one = clients.connect(0);
        String name =
                one.create()
                        .withTtl(600_000)
                        .withMode(CreateMode.PERSISTENT_SEQUENTIAL_WITH_TTL)
                        .forPath(root + "-", new byte[] {1});
        Clients.check(name.matches(root + "-\\d{10}"), name);
        Clients.checkEquals(0L, one.checkExists().forPath(name).getEphemeralOwner());
        one.create().forPath(name + "/child");
        one.delete().deletingChildrenIfNeeded().forPath(name);
    }

    static void containers(Clients clients, String root) throws Exception {
        CuratorFramework one = clients.connect(0);
        one.create().creatingParentContainersIfNeeded().forPath(root + "/a/b");
        Clients.checkEquals(List.of("b"), one.getChildren().forPath(root + "/a"));
        Clients.checkEquals(0L, one.checkExists().forPath(root + "/a").getEphemeralOwner());
        one.create().withMode(CreateMode.CONTAINER).forPath(root + "/c");
        one.delete().deletingChildrenIfNeeded().forPath(root);
    }
}
