// etcd's server as it is shipped, built from its modules: `etcd --name ...`.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
