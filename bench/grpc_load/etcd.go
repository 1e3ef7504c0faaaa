package main

import (
	"context"
	"fmt"

	"coordsvc-bench-load/generator"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
)

// etcd asks by what its own client is made of, without that client's balancer and retries.
type etcd struct {
	*grpc.ClientConn
	kv pb.KVClient
}

func dialEtcd(ctx context.Context, endpoint string) (generator.Client, error) {
	connection, err := connect(ctx, endpoint)
	if err != nil {
		return nil, err
	}
	return &etcd{connection, pb.NewKVClient(connection)}, nil
}

func (etcd *etcd) Create(ctx context.Context, key string, data []byte) error {
	request := &pb.PutRequest{Key: []byte(key), Value: data, PrevKv: true}
	answer, err := etcd.kv.Put(ctx, request)
	if err == nil && answer.PrevKv != nil {
		err = fmt.Errorf("there is a key %s", key)
	}
	return err
}

// Set is a put without a lease. Its place is its revision: that of the answer is the put's own.
func (etcd *etcd) Set(ctx context.Context, key string, data []byte) (int64, error) {
	answer, err := etcd.kv.Put(ctx, &pb.PutRequest{Key: []byte(key), Value: data})
	if err != nil {
		return 0, err
	}
	return answer.Header.Revision, nil
}

// Get: linearizable is etcd's default.
func (etcd *etcd) Get(ctx context.Context, key string, linearizable bool) (generator.Value, error) {
	request := &pb.RangeRequest{Key: []byte(key), Serializable: !linearizable}
	answer, err := etcd.kv.Range(ctx, request)
	if err != nil {
		return generator.Value{}, err
	}
	if len(answer.Kvs) != 1 {
		return generator.Value{}, fmt.Errorf("%d keys are %s", len(answer.Kvs), key)
	}
	found := answer.Kvs[0]
	// The first version is that of the creation.
	return generator.Value{
		Data: found.Value, Sets: found.Version - 1, Place: found.ModRevision,
	}, nil
}
