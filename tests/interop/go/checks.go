package main

import (
	"slices"
	"strings"

	pb "coordsvc-interop/gen/coordsvc/v1"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

var checks = []struct {
	name string
	run  func(run)
}{
	{"create, get, set, delete", createGetSetDelete},
	{"null data is not empty data", nullIsNotEmpty},
	{"an absent version is not version 0", absentVersion},
	{"refusals by code", refusals},
	{"children, sorted, in pages", childrenInPages},
	{"a multi is all or nothing", multi},
	{"a session, its ephemeral, its request numbers", session},
	{"the cluster has a leader", oneLeader},
}

func createGetSetDelete(r run) {
	path := r.root + "/a"
	created := must(r.tree.Create(r, &pb.CreateRequest{Path: path, Data: []byte("one")}))
	expect(created.Path == path, "path %q", created.Path)
	expect(created.Stat.Version == 0, "version %d", created.Stat.Version)
	expect(created.Header.Zxid == created.Stat.Czxid, "zxid %d", created.Header.Zxid)
	expect(created.Header.ClusterId != 0, "no cluster id")
	set := must(r.tree.SetData(r, &pb.SetDataRequest{
		Path: path, Data: []byte("two"), ExpectedVersion: proto.Int64(0)}))
	expect(set.Stat.Version == 1, "version %d", set.Stat.Version)
	got := must(r.tree.GetData(r, &pb.GetDataRequest{
		Path: path, Consistency: pb.ReadConsistency_READ_CONSISTENCY_LINEARIZABLE}))
	expect(string(got.Data) == "two", "data %q", got.Data)
	expect(got.Stat.DataLength == 3, "data length %d", got.Stat.DataLength)
	must(r.tree.Delete(r, &pb.DeleteRequest{Path: path, ExpectedVersion: proto.Int64(1)}))
	expect(must(r.tree.Exists(r, &pb.ExistsRequest{Path: path})).Stat == nil, "still there")
}

func nullIsNotEmpty(r run) {
	absent, empty := r.root+"/null", r.root+"/empty"
	data := func(path string) []byte {
		return must(r.tree.GetData(r, &pb.GetDataRequest{Path: path})).Data
	}
	must(r.tree.Create(r, &pb.CreateRequest{Path: absent}))
	must(r.tree.Create(r, &pb.CreateRequest{Path: empty, Data: []byte{}}))
	expect(data(absent) == nil, "null came back as %q", data(absent))
	expect(data(empty) != nil && len(data(empty)) == 0, "empty came back as %v", data(empty))
	must(r.tree.SetData(r, &pb.SetDataRequest{Path: empty}))
	expect(data(empty) == nil, "null came back as %q", data(empty))
}

func absentVersion(r run) {
	path := r.root + "/version"
	must(r.tree.Create(r, &pb.CreateRequest{Path: path}))
	must(r.tree.SetData(r, &pb.SetDataRequest{Path: path}))
	must(r.tree.SetData(r, &pb.SetDataRequest{Path: path, ExpectedVersion: proto.Int64(-1)}))
	setAt := func(version int64) func(...grpc.CallOption) (*pb.SetDataResponse, error) {
		return func(options ...grpc.CallOption) (*pb.SetDataResponse, error) {
			return r.tree.SetData(r, &pb.SetDataRequest{
				Path: path, ExpectedVersion: proto.Int64(version)}, options...)
		}
	}
	refused(pb.ErrorCode_ERROR_CODE_BAD_VERSION, codes.Aborted, setAt(0))
	refused(pb.ErrorCode_ERROR_CODE_BAD_ARGUMENTS, codes.InvalidArgument, setAt(-2))
}

func refusals(r run) {
	get := func(path string) func(...grpc.CallOption) (*pb.GetDataResponse, error) {
		return func(options ...grpc.CallOption) (*pb.GetDataResponse, error) {
			return r.tree.GetData(r, &pb.GetDataRequest{Path: path}, options...)
		}
	}
	create := func(request *pb.CreateRequest) func(...grpc.CallOption) (*pb.CreateResponse, error) {
		return func(options ...grpc.CallOption) (*pb.CreateResponse, error) {
			return r.tree.Create(r, request, options...)
		}
	}
	detail := refused(pb.ErrorCode_ERROR_CODE_NO_NODE, codes.NotFound, get(r.root+"/none"))
	expect(detail.Path == r.root+"/none", "path %q", detail.Path)
	long := r.root + "/" + strings.Repeat("x", 4000)
	detail = refused(pb.ErrorCode_ERROR_CODE_NO_NODE, codes.NotFound, get(long))
	expect(len(detail.Path) <= 1024, "path of %d bytes in the detail", len(detail.Path))
	refused(pb.ErrorCode_ERROR_CODE_NODE_EXISTS, codes.AlreadyExists,
		create(&pb.CreateRequest{Path: r.root}))
	refused(pb.ErrorCode_ERROR_CODE_BAD_ARGUMENTS, codes.InvalidArgument,
		create(&pb.CreateRequest{Path: "no-slash"}))
	refused(pb.ErrorCode_ERROR_CODE_BAD_ARGUMENTS, codes.InvalidArgument,
		create(&pb.CreateRequest{Path: r.root + "/mode", Mode: pb.CreateMode(99)}))
	refused(pb.ErrorCode_ERROR_CODE_NOT_EMPTY, codes.FailedPrecondition,
		func(options ...grpc.CallOption) (*pb.DeleteResponse, error) {
			return r.tree.Delete(r, &pb.DeleteRequest{Path: r.root}, options...)
		})
}

func childrenInPages(r run) {
	parent := r.root + "/children"
	must(r.tree.Create(r, &pb.CreateRequest{Path: parent}))
	for _, name := range []string{"c", "a", "b"} {
		must(r.tree.Create(r, &pb.CreateRequest{Path: parent + "/" + name, Data: []byte(name)}))
	}
	var names []string
	request := &pb.GetChildrenRequest{Path: parent, PageSize: 2, IncludeData: true}
	for {
		page := must(r.tree.GetChildren(r, request))
		for _, child := range page.Children {
			expect(string(child.Data) == child.Name, "data %q", child.Data)
			names = append(names, child.Name)
		}
		if request.PageToken = page.NextPageToken; request.PageToken == "" {
			break
		}
	}
	expect(slices.Equal(names, []string{"a", "b", "c"}), "children %v", names)
}

func multi(r run) {
	path := r.root + "/m"
	create := &pb.MultiOperation{Operation: &pb.MultiOperation_Create{
		Create: &pb.CreateOperation{Path: path}}}
	check := &pb.MultiOperation{Operation: &pb.MultiOperation_Check{
		Check: &pb.CheckOperation{Path: r.root, ExpectedVersion: proto.Int64(9)}}}
	detail := refused(pb.ErrorCode_ERROR_CODE_BAD_VERSION, codes.Aborted,
		func(options ...grpc.CallOption) (*pb.MultiResponse, error) {
			return r.tree.Multi(r, &pb.MultiRequest{
				Operations: []*pb.MultiOperation{create, check}}, options...)
		})
	expect(detail.OperationIndex != nil && *detail.OperationIndex == 1,
		"operation index %v", detail.OperationIndex)
	expect(must(r.tree.Exists(r, &pb.ExistsRequest{Path: path})).Stat == nil, "half applied")
	done := must(r.tree.Multi(r, &pb.MultiRequest{Operations: []*pb.MultiOperation{create}}))
	expect(done.Results[0].GetCreate().GetPath() == path, "results %v", done.Results)
}

func session(r run) {
	opened := must(r.tree.OpenSession(r, &pb.OpenSessionRequest{
		TimeoutMs: 10_000, ClientName: "go"}))
	request := &pb.CreateRequest{
		Context: &pb.RequestContext{Session: opened.Credentials, RequestNumber: 1},
		Path:    r.root + "/e-",
		Mode:    pb.CreateMode_CREATE_MODE_EPHEMERAL_SEQUENTIAL,
	}
	first := must(r.tree.Create(r, request))
	expect(first.Stat.EphemeralOwner == opened.Credentials.SessionId, "another's ephemeral")
	again := must(r.tree.Create(r, request))
	expect(again.Path == first.Path && again.Header.Zxid == first.Header.Zxid,
		"the retry made %q", again.Path)
	heartbeat := func(credentials *pb.SessionCredentials) func(...grpc.CallOption) (
		*pb.HeartbeatResponse, error) {
		return func(options ...grpc.CallOption) (*pb.HeartbeatResponse, error) {
			return r.tree.Heartbeat(r, &pb.HeartbeatRequest{Credentials: credentials}, options...)
		}
	}
	expect(must(heartbeat(opened.Credentials)()).TimeoutMs > 0, "no timeout")
	refused(pb.ErrorCode_ERROR_CODE_SESSION_EXPIRED, codes.FailedPrecondition,
		heartbeat(&pb.SessionCredentials{
			SessionId: opened.Credentials.SessionId, Password: make([]byte, 16)}))
	must(r.tree.CloseSession(r, &pb.CloseSessionRequest{
		Context: &pb.RequestContext{Session: opened.Credentials}}))
	expect(must(r.tree.Exists(r, &pb.ExistsRequest{Path: first.Path})).Stat == nil,
		"the ephemeral outlived its session")
}

func oneLeader(r run) {
	leaders := 0
	for _, replica := range must(r.cluster.Status(r, &pb.StatusRequest{})).Replicas {
		if replica.Role == pb.ReplicaRole_REPLICA_ROLE_LEADER {
			leaders++
		}
	}
	expect(leaders == 1, "%d leaders", leaders)
}
