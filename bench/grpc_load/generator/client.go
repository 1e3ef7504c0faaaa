package generator

import "context"

// Client asks one server, over one connection. It is used by several callers at once.
type Client interface {
	// Create makes a key. An error: there was one.
	Create(ctx context.Context, key string, data []byte) error

	// Set returns the place of this set in the order of all sets of the key. It returns once a
	// majority has it on disk.
	Set(ctx context.Context, key string, data []byte) (place int64, err error)

	// Get reads a key as this server has it, or so that it is no older than anything that was
	// acknowledged before, by whichever server.
	Get(ctx context.Context, key string, linearizable bool) (Value, error)

	Close() error
}

// Value is what a key has.
type Value struct {
	Data []byte
	// Sets is how many there were since it was created.
	Sets int64
	// Place is that of the last set.
	Place int64
}

// Dial connects to a server. It returns when requests can be sent.
type Dial func(ctx context.Context, endpoint string) (Client, error)
