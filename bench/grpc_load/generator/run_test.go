package generator

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func aLoad(operation string) *Load {
	return &Load{
		Endpoints: []string{"a", "b"}, AllEndpoints: []string{"a", "b", "c"}, Path: "/load",
		Operation: operation, Connections: 3, InFlight: 4, DataBytes: 50,
		RampS: 0.02, Seconds: 0.2,
	}
}

// outcome runs a load that must succeed.
func outcome(t *testing.T, load *Load, store *store) *Outcome {
	t.Helper()
	// On a busy machine nothing may come within less.
	load.Seconds = max(load.Seconds, 0.5)
	found, err := Run(load, store.dial, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// refused runs a load that must fail, saying something like this.
func refused(t *testing.T, load *Load, store *store, like string) {
	t.Helper()
	_, err := Run(load, store.dial, func(string) {})
	if err == nil || !strings.Contains(err.Error(), like) {
		t.Fatalf("not %q: %v", like, err)
	}
	if store.open != 0 {
		t.Fatalf("%d connections were left open", store.open)
	}
}

func TestAllThatWasAcknowledgedIsThere(t *testing.T) {
	store, said := newStore(), []string{}
	store.pause = time.Millisecond
	load := aLoad(Set)
	load.Seconds = 0.5
	found, err := Run(load, store.dial, func(line string) { said = append(said, line) })
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(said, []string{Measuring, Measured}) {
		t.Errorf("it said %q", said)
	}
	if found.Total != store.sets || found.Operations == 0 || found.Operations >= found.Total {
		t.Errorf("%d of %d were measured; there were %d", found.Operations, found.Total, store.sets)
	}
	if found.Verified != 3*3 {
		t.Errorf("%d keys were compared at three servers", found.Verified)
	}
	if store.most != 3*4 {
		t.Errorf("%d sets were under way", store.most)
	}
	// The first for the creation, then one at each, then the load, then one at each.
	if dials := strings.Join(store.dials, ""); dials != "aabcabaabc" {
		t.Errorf("it dialled %q", dials)
	}
	if store.open != 0 {
		t.Errorf("%d connections were left open", store.open)
	}
	if found.Seconds < 0.5 || found.GeneratorCPUS <= 0 || len(found.LatenciesS) != len(Percents) {
		t.Errorf("%+v", found)
	}
	for _, latency := range found.LatenciesS {
		if latency < 0.001 {
			t.Errorf("a set of 1 ms took %v s", latency)
		}
	}
}

func TestGetsAreCompared(t *testing.T) {
	for _, operation := range []string{Get, LinearizableGet} {
		found := outcome(t, aLoad(operation), newStore())
		if found.Verified != found.Total+9 {
			t.Errorf("%d of %d were compared", found.Verified, found.Total)
		}
	}
}

func TestDataIsAsLongAsItShouldBeAndItsOwn(t *testing.T) {
	store := newStore()
	seen := map[string]bool{}
	store.onSet = func(_ int64, value *Value, place int64) (int64, error) {
		if text := string(value.Data); seen[text] || len(text) != 50 {
			return 0, errors.New("written twice or too short: " + text)
		} else {
			seen[text] = true
		}
		return place, nil
	}
	outcome(t, aLoad(Set), store)
}

func TestASetThatIsLostIsFound(t *testing.T) {
	store := newStore()
	store.onSet = func(number int64, value *Value, place int64) (int64, error) {
		if number == 100 {
			value.Sets--
		}
		return place, nil
	}
	refused(t, aLoad(Set), store, "acknowledged were")
}

func TestASetThatWasDoneTwiceIsFound(t *testing.T) {
	store := newStore()
	store.onSet = func(number int64, value *Value, place int64) (int64, error) {
		if number == 100 {
			value.Sets++
		}
		return place, nil
	}
	refused(t, aLoad(Set), store, "acknowledged were")
}

func TestOtherDataInTheEndIsFound(t *testing.T) {
	store := newStore()
	isEnd := false
	store.onGet = func(value *Value) {
		if isEnd && value.Sets > 0 {
			value.Data[49] ^= 1
		}
	}
	_, err := Run(aLoad(Set), store.dial, func(line string) { isEnd = line == Measured })
	if err == nil || !strings.Contains(err.Error(), "acknowledged were") {
		t.Fatal(err)
	}
}

func TestASetThatComesBeforeOneThatWasAcknowledgedIsFound(t *testing.T) {
	load := aLoad(Set)
	load.InFlight = 1
	store := newStore()
	store.onSet = func(number int64, _ *Value, place int64) (int64, error) {
		if number == 100 {
			return 1, nil
		}
		return place, nil
	}
	refused(t, load, store, "after one of place")
}

func TestTwoSetsOfOnePlaceAreFound(t *testing.T) {
	load := aLoad(Set)
	load.Connections = 1
	connection := newConnection(load, 0, &meter{})
	connection.places = []int64{1, 3, 2}
	if err := connection.checkPlaces(); err != nil {
		t.Fatal(err)
	}
	connection.places = []int64{1, 3, 2, 3}
	if connection.checkPlaces() == nil {
		t.Fatal("two have place 3")
	}
}

func TestTwoSetsAtOnceOfOnePlaceAreFound(t *testing.T) {
	load := aLoad(Set)
	load.Connections = 1
	store := newStore()
	store.pause = 20 * time.Millisecond
	store.onSet = func(number int64, _ *Value, place int64) (int64, error) {
		if number == 1 {
			return 2, nil
		}
		return place, nil
	}
	refused(t, load, store, "place")
}

func TestADifferentLastPlaceIsFound(t *testing.T) {
	store := newStore()
	store.onGet = func(value *Value) { value.Place++ }
	refused(t, aLoad(Set), store, "acknowledged were")
}

func TestAGetOfOtherDataIsFound(t *testing.T) {
	store := newStore()
	store.onGet = func(value *Value) { value.Data = []byte("other") }
	refused(t, aLoad(Get), store, "was read instead")
}

func TestAGetOfAKeyThatWasSetIsFound(t *testing.T) {
	store := newStore()
	store.onGet = func(value *Value) { value.Sets = 1 }
	refused(t, aLoad(LinearizableGet), store, "was read instead")
}

func TestTheFirstErrorEndsItAtOnce(t *testing.T) {
	for _, rate := range []float64{0, 10_000} {
		load := aLoad(Set)
		load.Seconds, load.Rate = 60, rate
		store := newStore()
		store.onSet = func(number int64, _ *Value, place int64) (int64, error) {
			if number == 100 {
				return 0, errors.New("no quorum")
			}
			return place, nil
		}
		refused(t, load, store, "no quorum")
	}
}

func TestAfterAnErrorNothingIsWaitedFor(t *testing.T) {
	store := newStore()
	store.onSet = func(number int64, _ *Value, place int64) (int64, error) {
		if number == 100 {
			store.hangs = true
			return 0, errors.New("no quorum")
		}
		return place, nil
	}
	refused(t, aLoad(Set), store, "no quorum")
}

// The one that is under way when the time ends is not in it.
func TestOnlyWhatIsAnsweredInTimeIsMeasured(t *testing.T) {
	load := aLoad(Set)
	load.Connections, load.InFlight, load.RampS, load.Seconds = 1, 1, 0, 0.52
	store := newStore()
	store.pause = 50 * time.Millisecond
	if found := outcome(t, load, store); found.Operations >= found.Total {
		t.Errorf("%d of %d", found.Operations, found.Total)
	}
}

func TestAServerThatIsNotThereIsAnError(t *testing.T) {
	store := newStore()
	store.refused = errors.New("connection refused")
	refused(t, aLoad(Set), store, "connection refused")
}

func TestWithARateSoManyBegin(t *testing.T) {
	load := aLoad(Set)
	load.Rate, load.Seconds = 500, 0.4
	began := time.Now()
	found := outcome(t, load, newStore())
	if most := 500 * time.Since(began).Seconds(); float64(found.Total) > most {
		t.Errorf("%d sets, of %v at most", found.Total, most)
	}
}

// What is asked for beyond what is answered waits, is late, and is counted from when it was due.
func TestWithARateThatIsTooHighRequestsWait(t *testing.T) {
	load := aLoad(Set)
	load.Connections, load.InFlight = 1, 1
	load.Rate, load.Seconds = 1_000, 0.3
	store := newStore()
	store.pause = 10 * time.Millisecond
	found := outcome(t, load, store)
	if found.Late == 0 || store.most != 1 {
		t.Errorf("%d late, %d under way", found.Late, store.most)
	}
	// After the ramp, 20 that were due wait for 10 ms each, and ever more.
	if median := found.LatenciesS[slices.Index(Percents, 50)]; median < 0.05 {
		t.Errorf("half took less than %v s", median)
	}
}

func TestNothingToDoIsRefused(t *testing.T) {
	for _, spoil := range []func(*Load){
		func(load *Load) { load.Operation = "put" },
		func(load *Load) { load.Connections = 0 },
		func(load *Load) { load.InFlight = 0 },
		func(load *Load) { load.Endpoints = nil },
		func(load *Load) { load.Seconds = 0 },
		func(load *Load) { load.Reads = 0.5 },
	} {
		load := aLoad(Set)
		spoil(load)
		if load.Check() == nil {
			t.Errorf("%+v", load)
		}
	}
}

// The same figures as of bench.load.percentiles.
func TestPercentilesAreByNearestRank(t *testing.T) {
	var samples []float64
	for number := 1_000; number > 0; number-- {
		samples = append(samples, float64(number))
	}
	want := []float64{10, 100, 250, 500, 750, 900, 950, 990, 999, 1000}
	if found := percentiles(samples); !slices.Equal(found, want) {
		t.Errorf("%v", found)
	}
	for _, each := range percentiles([]float64{7}) {
		if each != 7 {
			t.Errorf("%v of one sample", each)
		}
	}
}
