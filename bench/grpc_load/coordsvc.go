package main

import (
	"context"

	pb "coordsvc-bench-load/gen/coordsvc/v1"
	"coordsvc-bench-load/generator"

	"google.golang.org/grpc"
)

// coordsvc asks by the stubs that stock plugins make of proto/.
type coordsvc struct {
	*grpc.ClientConn
	tree pb.CoordinationClient
}

func dialCoordsvc(ctx context.Context, endpoint string) (generator.Client, error) {
	connection, err := connect(ctx, endpoint)
	if err != nil {
		return nil, err
	}
	return &coordsvc{connection, pb.NewCoordinationClient(connection)}, nil
}

func (coordsvc *coordsvc) Create(ctx context.Context, key string, data []byte) error {
	_, err := coordsvc.tree.Create(ctx, &pb.CreateRequest{Path: key, Data: data})
	return err
}

// Set is without a session and a request number, as a put without a lease is. Its place is the
// version that it made.
func (coordsvc *coordsvc) Set(ctx context.Context, key string, data []byte) (int64, error) {
	answer, err := coordsvc.tree.SetData(ctx, &pb.SetDataRequest{Path: key, Data: data})
	if err != nil {
		return 0, err
	}
	return answer.Stat.Version, nil
}

func (coordsvc *coordsvc) Get(
	ctx context.Context, key string, linearizable bool,
) (generator.Value, error) {
	request := &pb.GetDataRequest{Path: key, Consistency: pb.ReadConsistency_READ_CONSISTENCY_LOCAL}
	if linearizable {
		request.Consistency = pb.ReadConsistency_READ_CONSISTENCY_LINEARIZABLE
	}
	answer, err := coordsvc.tree.GetData(ctx, request)
	if err != nil {
		return generator.Value{}, err
	}
	version := answer.Stat.Version
	return generator.Value{Data: answer.Data, Sets: version, Place: version}, nil
}
