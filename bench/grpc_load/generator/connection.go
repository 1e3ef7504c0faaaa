package generator

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// meter is what all connections count together.
type meter struct {
	isMeasuring atomic.Bool
	isStopping  atomic.Bool
	late        atomic.Int64
}

// connection is one client, its key, and what was acknowledged of that.
type connection struct {
	load   *Load
	meter  *meter
	key    string
	first  []byte
	client Client
	// due is when requests are due; nil: in a closed loop. It has room for all that ever will be.
	due chan time.Time
	// pending is how many were due and are not answered.
	pending atomic.Int64
	callers []*caller

	lock sync.Mutex
	// highest is the greatest place that was acknowledged.
	highest int64
	// last is what was written there.
	last []byte
	// places are those of all acknowledged sets.
	places []int64
}

// caller makes one call after another, and counts by itself, so as to share no cache line.
type caller struct {
	connection *connection
	prefix     []byte
	data       []byte
	acked      int64
	verified   int64
	samples    []float64
}

func newConnection(load *Load, number int, meter *meter) *connection {
	key := fmt.Sprintf("%s-%d", load.Path, number)
	made := &connection{load: load, meter: meter, key: key}
	made.first = rightJustified([]byte(key+" first"), load.DataBytes)
	made.last = slices.Clone(made.first)
	if load.Rate > 0 {
		each := load.Rate * (load.RampS + load.Seconds) / float64(load.Connections)
		made.due = make(chan time.Time, int(2*each)+1_000)
	}
	for number := range load.InFlight {
		prefix := fmt.Sprintf("%s %03d ", key, number)
		made.callers = append(made.callers, &caller{connection: made, prefix: []byte(prefix)})
	}
	return made
}

func rightJustified(text []byte, size int) []byte {
	return append(bytes.Repeat([]byte("."), max(0, size-len(text))), text...)
}

// next is data that no other set of the key writes. It is valid until the next one.
func (caller *caller) next(number int64) []byte {
	const digits = 9
	text := strconv.AppendInt(nil, number, 10)
	size := max(caller.connection.load.DataBytes, len(caller.prefix)+digits)
	if len(caller.data) != size {
		start := slices.Concat(caller.prefix, bytes.Repeat([]byte("0"), digits))
		caller.data = rightJustified(start, size)
	}
	copy(caller.data[size-len(text):], text)
	return caller.data
}

// run calls until the meter says that nothing more is to begin.
func (caller *caller) run(ctx context.Context) error {
	connection := caller.connection
	if connection.due == nil {
		for !connection.meter.isStopping.Load() {
			if err := caller.call(ctx, time.Now()); err != nil {
				return err
			}
		}
		return nil
	}
	for since := range connection.due {
		if connection.meter.isStopping.Load() {
			continue // What could not begin in time will not begin at all.
		}
		if err := caller.call(ctx, since); err != nil {
			return err
		}
		connection.pending.Add(-1)
	}
	return nil
}

// sendDue says that a request is due. It is late if as many are under way as may be.
func (connection *connection) sendDue(since time.Time) error {
	if connection.pending.Add(1) > int64(connection.load.InFlight) {
		if connection.meter.isMeasuring.Load() {
			connection.meter.late.Add(1)
		}
	}
	select {
	case connection.due <- since:
		return nil
	default:
		return fmt.Errorf("%s: more requests than were to be", connection.key)
	}
}

// call is one operation, its reply checked.
func (caller *caller) call(ctx context.Context, since time.Time) error {
	var err error
	if caller.connection.load.Operation == Set {
		err = caller.set(ctx)
	} else {
		err = caller.get(ctx)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", caller.connection.key, err)
	}
	caller.acked++
	if caller.connection.meter.isMeasuring.Load() {
		caller.samples = append(caller.samples, time.Since(since).Seconds())
	}
	return nil
}

func (caller *caller) set(ctx context.Context) error {
	connection := caller.connection
	data := caller.next(caller.acked)
	connection.lock.Lock()
	before := connection.highest
	connection.lock.Unlock()
	place, err := connection.client.Set(ctx, connection.key, data)
	if err != nil {
		return err
	}
	if place <= before {
		return fmt.Errorf("a set has place %d, after one of place %d was acknowledged",
			place, before)
	}
	connection.lock.Lock()
	defer connection.lock.Unlock()
	connection.places = append(connection.places, place)
	if place > connection.highest {
		connection.highest = place
		connection.last = append(connection.last[:0], data...)
	}
	return nil
}

func (caller *caller) get(ctx context.Context) error {
	connection := caller.connection
	isLinearizable := connection.load.Operation == LinearizableGet
	value, err := connection.client.Get(ctx, connection.key, isLinearizable)
	if err != nil {
		return err
	}
	if value.Sets != 0 || !bytes.Equal(value.Data, connection.first) {
		return fmt.Errorf("%q, set %d times, was read instead of %q",
			value.Data, value.Sets, connection.first)
	}
	caller.verified++
	return nil
}

// checkPlaces is for when all is answered.
func (connection *connection) checkPlaces() error {
	places := slices.Sorted(slices.Values(connection.places))
	if distinct := len(slices.Compact(places)); distinct != len(connection.places) {
		return fmt.Errorf("%s: %d sets have %d places in their order",
			connection.key, len(connection.places), distinct)
	}
	return nil
}

// check compares what a server has, when all is answered.
func (connection *connection) check(value Value) error {
	sets := int64(len(connection.places))
	isPlaced := sets == 0 || value.Place == connection.highest
	if value.Sets == sets && isPlaced && bytes.Equal(value.Data, connection.last) {
		return nil
	}
	return fmt.Errorf("%s has %q of place %d after %d sets; acknowledged were %d, the last %q of "+
		"place %d", connection.key, value.Data, value.Place, value.Sets, sets, connection.last,
		connection.highest)
}
