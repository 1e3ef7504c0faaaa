// A client in Go, made from proto/ alone with the stock plugins, that checks the API against a
// running replica: `client HOST:PORT`. Exit status 0 only if everything holds.
//
// Errors are told apart by ErrorDetail, never by text.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	pb "coordsvc-interop/gen/coordsvc/v1"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// run is one check's view of the service. A failed expectation panics and ends the check.
type run struct {
	context.Context
	tree    pb.CoordinationClient
	cluster pb.ClusterClient
	root    string
}

func expect(holds bool, format string, arguments ...any) {
	if !holds {
		panic(fmt.Sprintf(format, arguments...))
	}
}

// must unwraps an answer that should not be an error.
func must[T any](answer T, err error) T {
	expect(err == nil, "should have been answered: %v", err)
	return answer
}

// refused makes a call that should be refused, and compares what the status, its details and the
// plain trailers say.
func refused[T any](want pb.ErrorCode, wantStatus codes.Code,
	call func(...grpc.CallOption) (T, error)) *pb.ErrorDetail {
	var trailer metadata.MD
	_, err := call(grpc.Trailer(&trailer))
	expect(err != nil, "should have been refused: %v", want)
	expect(status.Code(err) == wantStatus, "status %v, want %v", status.Code(err), wantStatus)
	for _, each := range status.Convert(err).Details() {
		detail, ok := each.(*pb.ErrorDetail)
		if !ok {
			continue
		}
		expect(detail.Code == want, "code %v, want %v", detail.Code, want)
		expect(detail.Applied == pb.Applied_APPLIED_NO, "applied %v", detail.Applied)
		name := strings.TrimPrefix(detail.Code.String(), "ERROR_CODE_")
		got := trailer.Get("coordsvc-error")
		expect(len(got) == 1 && got[0] == name, "trailer coordsvc-error: %v", got)
		got = trailer.Get("coordsvc-applied")
		expect(len(got) == 1 && got[0] == "no", "trailer coordsvc-applied: %v", got)
		return detail
	}
	panic(fmt.Sprintf("no ErrorDetail with: %v", err))
}

func connect(address string) (*grpc.ClientConn, error) {
	return grpc.NewClient(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
}

// passes runs one check and says how it went.
func passes(name string, check func(run), each run) (ok bool) {
	defer func() {
		if reason := recover(); reason != nil {
			fmt.Printf("FAILED  %s: %v\n", name, reason)
			ok = false
		}
	}()
	check(each)
	fmt.Printf("ok      %s\n", name)
	return true
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: client HOST:PORT")
		os.Exit(2)
	}
	connection, err := connect(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	each := run{
		Context: ctx,
		tree:    pb.NewCoordinationClient(connection),
		cluster: pb.NewClusterClient(connection),
		root:    fmt.Sprintf("/interop-go-%d-%d", os.Getpid(), time.Now().UnixNano()),
	}
	if _, err := each.tree.Create(ctx, &pb.CreateRequest{Path: each.root}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	failures := 0
	for _, check := range checks {
		if !passes(check.name, check.run, each) {
			failures++
		}
	}
	if failures > 0 {
		os.Exit(1)
	}
}
