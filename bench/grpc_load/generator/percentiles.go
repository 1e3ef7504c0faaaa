package generator

import (
	"math"
	"slices"
)

// Percents are those of bench/load.py.
var Percents = []float64{1, 10, 25, 50, 75, 90, 95, 99, 99.9, 100}

// percentiles are by nearest rank, so each is one that was measured. Sorts the samples, of which
// there is one at least.
func percentiles(samples []float64) []float64 {
	slices.Sort(samples)
	found := make([]float64, len(Percents))
	for index, percent := range Percents {
		// Rounded, for 99.9 % of 1,000 is a little more than 999 in floating point.
		exact := math.Round(percent*float64(len(samples))*1e4) / 1e6
		found[index] = samples[int(math.Ceil(exact))-1]
	}
	return found
}
