// Load of unary gRPC calls, the same for the service and for etcd:
//
//	grpc_load -system coordsvc|etcd < LOAD.json
//
// What goes in and comes out is told in bench/load.py, what is checked in package generator. A set
// is SetData without a session, or Put without a lease: both are acknowledged after a majority has
// synced it. A linearizable get is GetData with that consistency, or Range as it is by default;
// any other one is LOCAL, or Serializable.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"coordsvc-bench-load/generator"
)

var systems = map[string]generator.Dial{"coordsvc": dialCoordsvc, "etcd": dialEtcd}

// gcPercent: there is little that lives, so that by default it would be collected all the time.
const gcPercent = 1_000

func main() {
	known := strings.Join(slices.Sorted(maps.Keys(systems)), " or ")
	system := flag.String("system", "", known)
	flag.Parse()
	dial, isKnown := systems[*system]
	if !isKnown {
		fail(fmt.Errorf("-system is to be %s", known))
	}
	debug.SetGCPercent(gcPercent)
	var load generator.Load
	decoder := json.NewDecoder(os.Stdin)
	// What it does not know it must not leave out.
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&load); err != nil {
		fail(err)
	}
	outcome, err := generator.Run(&load, dial, func(line string) { fmt.Println(line) })
	if err != nil {
		fail(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(outcome); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
