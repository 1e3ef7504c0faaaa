// Package generator makes load of unary calls and checks what comes back, whatever system is asked
// and however: it imports the standard library only.
//
// What goes in and comes out is told in bench/load.py. Every connection has a key of its own and
// as many callers as operations may be under way, each of which makes one call after another.
//
// What is checked: no reply is an error; a set comes, in the order of the key's sets, after all
// that were acknowledged before it began; no two sets have the same place in that order; a get
// finds the data. Afterwards every key is read at every server: the system counts as many sets of
// it as were acknowledged, and its data is of the one that is last in the order.
package generator

import "fmt"

// Operations.
const (
	Set             = "set"
	Get             = "get"
	LinearizableGet = "linearizable_get"
)

// Load is what is asked for; see bench/load.py.
type Load struct {
	Endpoints    []string `json:"endpoints"`
	AllEndpoints []string `json:"all_endpoints"`
	Path         string   `json:"path"`
	Operation    string   `json:"operation"`
	Connections  int      `json:"connections"`
	InFlight     int      `json:"in_flight"`
	DataBytes    int      `json:"data_bytes"`
	RampS        float64  `json:"ramp_s"`
	Seconds      float64  `json:"seconds"`
	Rate         float64  `json:"rate"`
	Reads        float64  `json:"reads"`
}

// Check tells what is wrong with a load; nil: nothing.
func (load *Load) Check() error {
	switch load.Operation {
	case Set, Get, LinearizableGet:
	default:
		return fmt.Errorf("no such operation: %q", load.Operation)
	}
	if load.Connections < 1 || load.InFlight < 1 || len(load.Endpoints) == 0 ||
		load.Seconds <= 0 {
		return fmt.Errorf("nothing to do: %+v", *load)
	}
	if load.Reads != 0 {
		return fmt.Errorf("sets and gets are not mixed here: reads %v", load.Reads)
	}
	return nil
}

// Outcome is what came of it; see bench/load.py.
type Outcome struct {
	Operations    int64     `json:"operations"`
	Seconds       float64   `json:"seconds"`
	Total         int64     `json:"total"`
	Verified      int64     `json:"verified"`
	GeneratorCPUS float64   `json:"generator_cpu_s"`
	LatenciesS    []float64 `json:"latencies_s"`
	// Late is, with a rate, how many requests could not begin when they were due.
	Late int64 `json:"late"`
}
