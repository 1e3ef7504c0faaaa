import java.util.LinkedHashMap;
import java.util.Map;
import java.util.UUID;

/**
 * Runs Curator's recipes with clients on different replicas, one line each: "ok NAME". The exit
 * status is 1 when one of them fails.
 *
 * <p>Arguments: HOST:PORT,HOST:PORT,... and then either nothing, or "under-kills SECONDS".
 */
public final class Main {
    interface Recipe {
        void run(Clients clients, String root) throws Exception;
    }

    public static void main(String[] arguments) throws Exception {
        String[] hosts = arguments[0].split(",");
        int failed = 0;
        if (arguments.length == 3 && arguments[1].equals("under-kills")) {
            int seconds = Integer.parseInt(arguments[2]);
            failed += run("under-kills", hosts, (clients, root) -> UnderKills.run(clients, root, seconds));
        } else {
            for (Map.Entry<String, Recipe> each : recipes().entrySet()) {
                failed += run(each.getKey(), hosts, each.getValue());
            }
        }
        System.exit(failed == 0 ? 0 : 1);
    }

    private static Map<String, Recipe> recipes() {
        Map<String, Recipe> recipes = new LinkedHashMap<>();
        recipes.put("session", ZnodeChecks::session);
        recipes.put("znodes", ZnodeChecks::znodes);
        recipes.put("parents", ZnodeChecks::parents);
        recipes.put("transactions", ZnodeChecks::transactions);
        recipes.put("acls", ZnodeChecks::acls);
        recipes.put("ttl", ZnodeChecks::ttl);
        recipes.put("containers", ZnodeChecks::containers);
        recipes.put("mutex", LockChecks::mutex);
        recipes.put("read-write-lock", LockChecks::readWriteLock);
        recipes.put("semaphore", LockChecks::semaphore);
        recipes.put("leader-latch", LockChecks::leaderLatch);
        recipes.put("leader-selector", LockChecks::leaderSelector);
        recipes.put("double-barrier", LockChecks::doubleBarrier);
        recipes.put("shared-count", SharedChecks::sharedCount);
        recipes.put("atomic-long", SharedChecks::atomicLong);
        recipes.put("cache", SharedChecks::cache);
        recipes.put("persistent-watcher", SharedChecks::persistentWatcher);
        recipes.put("persistent-node", SharedChecks::persistentNode);
        recipes.put("group-member", SharedChecks::groupMember);
        recipes.put("queue", SharedChecks::queue);
        recipes.put("queue-with-locks", SharedChecks::queueWithLocks);
        return recipes;
    }

    private static int run(String name, String[] hosts, Recipe recipe) {
        try (Clients clients = new Clients(hosts)) {
            recipe.run(clients, "/interop-curator-" + UUID.randomUUID());
            System.out.println("ok " + name);
            return 0;
        } catch (Exception | AssertionError error) {
            System.out.println("failed " + name);
            error.printStackTrace(System.out);
            return 1;
        }
    }
}
