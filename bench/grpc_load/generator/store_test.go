package generator

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"time"
)

// store is a system of one server in memory. What is wrong with it is set by tests, which say how
// the set of that number (from 1, over all keys) is answered.
type store struct {
	lock   sync.Mutex
	sets   int64
	values map[string]Value
	dials  []string
	open   int
	most   int
	under  int
	pause  time.Duration
	onSet  func(number int64, value *Value, place int64) (int64, error)
	onGet  func(value *Value)
	// hangs: sets are not answered until the caller gives up.
	hangs   bool
	refused error
}

func newStore() *store { return &store{values: map[string]Value{}} }

func (store *store) dial(_ context.Context, endpoint string) (Client, error) {
	if store.refused != nil {
		return nil, store.refused
	}
	store.lock.Lock()
	defer store.lock.Unlock()
	store.dials = append(store.dials, endpoint)
	store.open++
	return store, nil
}

func (store *store) Close() error {
	store.lock.Lock()
	defer store.lock.Unlock()
	store.open--
	return nil
}

func (store *store) Create(_ context.Context, key string, data []byte) error {
	store.lock.Lock()
	defer store.lock.Unlock()
	if _, isThere := store.values[key]; isThere {
		return errors.New("there is one")
	}
	store.values[key] = Value{Data: bytes.Clone(data)}
	return nil
}

func (store *store) Set(ctx context.Context, key string, data []byte) (int64, error) {
	if store.begin(1); store.isHanging() {
		<-ctx.Done()
	}
	defer store.begin(-1)
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-time.After(store.pause):
	}
	store.lock.Lock()
	defer store.lock.Unlock()
	before := store.values[key]
	store.sets++
	// Places are of the order of all keys, as revisions are.
	after := Value{Data: bytes.Clone(data), Sets: before.Sets + 1, Place: store.sets}
	place, err := store.sets, error(nil)
	if store.onSet != nil {
		place, err = store.onSet(store.sets, &after, place)
	}
	store.values[key] = after
	return place, err
}

func (store *store) isHanging() bool {
	store.lock.Lock()
	defer store.lock.Unlock()
	return store.hangs
}

func (store *store) begin(count int) {
	store.lock.Lock()
	defer store.lock.Unlock()
	store.under += count
	store.most = max(store.most, store.under)
}

func (store *store) Get(_ context.Context, key string, _ bool) (Value, error) {
	time.Sleep(store.pause)
	store.lock.Lock()
	defer store.lock.Unlock()
	value, isThere := store.values[key]
	if !isThere {
		return Value{}, errors.New("there is none")
	}
	if store.onGet != nil {
		store.onGet(&value)
	}
	return value, nil
}
