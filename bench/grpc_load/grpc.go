package main

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
)

// connect is the same for both systems: one connection to one server, nothing balanced or retried.
func connect(ctx context.Context, endpoint string) (*grpc.ClientConn, error) {
	connection, err := grpc.NewClient("passthrough:///"+endpoint,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithNoProxy(),
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
	)
	if err != nil {
		return nil, err
	}
	connection.Connect()
	for state := connection.GetState(); state != connectivity.Ready; {
		if state == connectivity.TransientFailure || !connection.WaitForStateChange(ctx, state) {
			connection.Close()
			return nil, fmt.Errorf("%s: no connection (%v)", endpoint, state)
		}
		state = connection.GetState()
	}
	return connection, nil
}
